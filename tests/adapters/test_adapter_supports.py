"""Bounds from priors, and which rows lie inside them."""

import pytest
import torch
from torch import distributions as d
from torch.distributions import constraints
from torch.distributions import transforms as t
from transform_cases import CASES, normal

from sbi_models.adapters import Adapter, default_adapter
from sbi_models.errors import ConfigurationError, DataError

A = Adapter()
F = torch.float64


def full(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=F)


def moved(base, *maps):
    return d.TransformedDistribution(base, list(maps))


class WithSupport(d.Distribution):
    """A distribution of a user, of which only the support is known."""

    def __init__(self, support):
        self.given = support
        super().__init__(validate_args=False)

    @property
    def support(self):
        return self.given


UNIT = d.Uniform(full(0.0), full(1.0))
BOUNDED = {
    "uniform": (d.Uniform(full(-2.0), full(3.0)), -2.0, 3.0),
    "uniform, each": (d.Uniform(full(-2.0, 0.0), full(3.0, 0.5)), [-2.0, 0.0], [3.0, 0.5]),
    "independent": (d.Independent(d.Uniform(full(-2.0, 0.0), full(3.0, 0.5)), 1), [-2.0, 0.0], [3.0, 0.5]),
    "equal rows": (d.Uniform(torch.zeros(2, 3, dtype=F), torch.ones(2, 3, dtype=F)), [0.0] * 3, [1.0] * 3),
    "gamma": (d.Gamma(full(2.0, 3.0), full(1.0, 1.0)), 0.0, None),
    "exponential": (d.Exponential(full(1.0)), 0.0, None),
    "half normal": (d.HalfNormal(full(1.0)), 0.0, None),
    "beta": (d.Beta(full(2.0), full(2.0)), 0.0, 1.0),
    "log normal": (d.LogNormal(full(0.0), full(1.0)), 0.0, None),
    "pareto": (d.Pareto(full(1.5), full(2.0)), 1.5, None),
    "generalized pareto": (d.GeneralizedPareto(full(1.0), full(1.0), full(-0.5)), 1.0, 3.0),
    "generalized pareto, two kinds": (
        d.GeneralizedPareto(full(1.0, 0.0), full(1.0, 1.0), full(-0.5, 0.5)),
        [1.0, 0.0],
        [3.0, None],
    ),
    "weibull": (d.Weibull(full(1.0), full(2.0)), 0.0, None),
    "mixture": (
        d.MixtureSameFamily(d.Categorical(full(0.5, 0.5)), d.Uniform(full(0.0, 2.0), full(1.0, 4.0))),
        0.0,
        4.0,
    ),
    "mixture of vectors": (
        d.MixtureSameFamily(
            d.Categorical(full(0.5, 0.5)),
            d.Independent(
                d.Uniform(full(0.0, 2.0, 5.0, 1.0).reshape(2, 2), full(1.0, 4.0, 6.0, 3.0).reshape(2, 2)), 1
            ),
        ),
        [0.0, 1.0],
        [6.0, 4.0],
    ),
    "2 + 3 u": (moved(UNIT, t.AffineTransform(2.0, 3.0)), 2.0, 5.0),
    "1 - 2 g": (moved(d.Gamma(full(2.0), full(1.0)), t.AffineTransform(1.0, -2.0)), None, 1.0),
    "1 / (1 + u)": (moved(UNIT, t.AffineTransform(1.0, 1.0), t.PowerTransform(full(-1.0))), 0.5, 1.0),
    "1 / g": (moved(d.Gamma(full(2.0), full(1.0)), t.PowerTransform(full(-1.0))), 0.0, None),
    "3 - exp(n)": (
        moved(
            d.Normal(full(0.0), full(1.0)),
            t.ComposeTransform([t.ExpTransform(), t.AffineTransform(3.0, -1.0)]),
        ),
        None,
        3.0,
    ),
    "logistic normal": (
        moved(d.Normal(full(0.0, 1.0), 1.0), t.SigmoidTransform(), t.AffineTransform(full(0.0, 1.0), 2.0)),
        [0.0, 1.0],
        [2.0, 3.0],
    ),
    "folded": (moved(d.Normal(full(0.0), full(1.0)), t.AbsTransform()), 0.0, None),
    "softplus of vectors": (
        moved(
            d.MultivariateNormal(full(0.0, 0.0), torch.eye(2, dtype=F)),
            t.IndependentTransform(t.SoftplusTransform(), 1),
        ),
        0.0,
        None,
    ),
}
UNBOUNDED = {
    "normal": d.Normal(0.0, 1.0),
    "vectors": d.MultivariateNormal(torch.zeros(3), torch.eye(3)),
    "student": d.StudentT(3.0),
    "logit u": moved(UNIT, t.SigmoidTransform().inv),
    "log g": moved(d.Gamma(full(2.0), full(1.0)), t.ExpTransform().inv),
    "shifted": moved(d.Normal(0.0, 1.0), t.AffineTransform(1.0, 2.0)),
}


