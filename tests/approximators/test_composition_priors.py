"""The score of the prior in standardized space: from functions, torch distributions, and networks."""

import warnings
from copy import copy

import numpy as np
import pytest
import torch
from exact_items import normal, rng
from torch.distributions import Beta, Exponential, Gamma, Independent, MultivariateNormal, Normal, Uniform

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import CompositionalApproximator, ContinuousApproximator, load_approximator
from sbi_models.approximators.composition.items import time_of
from sbi_models.approximators.composition.prior_scores import prior_score
from sbi_models.errors import ConfigurationError, DataError, NotFittedError, SbiModelsError, TrustWarning
from sbi_models.networks import DiffusionModel, FlowMatching

LOW, HIGH = torch.tensor([-1.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 5.0], dtype=torch.float64)
PRIORS = {
    "theta": Independent(Uniform(LOW, HIGH), 1),
    "tau": Gamma(torch.tensor(3.0).double(), torch.tensor(2.0).double()),
}
ROLES = {"inference_variables": ["theta", "tau"], "inference_conditions": ["x"]}


def data(n=50, seed=0):
    rng = seeding.generator(seed, "test data")
    theta = rng.uniform(LOW, HIGH, size=(n, 2))
    return {"theta": theta, "tau": rng.gamma(3, 0.5, size=n), "x": rng.normal(size=(n, 3))}


def approximator(priors=None, **arguments):
    """An approximator of theta (n, 2) and tau (n,), without bounds unless there are priors."""
    network = DiffusionModel(widths=(8,), **({"drop_conditions": 0.2} | arguments))
    made = CompositionalApproximator(
        adapter=default_adapter(ROLES, priors), roles=ROLES, inference_network=network
    )
    made.build(data(), seed=0)
    return made.eval()


def log_density_in_z(made, log_density):
    """log p(z) (m,) by the change of variables, with the Jacobian of autograd, up to a constant."""

    def raw(z):
        values = made.raw_of(z[None])
        return torch.cat([value.reshape(-1) for value in values.values()])

    def log_density_of(z):
        jacobian = torch.autograd.functional.jacobian(raw, z)
        return (
            log_density({name: value[0] for name, value in made.raw_of(z[None]).items()})
            + torch.linalg.slogdet(jacobian)[1]
        )

    return log_density_of


def slope(function, z, step=1e-5):
    """Central differences of a function of z (d,) at each row."""
    eye = step * torch.eye(z.shape[1], dtype=torch.float64)
    return torch.stack(
        [torch.stack([(function(row + e) - function(row - e)) / (2 * step) for e in eye]) for row in z]
    )


def analytic(data, t=None):
    """Scores of the uniform and of Gamma(3, 2), by hand, in raw space."""
    return {"theta": np.zeros_like(data["theta"]), "tau": 2 / data["tau"] - 2}


@pytest.mark.parametrize("prior", [PRIORS, analytic], ids=["distributions", "function"])
def test_bounded_priors_through_the_adapter(prior):
    """In the unbounded space of the network, the score is the slope of the log density with the volume of the
    change of variables."""
    made, z = approximator(PRIORS), normal(6, 3, seed=1)
    exact = slope(
        log_density_in_z(
            made, lambda raw: PRIORS["theta"].log_prob(raw["theta"]) + PRIORS["tau"].log_prob(raw["tau"][0])
        ),
        z,
    )
    torch.testing.assert_close(prior_score(prior, made)(z), exact, rtol=1e-5, atol=1e-5)


def test_priors_without_bounds():
    """With no transform but the standardizer, the score is that of raw space times the sds; scalars, vectors,
    functions of t or not."""
    made, z = approximator(), normal(6, 3, seed=1)
    exact = slope(
        log_density_in_z(
            made, lambda raw: -(raw["theta"] - 1).square().sum() / 8 - raw["tau"][0].square() / 2
        ),
        z,
    )

    def function(data):
        return {"theta": -(data["theta"] - 1) / 4, "tau": -data["tau"]}

    def at_t(data, t=None):
        assert t is None
        return function(data)

    def at_required_t(data, t):
        assert t == 0
        return function(data)

    def at_time(data, time):
        assert time == 0
        return function(data)

    given = [
        function,
        at_t,
        at_required_t,
        at_time,
        lambda data, **more: function(data),
        {"theta": Normal(torch.ones(2).double(), 2.0), "tau": Normal(0.0, 1.0)},
        {
            "theta": MultivariateNormal(torch.ones(2).double(), 4 * torch.eye(2).double()),
            "tau": Normal(torch.zeros(1).double(), 1.0),
        },
        {"theta": Normal(1.0, 2.0), "tau": Normal(0.0, 1.0)},
    ]
    for prior in given:
        torch.testing.assert_close(prior_score(prior, made)(z), exact, rtol=1e-4, atol=1e-6)


