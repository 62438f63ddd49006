"""Edges of approximators: before anything is learned, weights of zero, masks, and the last of several."""

import numpy as np
import pytest
import torch
from small_approximators import approximator, data

from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.approximators import ScoringRuleApproximator as Scoring
from sbi_models.approximators.certificates.explanations import sizes_in_words
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
