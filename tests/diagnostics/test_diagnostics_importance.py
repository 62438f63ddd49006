"""Importance weights: the tail index of weights whose tail is known, and effective sample sizes by formula."""

import numpy as np
import pytest
from scipy import stats

from sbi_models.diagnostics import effective_sample_share, pareto_smoothed
from sbi_models.diagnostics.metrics.importance import fit_generalised_pareto
from sbi_models.errors import DataError


@pytest.mark.parametrize("shape", [-0.3, 0.1, 0.5, 0.9])
def test_the_fit_finds_the_generalised_pareto_distribution(shape):
    """Shape and scale of 20 000 draws are found to 0.05 and 5 %."""
    draws = np.sort(stats.genpareto.rvs(shape, scale=3.0, size=20_000, random_state=np.random.default_rng(1)))
    found, scale = fit_generalised_pareto(draws)
    assert found == pytest.approx(shape, abs=0.05)
    assert scale == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(("sd", "k"), [(2.0, 0.0), (np.sqrt(0.5), 0.5), (0.5, 0.75)])
def test_k_of_normal_approximations_is_the_known_one(sd, k):
    """Weights of N(0, 1) by draws of N(0, sd) have tails of index 1 - sd^2 where sd < 1, and bounded ones where sd > 1."""
    x = np.random.default_rng(2).normal(0, sd, (20, 20_000))
    log_weights = stats.norm.logpdf(x) - stats.norm.logpdf(x, 0, sd)
    found = pareto_smoothed(log_weights).pareto_k.mean()
    if sd > 1:
        assert found < 0.2
    else:
        assert found == pytest.approx(k, abs=0.1)


def test_effective_samples_of_a_wider_approximation():
    """For N(0, 1) by draws of N(0, 2) the share is (E w)^2 / E w^2 = sqrt(2 - 1/4) / 2; smoothing changes it by less than 1 %."""
    x = np.random.default_rng(3).normal(0, 2, (10, 50_000))
    log_weights = stats.norm.logpdf(x) - stats.norm.logpdf(x, 0, 2)
    exact = np.sqrt(2 - 1 / 4) / 2
    assert effective_sample_share(log_weights).mean() == pytest.approx(exact, rel=0.01)
    assert effective_sample_share(pareto_smoothed(log_weights).log_weights).mean() == pytest.approx(exact, rel=0.01)


def test_corners():
    """Equal weights: k 0 and all draws; no weight at all: k infinite and no draws; one draw alone: one share; few draws: k infinite."""
    rows = np.zeros((3, 100))
    rows[1] = -np.inf
    rows[2, 1:] = -np.inf
    smoothed = pareto_smoothed(rows)
    np.testing.assert_array_equal(smoothed.pareto_k[:2], [0.0, np.inf])
    np.testing.assert_allclose(effective_sample_share(rows), [1.0, 0.0, 0.01])
    assert pareto_smoothed(np.zeros((1, 10))).pareto_k[0] == np.inf
    assert effective_sample_share(rows + 700).tolist() == effective_sample_share(rows).tolist()


@pytest.mark.parametrize("bad", [np.zeros(5), np.full((2, 30), np.nan), np.full((2, 30), np.inf), np.zeros((0, 3))])
def test_bad_weights_are_refused(bad):
    """Another number of axes, NaN and inf are errors that say what was expected."""
    with pytest.raises(DataError, match=r"Expected log_weights of shape \(n_datasets, num_samples\)"):
        pareto_smoothed(bad)