def test_functions_see_raw_variables():
    """A function is given float64 arrays, name to (m, width), of the values that the points have in raw
    space."""
    made, z, seen = approximator(PRIORS), normal(6, 3, seed=1), {}

    def function(data, t=None):
        seen.update(data)
        return analytic(data)

    prior_score(function, made)(z)
    assert {name: value.shape for name, value in seen.items()} == {"theta": (6, 2), "tau": (6, 1)}
    assert all(value.dtype == np.float64 for value in seen.values())
    for name, value in made.raw_of(z).items():
        np.testing.assert_array_equal(seen[name], value.numpy())
    assert (seen["theta"] > LOW.numpy()).all()


def test_one_distribution_for_one_variable():
    """One inferred variable takes its distribution as it is: Beta and exponential priors have their
    scores."""
    for prior in (Beta(2.0, 3.0), Exponential(1.5)):
        roles = {"inference_variables": ["p"], "inference_conditions": ["x"]}
        made = CompositionalApproximator(
            adapter=default_adapter(roles, {"p": prior}),
            roles=roles,
            inference_network=DiffusionModel(widths=(8,)),
        )
        rows = np.random.default_rng(0).uniform(0.1, 0.9, size=(50, 1))
        made.build({"p": rows, "x": rows}, seed=0)
        z = normal(6, 1, seed=1)
        exact = slope(log_density_in_z(made, lambda raw, prior=prior: prior.log_prob(raw["p"]).sum()), z)
        torch.testing.assert_close(prior_score(prior, made)(z), exact, rtol=1e-4, atol=1e-4)


def test_the_prior_of_the_network():
    """None is the score that the network gives without conditions, and is refused where it was never trained
    for that."""
    made, z = approximator(), normal(6, 3, seed=1)
    network = made.inference_network
    t, alpha = time_of(network, 0.05)
    with torch.no_grad():
        exact = alpha * network.score((alpha * z).float(), torch.full((1, 1), t), None).double()
    torch.testing.assert_close(prior_score(None, made)(z), exact)
    for never in (approximator(drop_conditions=0.0), approximator(drop_conditions=None)):
        with pytest.raises(
            ConfigurationError,
            match=r"never learned.*compute_prior_score.*DiffusionModel\(drop_conditions=0\.15\)",
        ):
            prior_score(None, never)


WRONG = [
    (
        lambda data: {"theta": data["theta"], "taw": data["tau"]},
        DataError,
        r"returned 'taw', which is not inferred\. Did you mean 'tau'",
    ),
    (lambda data: {"theta": data["theta"]}, DataError, r"score of 'tau', got 'theta'"),
    (lambda data: {}, DataError, "score of 'theta', got nothing"),
    (lambda data: data["theta"], DataError, r"return a dict of variables to scores, got ndarray"),
    (lambda data: None, DataError, r"return a dict of variables to scores, got NoneType"),
    (
        lambda data: data | {"theta": data["theta"][:, :1]},
        DataError,
        r"score of 'theta' of the shape of its values \(\d+, 2\), got \(\d+, 1\)",
    ),
    (lambda data: data | {"tau": data["tau"][:, 0]}, DataError, r"score of 'tau' of the shape of its values"),
    (
        lambda data: data | {"tau": data["tau"] * np.nan},
        DataError,
        r"finite prior score of 'tau', got NaN or inf at \d+ places",
    ),
    ({"theta": PRIORS["theta"]}, ConfigurationError, r"prior of every inferred variable, got none for 'tau'"),
    (
        PRIORS | {"x": Normal(0.0, 1.0)},
        ConfigurationError,
        r"torch distributions of inferred variables, got 'x'",
    ),
    (PRIORS | {"tau": "gamma"}, ConfigurationError, r"torch distributions of inferred variables, got 'tau'"),
    (Normal(0.0, 1.0), ConfigurationError, r"one for each of \['theta', 'tau'\], got one distribution"),
    (
        "normal",
        ConfigurationError,
        r"a function of \(data, t=None\), a torch distribution, or a dict of them, got 'normal'",
    ),
    (3, ConfigurationError, r"a function of \(data, t=None\)"),
]


