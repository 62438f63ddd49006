"""Newton's method, the search for modes and densities on a line at their limits; against formulas."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exact_items import SquareItems, square_data

from sbi_models.approximators.composition.grid_density import AdaptiveGrid
from sbi_models.approximators.composition.modes import (
    CONVERGED,
    find_modes,
    log_ratio_offset,
    newton,
    relative_log_densities,
)
from sbi_models.approximators.composition.score import ComposedScore


def double(values):
    return torch.tensor(values, dtype=torch.float64)


NONE = torch.zeros(0, 1, dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)


def wells(*centers):
    """Score of a mixture of normals of sd 0.1 at centers on a line."""
    means = double(centers)

    def score(theta):
        away = theta - means
        return ((-50 * away.square()).softmax(dim=1) * -100 * away).sum(dim=1, keepdim=True)

    return score


def test_steps_of_newtons_method_are_limited():
    """Ten steps of 3 sqrt(d) sds each come 30 sds near to a center that is 100 sds away, and the last step
    tells that it is not there."""
    mode = newton(torch.neg, double([100.0]), double([[1.0]]))
    assert mode.center.tolist() == pytest.approx([70.0])
    assert mode.last_step == pytest.approx(73.0)
    both = newton(torch.neg, double([80.0, 60.0]), EYE)
    assert both.center.norm().item() == pytest.approx(100 - 30 * math.sqrt(2))


def test_precisions_fall_by_a_factor_of_at_most_twenty_a_step():
    """On a flat density none of ten steps is the last, and each has a variance 20 times that of the one
    before."""
    mode = newton(torch.zeros_like, double([0.3]), double([[4.0]]))
    assert mode.factor.item() == pytest.approx(20**5 / 2)
    assert mode.precision.item() == pytest.approx(4 / 20**10)


def test_a_saddle_is_no_mode():
    """Where the density falls along one axis alone, there is no mode: the one returned has the precision that
    was given, and an infinite last step."""
    (mode,) = find_modes(lambda theta: theta * double([-1.0, 1.0]), double([0.0, 0.0]), 4 * EYE, NONE)
    assert mode.last_step == math.inf
    torch.testing.assert_close(mode.precision, 4 * EYE)


def test_a_peak_that_is_a_dent_of_a_valley_is_no_mode():
    """Scores that point to the center within one sd, and away from it two sds off, have no mode there."""

    def score(theta):
        return torch.where(theta.abs() < 1, -theta, theta.sign())

    assert find_modes(score, double([0.0]), double([[1.0]]), NONE)[0].last_step == math.inf
    found = find_modes(lambda theta: -theta, double([0.0]), double([[1.0]]), NONE)
    assert found[0].last_step < CONVERGED


def test_a_search_that_has_not_converged_finds_no_mode():
    """A mode that is 35 sds away, out of reach of ten steps, is not found."""
    assert find_modes(torch.neg, double([35.0]), double([[1.0]]), NONE)[0].last_step == math.inf
    assert find_modes(torch.neg, double([20.0]), double([[1.0]]), NONE)[0].last_step < CONVERGED


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_as_many_modes_as_there_are_up_to_four(number):
    """Of normals ten sds apart, with pilots on each, every one is found once, four of five."""
    centers = [float(k) for k in range(number)]
    pilots = double([c + shift for c in centers for shift in (-0.1, 0.02)])[:, None]
    modes = find_modes(wells(*centers), double([0.01]), double([[100.0]]), pilots)
    assert [round(mode.center.item(), 3) for mode in modes] == centers[:4]


def test_pilots_that_lead_nowhere_end_the_search():
    """After two pilots that lead to nothing new the rest are not tried: two times 3 scores a step for ten
    steps at most, beside those of the first mode."""
    calls = []

    def score(theta):  # a peak at 0, and slopes without one beyond 1
        calls.append(len(theta))
        return torch.where(theta.abs() < 1, -100 * theta, theta.sign())

    modes = find_modes(score, double([0.0]), double([[100.0]]), double([[3.0 + k] for k in range(20)]))
    assert len(modes) == 1
    assert 20 + 2 * 30 < sum(calls) < 20 + 3 * 30 + 10


def test_the_prior_between_modes_counts_for_all_items_but_one():
    """Heights of two modes that the data of n items leave open differ by the prior, whatever n, with a prior
    whose logarithm is no polynomial of low degree; counted for n items less one it cancels theirs."""
    logs = lambda theta: -10 * (theta - 0.4).abs().pow(1.5)[:, 0]  # noqa: E731

    def prior_score(theta):
        away = theta - 0.4
        return -15 * away.sign() * away.abs().sqrt()

    for n in (1, 7):
        items = SquareItems(square_data(0.9, n, seed=3))
        modes = double([[-0.9], [0.7]])
        found = relative_log_densities(ComposedScore(items, prior_score, 0.02), modes, None, 1)
        summed = items.log_density(modes).sum(dim=0)
        exact = summed + (1 - n) * logs(modes)
        torch.testing.assert_close(found, exact - exact[0], rtol=1e-3, atol=0)


def test_offsets_that_noise_may_explain_are_shrunk():
    """An offset of log ratios that is as large as its error counts in part; one of many times its error, from
    samples of unequal numbers and spreads, as a whole."""
    rng = np.random.default_rng(2)
    few = rng.normal(-0.5, 1, 20), rng.normal(0.5, 1, 20)
    error = 2 / math.sqrt(40)
    assert abs(log_ratio_offset(few[0] - error, few[1] - error)) < 0.9 * error
    many = rng.normal(-0.5, 1, 20_000), rng.normal(0.5, 1, 20_000)
    assert log_ratio_offset(many[0] - 2, many[1] - 2) == pytest.approx(2, abs=0.05)


def test_the_share_of_a_learned_error_is_taken_from_every_point_of_a_grid():
    """Of a normal on a line whose score is off by 1, half of the error moves the mean by 1/2."""

    class One:
        theta_dim, evaluations_of_density = 1, 1

        def __len__(self):
            return 1

        def gaussians(self):
            return torch.zeros(1, 1).double(), torch.full((1, 1, 1), 1e12).double()

        def score(self, theta, noise, rows):
            return -theta[None]

    def learned(theta):
        return SimpleNamespace(correction=torch.ones_like(theta))

    composed = ComposedScore(One(), torch.zeros_like, 0.02, learned)
    for share in (0.0, 0.5, 1.0):
        composed.share = share
        line = AdaptiveGrid(composed, -3.0, 3.0).line()
        assert line.draw(4000, np.random.default_rng(1)).mean().item() == pytest.approx(-share, abs=0.06)
