"""R-hat and effective draws of Markov chains: against ArviZ and an autoregression."""

import arviz as az
import numpy as np
import pytest

from sbi_models.diagnostics import effective_draws, rank_normalized_r_hat
from sbi_models.errors import DataError


def autoregression(chains, length, memory, seed=0):
    """Stationary chains with the correlation memory^lag."""
    rng = np.random.default_rng(seed)
    draws = np.empty((chains, length))
    draws[:, 0] = rng.normal(size=chains)
    for k in range(1, length):
        draws[:, k] = memory * draws[:, k - 1] + np.sqrt(1 - memory**2) * rng.normal(size=chains)
    return draws


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_they_are_those_of_arviz(memory, apart):
    """R-hat to nine digits, bulk effective sample size within 3 %, of heavy-tailed chains, too."""
    draws = autoregression(4, 401, memory) + apart * np.arange(4)[:, None]
    for values in (draws, draws**3):
        assert rank_normalized_r_hat(values) == pytest.approx(float(az.rhat(values)), rel=1e-9)
        assert effective_draws(values) == pytest.approx(float(az.ess(values)), rel=0.03)


def test_effective_draws_of_an_autoregression():
    """n (1 - memory) / (1 + memory), within 15 %, for each of the leading axes."""
    draws = np.stack([autoregression(16, 2000, memory, seed=1) for memory in (0.0, 0.6, 0.9)])
    exact = 32_000 * (1 - np.array([0.0, 0.6, 0.9])) / (1 + np.array([0.0, 0.6, 0.9]))
    np.testing.assert_allclose(effective_draws(draws), exact, rtol=0.15)


def test_chains_that_do_not_move():
    """No effective draw, and an infinite R-hat."""
    draws = np.repeat(np.arange(4.0)[:, None], 20, axis=1)
    assert np.isinf(rank_normalized_r_hat(draws))
    assert effective_draws(np.ones((4, 20))) == 0.0


@pytest.mark.parametrize("draws", [np.ones((4, 3)), np.ones(8), np.full((4, 8), np.nan)])
def test_bad_draws_are_refused(draws):
    """Too few draws, no axis of chains, NaN."""
    with pytest.raises(DataError, match="Expected finite draws"):
        rank_normalized_r_hat(draws)
