"""The test of composed draws by data sets simulated at them, against its closed form for normal laws."""

import math

import numpy as np
import pytest
import torch
from exact_items import normal
from scipy.stats import chi2

from sbi_models.approximators.composition.posterior_sbc import calibration_of, posterior_calibration

N, NUMBER = 20, 200


def outcomes(off, width, seed, *, draws=6_000):
    """The outcome, and the exact normal scores (NUMBER, d) of the draws that data sets are simulated at.

    Items x ~ N(theta, 1) in each of d dimensions, with a flat prior; the likelihood that is believed has its
    place off by some posterior sds, and its sd off by a factor. Given both data sets the believed posterior
    is normal around the middle of theirs, with half the variance of one.
    """
    off, width = torch.tensor(off, dtype=torch.float64), torch.tensor(width, dtype=torch.float64)
    d, sd = len(width), width / math.sqrt(N)
    theta = off * sd + sd * normal(draws, d, seed=seed)
    means = theta[:NUMBER] + normal(NUMBER, d, seed=seed + 1) / math.sqrt(N)

    def log_slopes(at, points):
        assert torch.equal(at, theta[:NUMBER])
        return (means[:, None] + off * sd - points) / sd**2

    exact = (theta[:NUMBER] - (off * sd + means + off * sd) / 2) / (sd / math.sqrt(2))
    return posterior_calibration(theta, NUMBER, log_slopes), exact.numpy()


def p_value_of(means, variances, of_means, of_variances):
    """The smallest p-value times the number of tests."""
    tails = chi2.cdf(variances, of_variances)
    p_values = [*chi2.sf(means, of_means), *(2 * np.minimum(tails, 1 - tails))]
    return len(p_values) * min(p_values)


CASES = {
    "right": ([0.0], [1.0]),
    "off": ([0.2], [1.0]),
    "wide": ([0.0], [1.6]),
    "right in a plane": ([0.0, 0.0], [1.0, 1.0]),
    "off in a plane": ([0.0, -0.25], [1.0, 1.0]),
    "narrow along one axis, and wide along the other": ([0.0, 0.0], [0.72, 6.0]),
    "a little wide along four axes": ([0.0] * 4, [1.3] * 4),
}


@pytest.mark.parametrize("case", CASES)
def test_the_outcome_is_that_of_exact_normal_scores(case):
    """P-value, shift and variances are those of exact ranks but for the noise of the draws: tests of each
    parameter, and of all together, each of which counts as one of two."""
    found, scores = outcomes(*CASES[case], seed=len(case))
    d, means, variances = scores.shape[1], scores.mean(axis=0), scores.var(axis=0, ddof=1)
    expected = p_value_of(NUMBER * means**2, (NUMBER - 1) * variances, 1, NUMBER - 1)
    joint, farthest = variances.mean(), np.abs(means).argmax()
    if d > 1:
        together = p_value_of(
            np.array([NUMBER * (means**2).sum()]),
            np.array([d * (NUMBER - 1) * joint]),
            d,
            d * (NUMBER - 1),
        )
        expected = 2 * min(expected, together)
    assert found.shift == pytest.approx(math.sqrt(2) * means[farthest], abs=0.05)
    assert found.variance == pytest.approx(variances[np.abs(np.log(variances)).argmax()], rel=0.1)
    assert found.joint_variance == pytest.approx(joint, rel=0.1)
    assert math.log(found.p_value) == pytest.approx(math.log(min(1.0, expected)), rel=0.25, abs=0.7)


@pytest.mark.parametrize("case", CASES)
def test_log_likelihoods_at_the_draws_give_the_same_outcome(case):
    """`calibration_of` with the exact log likelihoods finds what the polynomials of the slopes find."""
    off, width = (torch.tensor(part, dtype=torch.float64) for part in CASES[case])
    (found, _), seed = outcomes(*CASES[case], seed=len(case)), len(case)
    d, sd = len(width), width / math.sqrt(N)
    theta = off * sd + sd * normal(6_000, d, seed=seed)
    means = theta[:NUMBER] + normal(NUMBER, d, seed=seed + 1) / math.sqrt(N)
    logs = -(((means[:, None] + off * sd - theta) / sd) ** 2).sum(dim=2) / 2
    direct = calibration_of(logs, theta)
    for name in ("shift", "variance", "joint_variance"):
        assert getattr(direct, name) == pytest.approx(getattr(found, name), rel=1e-4, abs=1e-4)
    assert math.log(direct.p_value) == pytest.approx(math.log(found.p_value), rel=1e-3, abs=1e-3)


def test_modes_that_data_cannot_tell_apart_are_no_fault():
    """Draws in two modes, +1 and -1, of theta^2 ~ items: p-values of 60 right posteriors are below 0.1 no
    more often than a binomial law with that probability admits, and a wrong likelihood has none above."""
    count, numbers = 60, 100
    for off, fewest, most in ((0.0, 0, 13), (1.0, 57, 60)):
        small = 0
        for seed in range(count):
            square = 1 + 0.05 * normal(800, 1, seed=100 + seed)
            signs = torch.sign(normal(800, 1, seed=300 + seed))
            means = square[:numbers] + 0.05 * normal(numbers, 1, seed=500 + seed)
            logs = -(((means + off * 0.05 - square[:, 0]) / 0.05) ** 2) / 2
            small += calibration_of(logs, signs * square.sqrt()).p_value < 0.1
        assert fewest <= small <= most, off
