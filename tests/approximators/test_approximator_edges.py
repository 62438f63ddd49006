"""Edges of approximators: before anything is learned, weights of zero, masks, and the last of several."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_approximators import approximator, data

from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator, EnsembleApproximator
from sbi_models.approximators import ScoringRuleApproximator as Scoring
from sbi_models.approximators.certificates.calibration import disagreement
from sbi_models.approximators.certificates.conformal import ConformalPValues
from sbi_models.approximators.certificates.explanations import sizes_in_words
from sbi_models.approximators.certificates.ranks import Sizes, size_groups, sizes_far_from
from sbi_models.approximators.standardizer import Standardizer
from sbi_models.networks import AutoregressiveMixture, ScoringRuleNetwork


def test_a_standardizer_that_has_seen_nothing_changes_nothing():
    """Declared moments are a mean of 0 and an sd of 1, until they are fitted or loaded."""
    standardizer, value = Standardizer(("a", "b")), torch.tensor([[3.0, -2.0]])
    standardizer.declare({"a": 2})
    for role in ("a", "b"):
        assert torch.equal(standardizer(role, value), value.double() if role == "a" else value)
        assert torch.equal(standardizer.inverse(role, value).float(), value)
        assert float(standardizer.log_abs_det(role)) == 0.0


def vectors(network, kind=ContinuousApproximator, **arguments):
    """An approximator of theta (n, 2) given x (n, 1), far from standard, built."""
    roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    made = kind(adapter=default_adapter(roles), roles=roles, inference_network=network, **arguments)
    x = np.random.default_rng(1).normal(size=(200, 1))
    noise = np.random.default_rng(2).normal(size=(200, 2))
    made.build({"theta": 5 + 3 * x + noise, "x": x}, seed=1)
    return made


def test_a_network_that_starts_from_data_does_so_where_nothing_is_learned_of_the_conditions():
    """Without a summary network the linear part is that of least squares; with one, whose summaries are
    random yet, it stays 0."""
    slope = vectors(AutoregressiveMixture(components=2, head_width=4, trunk_width=0)).inference_network.linear
    assert (slope[:, 0].abs() > 0.1).all()
    made = approximator(built=False)
    made.inference_network = AutoregressiveMixture(components=2, head_width=4, trunk_width=0)
    made.build(data(), seed=0)
    assert not made.inference_network.linear.any()


def test_estimates_of_parameters_that_are_not_standardized_are_those_of_the_network():
    """With a standard normal prediction, they have mean 0 and the unit covariance; standardized, mean and
    covariance are those of the data's scales."""
    x = {"x": np.zeros((1, 1))}
    for standardize in ((), ("inference_variables",)):
        made = vectors(ScoringRuleNetwork(["mv_normal"], widths=(8,)), Scoring, standardize=standardize)
        moments = (0.0, 1.0)
        if standardize:
            moments = (made.standardizer.inference_variables_mean, made.standardizer.inference_variables_sd)
        with torch.no_grad():
            last = list(made.inference_network.parameters())[-1]
            last.fill_(0.5)  # of the mean, among others
        found = made.estimate(x, split=False)["mv_normal"]
        (prediction,) = made.inference_network.predictions(made.given(x)).values()
        mean = prediction["mean"].detach().double()
        expected = (moments[0] + moments[1] * mean).numpy()
        np.testing.assert_allclose(found["mean"], expected, rtol=1e-6)
        assert (mean.abs() > 0.1).all()


@pytest.mark.parametrize(
    ("number", "words"), [(2, "is below that"), (5, "lies between those"), (9, "is above that"), (8, None)]
)
def test_numbers_of_elements_that_no_simulation_has_are_put_into_words(number, words):
    """Below, between or above those of all simulations; nothing of a number that there is."""
    usual = torch.tensor([[3.0, 1.0], [8.0, 2.0]])
    found = sizes_in_words(("x", "y"), torch.tensor([float(number), 2.0]), usual)
    assert found == ((f"number of elements of x {words} of all simulations",) if words else ())