@pytest.mark.parametrize(("prior", "error", "message"), WRONG)
def test_priors_that_are_none_are_refused(prior, error, message):
    """Wrong keys, shapes, values and types, by the score and by sampling, before any other work, for one
    item, too."""
    made = approximator()
    with pytest.raises(error, match=message):
        prior_score(prior, made)(normal(4, 3, seed=1))
    for items in (1, 3):
        with pytest.raises(error, match=message):
            made.compositional_sample(
                num_samples=3, conditions={"x": np.zeros((1, items, 3))}, compute_prior_score=prior, seed=1
            )


def test_a_prior_outside_of_its_support_is_an_error():
    """Where the adapter does not keep draws inside the support of the prior, its score is refused with a
    cure, never taken for zero."""
    with pytest.raises(SbiModelsError, match="support"):
        prior_score(PRIORS, approximator())(100 * normal(4, 3, seed=1))
    unchecked = {name: copy(prior) for name, prior in PRIORS.items()}
    for prior in unchecked.values():  # as PyTorch leaves all distributions after it has compiled something
        prior._validate_args = False
    with pytest.raises(SbiModelsError, match="support"):
        prior_score(unchecked, approximator())(100 * normal(4, 3, seed=1))


# --- the approximator


def test_only_diffusion_models_compose():
    """Another network is refused by the constructor, before anything is built, and by `like`."""
    with pytest.raises(
        ConfigurationError,
        match=r"Expected a DiffusionModel.*got FlowMatching\. Pass inference_network='diffusion_model'",
    ):
        CompositionalApproximator(
            adapter=default_adapter(ROLES), roles=ROLES, inference_network=FlowMatching(widths=(8,))
        )
    other = ContinuousApproximator(
        adapter=default_adapter(ROLES), roles=ROLES, inference_network=FlowMatching(widths=(8,))
    )
    other.build(data(), seed=0)
    with pytest.raises(ConfigurationError, match=r"Expected a DiffusionModel.*got FlowMatching"):
        CompositionalApproximator.like(other)


def test_files_keep_what_the_training_left(tmp_path):
    """Saved and loaded, an approximator that has learned its shared bias gives the same draws to the bit, and
    the same file."""
    made = approximator(PRIORS, preconditioning="gaussian")
    generator = rng(1)
    for parameter in made.inference_network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    assert not made.shared_bias.is_known
    conditions = {"x": data(6, seed=2)["x"].reshape(2, 3, 3)}
    arguments = {
        "num_samples": 5,
        "conditions": conditions,
        "compute_prior_score": PRIORS,
        "seed": 3,
        "return_diagnostics": True,
    }
    made.learn_shared_bias([data(300, seed=4), data(200, seed=5)])
    assert made.shared_bias.is_known
    assert made.shared_bias.count == 500
    path = made.save(tmp_path / "model")
    loaded = load_approximator(path)
    assert isinstance(loaded, CompositionalApproximator)
    assert loaded.shared_bias.is_known
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # of a network with random weights
        drawn = [each.compositional_sample(**arguments) for each in (made, loaded)]
    for name in ("theta", "tau"):
        np.testing.assert_array_equal(drawn[0][0][name], drawn[1][0][name])
    assert [str(report) for report in drawn[0][1]] == [
        str(report) for report in drawn[1][1]
    ]  # as text: NaN is not NaN
    assert loaded.save(tmp_path / "again").read_bytes() == path.read_bytes()


def test_files_of_earlier_versions_are_read():
    """Tensors that the correction of shared errors no longer has are left out, and those that it did not have
    yet are zero."""
    made = approximator(PRIORS, preconditioning="gaussian")
    made.learn_shared_bias([data(300, seed=4)])
    tensors = {name: value.clone() for name, value in made.state_dict().items()}
    more = tensors | {
        "shared_bias.local.places": torch.zeros(2048, 2),
        "shared_bias.local.count": torch.tensor(5),
    }
    loaded = CompositionalApproximator.from_settings(made._settings(), more).state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    less = {name: value for name, value in tensors.items() if not name.startswith("shared_bias.")}
    assert not CompositionalApproximator.from_settings(made._settings(), less).shared_bias.is_known


def test_an_approximator_that_was_never_built_has_no_answers():
    """Asking before a training says what to do first."""
    made = CompositionalApproximator(
        adapter=default_adapter(ROLES), roles=ROLES, inference_network=DiffusionModel(widths=(8,))
    )
    with pytest.raises(NotFittedError, match="has not been trained"):
        made.compositional_sample(num_samples=3, conditions={"x": np.zeros((1, 3, 3))})
