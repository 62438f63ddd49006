"""Importance weights: the tail index of weights whose tail is known, and effective sample sizes by
formula."""

import numpy as np
import pytest
from scipy import stats

from sbi_models.diagnostics import effective_sample_share, largest_weight_share, pareto_smoothed
from sbi_models.diagnostics.metrics.importance import fit_generalized_pareto
from sbi_models.errors import DataError


@pytest.mark.parametrize("shape", [-0.3, 0.1, 0.5, 0.9])
def test_the_fit_finds_the_generalized_pareto_distribution(shape):
    """Shape and scale of 20 000 draws are found to 0.05 and 5 %."""
    draws = np.sort(stats.genpareto.rvs(shape, scale=3.0, size=20_000, random_state=np.random.default_rng(1)))
    found, scale = fit_generalized_pareto(draws)
    assert found == pytest.approx(shape, abs=0.05)
    assert scale == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(("sd", "k"), [(2.0, 0.0), (np.sqrt(0.5), 0.5), (0.5, 0.75)])
def test_k_of_normal_approximations_is_the_known_one(sd, k):
    """Weights of N(0, 1) by draws of N(0, sd) have tails of index 1 - sd^2 where sd < 1, and bounded ones
    where sd > 1."""
    x = np.random.default_rng(2).normal(0, sd, (20, 20_000))
    log_weights = stats.norm.logpdf(x) - stats.norm.logpdf(x, 0, sd)
    found = pareto_smoothed(log_weights).pareto_k.mean()
    if sd > 1:
        assert found < 0.2
    else:
        assert found == pytest.approx(k, abs=0.1)


def test_effective_samples_of_a_wider_approximation():
    """For N(0, 1) by draws of N(0, 2) the share is (E w)^2 / E w^2 = sqrt(2 - 1/4) / 2; smoothing changes it
    by less than 1 %."""
    x = np.random.default_rng(3).normal(0, 2, (10, 50_000))
    log_weights = stats.norm.logpdf(x) - stats.norm.logpdf(x, 0, 2)
    exact = np.sqrt(2 - 1 / 4) / 2
    assert effective_sample_share(log_weights).mean() == pytest.approx(exact, rel=0.01)
    assert effective_sample_share(pareto_smoothed(log_weights).log_weights).mean() == pytest.approx(
        exact, rel=0.01
    )


def test_corners():
    """Equal weights: k 0 and all draws; no weight at all: k infinite and no draws; one draw alone: one share;
    few draws: k infinite."""
    rows = np.zeros((3, 100))
    rows[1] = -np.inf
    rows[2, 1:] = -np.inf
    smoothed = pareto_smoothed(rows)
    np.testing.assert_array_equal(smoothed.pareto_k[:2], [0.0, np.inf])
    np.testing.assert_allclose(effective_sample_share(rows), [1.0, 0.0, 0.01])
    assert pareto_smoothed(np.zeros((1, 10))).pareto_k[0] == np.inf
    assert effective_sample_share(rows + 700).tolist() == effective_sample_share(rows).tolist()


@pytest.mark.parametrize(
    "bad", [np.zeros(5), np.full((2, 30), np.nan), np.full((2, 30), np.inf), np.zeros((0, 3))]
)
def test_bad_weights_are_refused(bad):
    """Another number of axes, NaN and inf are errors that say what was expected."""
    with pytest.raises(DataError, match=r"Expected log_weights of shape \(num_datasets, num_samples\)"):
        pareto_smoothed(bad)


# --- against ArviZ


def _weights(kind: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return {
        "normal": lambda: rng.normal(size=n),
        "long tail": lambda: 2.5 * rng.normal(size=n),
        "short tail": lambda: np.log(rng.uniform(size=n)),
        "enormous range": lambda: 3 * rng.standard_cauchy(size=n),
        "one heavy draw": lambda: np.r_[rng.normal(size=n - 1), 20.0],
        "some of no weight": lambda: np.where(rng.uniform(size=n) < 0.3, -np.inf, rng.normal(size=n)),
        "far from zero": lambda: rng.normal(size=n) - 1e4,
    }[kind]()


@pytest.mark.parametrize("n", [21, 25, 100, 225, 1000, 4000])
@pytest.mark.parametrize(
    "kind",
    [
        "normal",
        "long tail",
        "short tail",
        "enormous range",
        "one heavy draw",
        "some of no weight",
        "far from zero",
    ],
)
def test_k_and_smoothed_weights_are_those_of_arviz(kind, n):
    """k of `arviz.psislw` to a millionth, and its smoothed weights, for tails short and long, few and many
    draws."""
    pytest.importorskip("arviz")
    from arviz.stats import psislw  # noqa: PLC0415 - an extra

    values = _weights(kind, n)
    expected, k = psislw(values.copy())
    found = pareto_smoothed(values[None])
    np.testing.assert_allclose(found.pareto_k[0], k, atol=1e-6)
    np.testing.assert_allclose(np.exp(found.log_weights[0]), np.exp(expected), atol=1e-9)


def test_tied_weights_have_the_tail_that_arviz_finds():
    """Weights that are tied at the edge of the tail are no part of it: k is ArviZ's; where ArviZ finds no
    tail, as of equal weights, it is 0."""
    pytest.importorskip("arviz")
    from arviz.stats import psislw  # noqa: PLC0415 - an extra

    for n in (224, 1000, 4000):
        values = np.random.default_rng(n).normal(size=n).round()
        assert pareto_smoothed(values[None]).pareto_k[0] == pytest.approx(
            float(psislw(values.copy())[1]), abs=1e-6
        )
    two_values = np.r_[np.zeros(300), -np.ones(300)]
    assert pareto_smoothed(np.stack([np.zeros(600), two_values])).pareto_k.tolist() == [0.0, 0.0]


def test_one_draw_with_all_the_weight_shows_before_smoothing():
    """One of 4000 draws at +20 nats: k is below 0.7 and thousands of draws count once smoothed, but one
    before, with all of the weight."""
    values = np.r_[-0.375 * (2 * np.random.default_rng(5).normal(size=3999)) ** 2 / 2, 20.0][
        None
    ]  # of N(0, 1) by draws of N(0, 2)
    smoothed = pareto_smoothed(values)
    assert smoothed.pareto_k[0] < 0.7
    assert effective_sample_share(smoothed.log_weights)[0] * 4000 > 2000
    assert effective_sample_share(values)[0] * 4000 == pytest.approx(1.0, abs=0.01)
    assert largest_weight_share(values)[0] > 0.999
    assert largest_weight_share(np.full((1, 4), -np.inf))[0] == 0.0
