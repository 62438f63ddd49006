"""Edges of certificates: outliers of either side, whole numbers, sizes and contexts of simulations."""

import math

import numpy as np
import pytest
import torch
from small_approximators import approximator, data
from test_approximator_edges import Member
from test_approximator_masks import approximator as approximator_of_sets
from test_approximator_masks import data as sets
from test_novelty_scores import features, normal

from sbi_models.approximators import EnsembleApproximator
from sbi_models.approximators.certificates.calibration import disagreement
from sbi_models.approximators.certificates.conformal import conformal_p_values
from sbi_models.approximators.certificates.out_of_distribution import OutOfDistributionScores
from sbi_models.approximators.certificates.ranks import Sizes, joint_p_values
from sbi_models.approximators.certificates.statistics import observation_statistics
from sbi_models.errors import TrainingError


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_the_largest_outlier_is_the_farther_end_on_either_side(side):
    """Its distance from the median in interquartile ranges, by NumPy, as a logarithm."""
    x = np.random.default_rng(1).normal(size=(3, 40))
    x[:, 7] = side * np.array([5.0, 30.0, 1e4])
    quarter, median, three_quarters = np.quantile(x, [0.25, 0.5, 0.75], axis=1)
    expected = np.log(np.abs(x - median[:, None]).max(axis=1) / (three_quarters - quarter))
    found = observation_statistics({"x": (torch.as_tensor(x)[:, :, None], None)})
    np.testing.assert_allclose(found["largest outlier of x"], expected, rtol=1e-12)


def with_companions(n, seed, *, sizes=None, contexts=None):
    """Features of n observations with numbers of elements (n, 1), or contexts (n, c)."""
    made = features(n, seed)
    if sizes is not None:
        made = made._replace(sizes=sizes, sets=("x",))
    return made if contexts is None else made._replace(contexts=contexts)


def companions(kind, n, seed):
    """The same number of elements everywhere, or contexts of very different units."""
    if kind == "sizes":
        return {"sizes": torch.full((n, 1), 5.0).double()}
    return {"contexts": normal(n, 2, seed=seed) * torch.tensor([1e-3, 1e4])} if kind == "contexts" else {}


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        ("", "simulations"),
        ("sizes", "simulations of like size"),
        ("contexts", "simulations in a like context"),
    ],
)
def test_what_is_unusual_names_the_simulations_that_are_compared_with(kind, others):
    """All of them, those of like size where there are sets, those in a like context where one is given."""
    made = OutOfDistributionScores()
    known, held_out = (with_companions(400, seed, **companions(kind, 400, seed + 10)) for seed in (1, 2))
    made.fit(known, held_out, stamp=1)
    point = with_companions(1, 3, **companions(kind, 1, 13))
    statistics = point.statistics.clone()
    statistics[0, 5] = 1e4
    (words,) = made.unusual(point._replace(statistics=statistics))
    assert any(text.endswith(others) or f"{others} " in text or f"{others}," in text for text in words)
    assert kind or not any("like" in text for text in words)


def test_contexts_are_compared_in_their_own_sds():
    """Each context of simulations is divided by its sd over the simulations, by NumPy."""
    made, contexts = OutOfDistributionScores(), companions("contexts", 300, 5)["contexts"]
    made.fit(with_companions(300, 1, contexts=contexts), with_companions(300, 2, contexts=contexts), stamp=1)
    sds = contexts.numpy().std(axis=0, ddof=1)
    np.testing.assert_allclose(made.kept.context_sds, sds)
    np.testing.assert_allclose(made.kept.contexts, contexts.numpy() / sds)


def test_an_observation_out_of_range_has_the_smallest_p_value():
    """Of 99 simulations it is 1 / 100, however usual its scores."""
    calibration, observed = normal(99, 1, seed=1), torch.zeros(2, 1).double()
    sizes = Sizes(torch.empty(99, 0), torch.empty(2, 0), torch.tensor([True, False]))
    found = joint_p_values(calibration, observed, sizes=sizes)
    assert found[0] == pytest.approx(1 / 100)
    assert found[1] > 0.3


def test_without_a_calibration_nothing_is_said_of_data_sets():
    """There are no p-values then, and none of the data sets is out of range."""
    found = conformal_p_values(approximator(), data(30, seed=8), batch_size=None, seed=0)
    assert found.p_values.shape == (30, 0)
    assert found.ranked_among == []
    assert not found.out_of_range.any()


@pytest.mark.parametrize("apart", [0, 1, 2])
def test_equal_whole_numbers_are_spread_over_an_interval_of_length_one(apart):
    """Members whose draws are all k and all k + `apart` disagree by log(1 + 3 apart^2) / 2 nats: 1 / 12 is
    the variance of each, and apart^2 / 4 that of their means."""
    members = {}
    for name, value in (("a", 3.0), ("b", 3.0 + apart)):
        draws = normal(1, 50, 2, seed=1)
        draws[..., 1] = value
        members[name] = Member(draws)
        members[name].inference_network = type("Network", (), {"discrete": ((1, "count", 9),)})
    found = disagreement(members, {}, seed=1)
    assert float(found[0]) == pytest.approx(math.log(1 + 3 * apart**2) / 2)


@pytest.mark.parametrize(("several", "number"), [(False, 200), (True, 400)])
def test_agreement_is_learned_from_more_simulations_where_their_sizes_differ(several, number):
    """200 simulations of one size, and 400 of several, of which only some are of like size."""
    raw = sets(1_260)
    if not several:
        raw["mask"] = np.broadcast_to(np.arange(6) < 4, raw["mask"].shape)
    ensemble = EnsembleApproximator({"a": approximator_of_sets(), "b": approximator_of_sets()})
    ensemble.learn_certificate(raw, None, seed=1)
    assert len(ensemble.usual_disagreement.values) == number


def test_a_training_forgets_what_certificates_know_and_gives_it_back_if_it_fails():
    """What an ensemble learned from the networks that it had is not true of others."""
    ensemble = EnsembleApproximator({"a": approximator(), "b": approximator(steps=5)})
    ensemble.learn_certificate(data(240, seed=7), None, seed=1)
    usual = ensemble.usual_disagreement.values.clone()

    def train(error=None):
        with ensemble.without_certificate():
            assert ensemble.usual_disagreement.values is None
            assert not any(member.novelty.is_known for member in ensemble.members.values())
            if error is not None:
                raise error

    with pytest.raises(TrainingError):
        train(TrainingError("it failed"))
    assert torch.equal(ensemble.usual_disagreement.values, usual)
    assert all(member.novelty.is_known for member in ensemble.members.values())
    train()
    assert ensemble.usual_disagreement.values is None
    assert not any(member.novelty.is_known for member in ensemble.members.values())
