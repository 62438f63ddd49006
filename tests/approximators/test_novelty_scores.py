"""Scores of novelty: valid after few simulations, and alike for what is too low and too high."""

import numpy as np
import pytest
import torch
from scipy import stats
from small_approximators import approximator, data

from sbi_models import seeding
from sbi_models.approximators.certificates.conformal import conformal_p_values
from sbi_models.approximators.certificates.out_of_distribution import (
    ObservationFeatures,
    OutOfDistributionScores,
)
from sbi_models.approximators.certificates.ranks import joint_p_values, tie_breakers
from sbi_models.approximators.certificates.scores import NonconformityScores, NormalScores, Residuals


def normal(*shape, seed=0):
    return torch.as_tensor(seeding.generator(seed, "novelty").normal(size=shape))


def features(n, seed, *, location=0.0, scale=1.0):
    """Summaries (n, 4) and statistics (n, 8) of a skewed law, which depend on each other."""
    noise = normal(n, 8, seed=seed)
    statistics = location + scale * torch.cat([noise[:, :4].exp(), noise[:, :4] + noise[:, 4:]], dim=1)
    names = tuple(f"s{k} of x" for k in range(8))
    none = torch.empty(n, 0)
    return ObservationFeatures(noise[:, :4] ** 3, statistics, names, none, (), none)


def fitted(n, seed=0, **law):
    """Scores that were learned from n simulations, and calibrated on half as many others."""
    made = OutOfDistributionScores()
    made.fit(features(n, 2 * seed, **law), features(n // 2, 2 * seed + 1, **law), stamp=1)
    return made


@pytest.mark.nightly_cases("200")
@pytest.mark.parametrize("n", [60, 200])
def test_false_alarms_after_few_simulations_are_as_rare_as_the_level(n):
    """Over 50 trainings with n simulations, 50 new ones each have p <= 0.05 in 5 % of all cases within 5
    standard errors, together and in each space."""
    new, found = 50, {"together": []}
    for seed in range(50):
        made = fitted(n, seed)
        points = features(new, 10_000 + seed)
        scores, sizes, ties = made(points), made.sizes(points), tie_breakers(new, seed)
        found["together"].append(joint_p_values(made.calibration, scores, ties=ties))
        for space, p_values in made.by_space(scores, sizes, ties).items():
            found.setdefault(space, []).append(p_values)
    # of one training the share is beta with these parameters, for n / 2 simulations to compare with
    of_one = stats.betabinom(new, 0.05 * (n / 2 + 1), 0.95 * (n / 2 + 1)).std() / new
    for space, p_values in found.items():
        share = float((torch.cat(p_values) <= 0.05).double().mean())
        assert abs(share - 0.05) < 5 * of_one / np.sqrt(50) + 1 / (n / 2 + 1), space


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_what_is_too_low_is_as_rare_as_what_is_too_high(side, scale):
    """A statistic ten sds below the usual ones, and one above, has the smallest p-value in its space in every
    unit, its normal score has its sign, and the words say on which side it is."""
    made = fitted(400, location=-3.0 * scale, scale=scale)
    points = features(20, 77, location=-3.0 * scale, scale=scale)
    points.statistics[3, 6] += 15 * side * scale
    scores = made(points)
    p_values = made.by_space(scores, made.sizes(points), torch.ones(20))
    assert float(p_values["statistics"][3]) == pytest.approx(1 / 201)
    assert float(made.statistics.scores(points.statistics)[3, 6]) * side > 4
    first = made.unusual(points)[3][0]
    assert first.startswith(f"s6 of x is {'above' if side > 0 else 'below'} that of all simulations")


def test_normal_scores_have_both_tails():
    """Scores of a skewed law are those of its quantiles on both sides; beyond the smallest and the largest
    number they go on by the distance in units of that side, and are odd for a law that is mirrored."""
    values = normal(4000, 1).exp()
    scores, mirrored = NormalScores(), NormalScores()
    scores.fit(values)
    mirrored.fit(-values)
    levels = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.98], dtype=torch.float64)
    at = torch.quantile(values, levels, dim=0)
    torch.testing.assert_close(scores(at)[:, 0], torch.special.ndtri(levels), atol=0.02, rtol=0)
    low, high, middle = scores.knots[0, 0], scores.knots[0, -1], values.median()
    for end, sign in ((low, -1.0), (high, 1.0)):
        away = 2 * (end - middle).abs() / scores.edge
        beyond = float(scores((end + sign * away).reshape(1, 1)))
        assert sign * beyond == pytest.approx(scores.edge + 2, rel=1e-2)
    points = torch.tensor([[-50.0], [-1.0], [0.1], [1.0], [3.0], [200.0]], dtype=torch.float64)
    torch.testing.assert_close(scores(points), -mirrored(-points))


def test_the_largest_number_counts_on_either_side():
    """The first score of a point is the largest absolute normal score of its numbers."""
    space = NonconformityScores(neighbours=False)
    space.fit(normal(2000, 3))
    points = torch.tensor([[-3.0, 1.0, 0.5], [0.2, 2.5, -0.1], [0.0, -0.4, -2.0]], dtype=torch.float64)
    np.testing.assert_allclose(space(points)[:, 0], [3.0, 2.5, 2.0], atol=0.3)


def test_residuals_are_in_sds_given_the_summaries():
    """Of a statistic w + exp(w / 2) z the residual given w is z, in sds that depend on w, also where the sd
    is far from 1; a statistic that w says nothing of is its own."""
    w, z = normal(20_000, 1), normal(20_000, 2, seed=1)
    targets = torch.cat([0.3 * w + 0.5 * (w / 2).exp() * z[:, :1], z[:, 1:]], dim=1)
    residuals = Residuals()
    residuals.fit(w, targets)
    got = residuals(w, targets)
    # the mean of the log of a squared normal number is -1.27: sds are too small by a factor of exp(-0.635)
    factor = float((got[:, 1] / z[:, 1]).median())
    assert factor == pytest.approx(np.exp(0.635), rel=0.05)
    for part in (w[:, 0] < -1, w[:, 0].abs() < 1, w[:, 0] > 1):
        np.testing.assert_allclose(got[part].std(dim=0) / factor, 1.0, rtol=0.08)
        np.testing.assert_allclose(got[part].mean(dim=0) / factor, 0.0, atol=0.08)


def test_p_values_of_each_score_say_among_how_many_they_are():
    """Each of the seven scores of an approximator is ranked among its calibration, of which p-values are
    multiples."""
    made = approximator()
    made.learn_certificate(data(600, seed=7), None, seed=1)
    n = len(made.novelty.calibration)
    found = conformal_p_values(made, data(30, seed=8), batch_size=None, seed=0)
    assert found.ranked_among == [n] * 7
    counts = found.p_values * (n + 1)
    torch.testing.assert_close(counts, counts.round())
    assert ((counts >= 1) & (counts <= n + 1)).all()