@pytest.mark.parametrize(("prior", "lower", "upper"), BOUNDED.values(), ids=BOUNDED)
def test_bounds_are_those_of_the_support(prior, lower, upper):
    """One constrain step with the bounds that one would write down, of which 20 000 draws make use without
    leaving them."""
    adapter = A.constrain("x", prior=prior)
    assert [transform.kind for transform in adapter.transforms] == ["constrain"]
    assert adapter.transforms[0].config() == {
        "names": ["x"],
        "lower": lower,
        "upper": upper,
        "scale": "probit",
    }
    torch.manual_seed(0)
    x = prior.sample((20_000,))
    x = x[:, None] if x.ndim < 2 else x
    assert adapter.inside({"x": x}).all()
    assert adapter.forward({"x": x})["x"].isfinite().all()


@pytest.mark.parametrize(("prior", "lower", "upper"), BOUNDED.values(), ids=BOUNDED)
@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
def test_any_real_numbers_go_back_strictly_inside(prior, lower, upper, spread):
    """Taken back, real numbers as far as 1e4 lie strictly between the bounds, and where torch itself accepts
    them."""
    shape = tuple(prior.batch_shape + prior.event_shape) or (1,)
    z = spread * normal(*shape, seed=1, n=300)
    z[0], z[1] = spread, -spread
    x = A.constrain("x", prior=prior).inverse({"x": z})["x"]
    low, high = ([end] * shape[-1] if not isinstance(end, list) else end for end in (lower, upper))
    assert x.isfinite().all()
    for k in range(shape[-1]):
        assert low[k] is None or (x[..., k] > low[k]).all()
        assert high[k] is None or (x[..., k] < high[k]).all()
    if "mixture" not in str(type(prior)).lower():
        assert prior.support.check(x if prior.batch_shape + prior.event_shape else x[:, 0]).all()


@pytest.mark.parametrize("prior", UNBOUNDED.values(), ids=UNBOUNDED)
def test_unbounded_priors_add_no_step(prior):
    """The whole real line needs no step."""
    assert A.constrain("x", prior=prior).transforms == ()


def test_proportions_go_through_the_simplex():
    """The Dirichlet distribution, and draws of it, whose log density is exactly carried (see the simplex
    cases)."""
    prior = d.Dirichlet(full(0.5, 1.0, 2.0))
    adapter = A.constrain("p", prior=prior)
    assert [transform.kind for transform in adapter.transforms] == ["simplex"]
    back = adapter.inverse({"p": 1e4 * normal(2, n=100)})["p"]
    assert prior.support.check(back).all()
    assert (back > 0).all()


def test_supports_side_by_side():
    """torch's cat and stack of supports give one bound for each component."""
    positive, interval, real = constraints.positive, constraints.interval(-1.0, 2.0), constraints.real
    for support in (
        constraints.stack([positive, interval, interval, real], dim=-1),
        constraints.cat([positive, interval, real], dim=-1, lengths=[1, 2, 1]),
    ):
        config = A.constrain("x", prior=WithSupport(support)).transforms[0].config()
        assert config == {
            "names": ["x"],
            "lower": [0.0, -1.0, -1.0, None],
            "upper": [None, 2.0, 2.0, None],
            "scale": "probit",
        }
    with pytest.raises(ConfigurationError, match="names of their own"):
        A.constrain(
            "x", prior=WithSupport(constraints.cat([positive, constraints.simplex], dim=-1, lengths=[1, 2]))
        )