class Member:
    """A member of an ensemble whose draws (n, S, d) are given."""

    inference_network = SimpleNamespace(discrete=())

    def __init__(self, draws):
        self.draws = torch.as_tensor(draws)

    def given(self, conditions):
        return conditions

    def standardized_draws(self, number, given, batch_size, seed):
        return self.draws


def test_disagreement_is_the_divergence_from_the_mixture():
    """For each observation log s less the mean of log s_k of the parameter where it is largest, with s the
    sd of all members together; members of several centers and sds."""
    rng = np.random.default_rng(3)
    centers, sds = rng.normal(size=(3, 4, 1, 2)), rng.uniform(0.5, 3, size=(3, 4, 1, 2))
    draws = centers + sds * rng.normal(size=(3, 4, 50, 2))
    means, variances = draws.mean(axis=2), draws.var(axis=2, ddof=1)
    together = np.log(variances.mean(axis=0) + means.var(axis=0)) / 2
    expected = (together - np.log(variances).mean(axis=0) / 2).max(axis=1)
    found = disagreement({str(k): Member(part) for k, part in enumerate(draws)}, {}, seed=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_p_values_of_spaces_count_the_members():
    """Each is the smallest of the members' times their number, and at most 1."""
    ensemble = EnsembleApproximator({"a": approximator(), "b": approximator(steps=5)})
    ensemble.learn_certificate(data(240, seed=7), None, seed=1)
    new = data(12, seed=8)
    new["x"][0] += 50
    certificates = ensemble.certify(new, seed=3)
    alone = [member.certify(new, seed=3) for member in ensemble.members.values()]
    for together, *each in zip(certificates, *alone, strict=True):
        for space, p_value in together.spaces.items():
            assert p_value == pytest.approx(min(1.0, 2 * min(one.spaces[space] for one in each)))
    assert min(certificates[0].spaces.values()) < 0.05


def test_a_size_is_out_of_range_if_it_is_far_from_all_sizes_that_are_known():
    """Sizes next to one of several known ones are in range; those between and beyond are not."""
    known = torch.tensor([[5.0], [500.0]])
    found = sizes_far_from(known, torch.tensor([[5.0], [500.0], [50.0], [50_000.0]]))
    assert found.tolist() == [False, False, True, True]


def test_members_of_different_simulations_count_each_for_itself():
    """Their smallest p-value of novelty times their number, at most 1."""
    members = {name: approximator() for name in "ab"}
    for seed, member in enumerate(members.values()):
        member.learn_certificate(data(240, seed=20 + seed), None, seed=seed)
    new = data(30, seed=8)
    together = EnsembleApproximator(members).certify(new, seed=3)
    alone = [member.certify(new, seed=3) for member in members.values()]
    for one, *each in zip(together, *alone, strict=True):
        assert one.novelty == pytest.approx(min(1.0, 2 * min(part.novelty for part in each)))


def test_among_simulations_of_one_size_the_level_is_one_of_the_p_values():
    """Of 250 simulations of the size of an observation 239 are taken: 0.05 is 12 of 240."""
    sizes = torch.cat([torch.full((250, 1), 7.0), torch.full((300, 1), 9.0)])
    (group,) = size_groups(Sizes(sizes, torch.tensor([[7.0]])))
    assert len(group.same) == 239
    assert (sizes[group.same] == 7).all()


def test_every_data_set_from_the_start_on_counts_as_evidence():
    """Five data sets with the smallest p-values are no accident, and four may be one, of a million; those
    before the start do not count."""

    def found(small):
        p_values = torch.cat([torch.full((3, 1), 0.001), torch.full((small, 1), 0.001)]).double()
        made = ConformalPValues(p_values, [999], torch.zeros(3 + small, 0), torch.zeros(3 + small).bool())
        return made.look_like_training_simulations(3)

    assert found(4)
    assert not found(5)