@pytest.mark.parametrize(
    ("prior", "kind", "argument"),
    [
        (d.Categorical(torch.ones(3)), "as_categorical", [0.0, 1.0, 2.0]),
        (d.Independent(d.Bernoulli(torch.full((3,), 0.5)), 1), "as_categorical", [0.0, 1.0]),
        (d.Binomial(4, torch.tensor(0.5)), "as_categorical", [0.0, 1.0, 2.0, 3.0, 4.0]),
        (d.Binomial(100, torch.tensor(0.5)), "as_count", 100),
        (d.Poisson(1.0), "as_count", None),
        (d.Geometric(torch.tensor(0.5)), "as_count", None),
        (d.MixtureSameFamily(d.Categorical(torch.ones(2)), d.Poisson(torch.ones(2))), "as_count", None),
    ],
)
def test_discrete_supports_declare(prior, kind, argument):
    """A finite support of up to 64 values lists its categories; others are counts, up to their bound."""
    (step,) = A.constrain("x", prior=prior).transforms
    assert step.kind == kind
    assert step.config()["values" if kind == "as_categorical" else "upper"] == argument


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (d.OneHotCategorical(torch.ones(3)), r"OneHotCategorical: .* is discrete.*Transform the variable"),
        (d.Multinomial(5, torch.ones(3)), "is discrete"),
        (d.LKJCholesky(3), r"no step for CorrCholesky\(\)"),
        (
            d.Uniform(torch.zeros(2, 2), full(1.0, 2.0, 3.0, 4.0).reshape(2, 2)),
            r"last axis only, got bounds of shape \(2, 2\)",
        ),
        (3.0, r"prior of 'x' as a torch distribution, .* got 3.0"),
        (d.Uniform, "as a torch distribution"),
    ],
)
def test_supports_without_a_step_are_refused(prior, message):
    """The message names variable and distribution, says what is wrong, and gives a cure."""
    with pytest.raises(ConfigurationError, match=message):
        A.constrain("x", prior=prior)


def test_a_prior_stands_alone():
    """Bounds beside a prior are refused."""
    with pytest.raises(ConfigurationError, match="prior= alone"):
        A.constrain("x", prior=UNIT, lower=0)
    with pytest.raises(ConfigurationError, match="prior= alone"):
        A.constrain("x", prior=UNIT, to="simplex")


def test_the_default_adapter_takes_the_bounds_of_inferred_variables():
    """Each inferred variable with a bounded prior is constrained, then all are joined; other priors change
    nothing."""
    roles = {"inference_variables": ["mu", "sigma"], "inference_conditions": ["n"]}
    priors = {
        "mu": d.Normal(0.0, 1.0),
        "sigma": d.HalfNormal(1.0),
        "n": d.Poisson(3.0),
        "unused": d.Beta(1.0, 1.0),
    }
    adapter = default_adapter(roles, priors)
    assert [transform.kind for transform in adapter.transforms] == ["constrain", "concatenate", "concatenate"]
    assert adapter.transforms[0].config() == {
        "names": ["sigma"],
        "lower": 0.0,
        "upper": None,
        "scale": "probit",
    }
    assert default_adapter(roles, {}).to_json() == default_adapter(roles).to_json()


OUTSIDE = {
    "interval, then log": (
        A.constrain("x", lower=[-1, None], upper=[2, 3]).constrain("y", lower=0),
        {"x": 2 * normal(2, n=200), "y": normal(1, n=200)},
    ),
    "ordered, joined": (
        A.constrain("x", to="ordered").concatenate(["x", "y"], into="z"),
        {"x": normal(3, n=200), "y": normal(1, n=200)},
    ),
    "support of a later step": (A.log("x").constrain("x", lower=0.5), {"x": 3 * normal(2, n=200)}),
    "support of joined variables": (
        A.concatenate(["x", "y"], into="z").sqrt("z"),
        {"x": normal(1, n=200), "y": normal(1, seed=1, n=200)},
    ),
    "classes": (A.one_hot("x", num_classes=2), {"x": normal(1, n=200).round()}),
    "simplex": (
        A.constrain("x", to="simplex"),
        {"x": torch.softmax(normal(3, n=200), dim=-1) + 0.5 * (normal(1, n=200) > 0)},
    ),
    "missing": (
        A.constrain("x", lower=0),
        {"x": normal(2, n=200).abs().where(normal(2, seed=1, n=200) > 0, torch.nan)},
    ),
    "sets": (A.constrain("x", lower=[0, None]), {"x": normal(2, 2, n=200)}),
}


@pytest.mark.parametrize(("adapter", "raw"), OUTSIDE.values(), ids=OUTSIDE)
def test_inside_is_what_forward_takes_row_by_row(adapter, raw):
    """inside() is True for exactly those rows of which forward() makes no error, and the others together are
    taken."""

    def taken(row):
        try:
            adapter.forward({name: value[row : row + 1] for name, value in raw.items()})
        except DataError:
            return False
        return True

    inside = adapter.inside(raw)
    assert inside.dtype == torch.bool
    assert inside.tolist() == [taken(row) for row in range(200)]
    assert 0 < inside.sum() < 200
    adapter.forward({name: value[inside] for name, value in raw.items()})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_data_of_every_case_lie_inside(case):
    """What an adapter was fitted to is inside, whatever its steps; nothing is changed."""
    assert case.fitted.inside(case.raw).all()


def test_inside_of_chosen_variables():
    """Only the named variables count; all rows may be outside; integers are values, too; unknown names are
    refused."""
    adapter = A.constrain("a", lower=0.5).constrain("b", lower=0).concatenate(["a"], into="y")
    raw = {"a": torch.tensor([[0], [1]]), "b": torch.tensor([[1.0], [-1.0]])}
    assert adapter.inside(raw).tolist() == [False, False]
    assert adapter.inside(raw, ["a"]).tolist() == [False, True]
    assert adapter.inside(raw, "b").tolist() == [True, False]
    with pytest.raises(DataError, match=r"'c' \(inside\) is not in the data"):
        adapter.inside(raw, "c")


def test_a_subset_is_the_same_for_all_rows_and_equal_lengths():
    """Different positions in order, the same in every row, for variables of one length, for one seed; a
    fraction is of the length."""
    x = torch.arange(10.0).repeat(4, 1)
    raw = {"x": x, "mask": 100 + x, "long": torch.arange(40.0).repeat(4, 1)[..., None]}
    fitted = A.subsample(["x", "mask"], size=4, seed=1).subsample("long", size=0.26).fitted(raw)
    kept = fitted.forward(raw)
    assert (kept["x"] == kept["x"][0]).all()
    assert (kept["x"][0].diff() > 0).all()
    assert torch.equal(kept["mask"], 100 + kept["x"])
    assert (tuple(kept["x"].shape), tuple(kept["long"].shape)) == ((4, 4), (4, 10, 1))
    subsets = {
        tuple(A.subsample("x", size=4, seed=seed).fitted(raw).forward(raw)["x"][0].tolist())
        for seed in range(20)
    }
    assert len(subsets) > 15
    counts = torch.bincount(
        torch.tensor(
            [
                p
                for s in range(400)
                for p in A.subsample("x", size=4, seed=s).fitted(raw).transforms[0].positions["x"]
            ]
        )
    )
    assert ((counts - 160).abs() < 5 * (400 * 0.4 * 0.6) ** 0.5).all()
    assert tuple(A.subsample("x", size=0.01).fitted(raw).forward(raw)["x"].shape) == (4, 1)


def test_a_subset_of_other_lengths_is_refused():
    """Data of another number of elements than in training have no positions."""
    fitted = A.subsample("x", size=2).fitted({"x": normal(5)})
    with pytest.raises(DataError, match=r"'x' with 5 elements along axis 1, as in training, got \(6, 4\)"):
        fitted.forward({"x": normal(4)})


def test_no_density_goes_through_a_subset():
    """A parameter cannot be subsampled."""
    raw = {"x": normal(5)}
    with pytest.raises(ConfigurationError, match=r"'x' has no density: .* subsample, which is no bijection"):
        A.subsample("x", size=2).fitted(raw).log_abs_det(raw, "x")
