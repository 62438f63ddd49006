"""Warnings of data that networks can hardly learn from: given where they are right, and nowhere else."""

import warnings

import numpy as np
import pytest

import sbi_models as bf
from sbi_models.errors import TrustWarning

RNG = np.random.default_rng(0)
N = 1000
THETA, NOISE = RNG.normal(size=(N, 1)), RNG.normal(size=(N, 3))
RARE = RNG.uniform(size=(N, 3)) < 0.01


def built(standardize, data, network="coupling_flow", **roles):
    roles = roles or {"inference_conditions": "x"}
    workflow = bf.BasicWorkflow(
        inference_variables="theta", inference_network=network, standardize=standardize, seed=1, **roles
    )
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        workflow.approximator.build(data, seed=0)
    assert all(warning.category is TrustWarning for warning in found)
    return [str(warning.message) for warning in found]


CRUSHED = {
    "Cauchy": RNG.standard_cauchy((N, 3)),
    "log-normal(3)": np.exp(3 * NOISE),
    "Pareto(0.7)": RNG.pareto(0.7, (N, 3)),
    "counts with outliers": RNG.poisson(5, (N, 3)) + 1e6 * RARE,
    "sparse counts with outliers": RNG.poisson(0.1, (N, 3)) + 1e5 * RARE,
}
FINE = {
    "normal": THETA + NOISE,
    "uniform": RNG.uniform(size=(N, 3)),
    "Student(5)": RNG.standard_t(5, (N, 3)),
    "exponential": RNG.exponential(size=(N, 3)),
    "sparse counts": RNG.poisson(0.05, (N, 3)),
    "negative binomial": RNG.negative_binomial(1, 0.02, (N, 3)),
    "rare events": RARE * 1.0,
    "two narrow modes": np.where(NOISE < 0.3, -1, 1) + 0.01 * THETA,
    "constant": np.full((N, 3), 2.0),
}


@pytest.mark.parametrize("key", CRUSHED)
def test_crushed_data_are_told(key):
    """Heavy tails and outliers that leave the rest of standardized data within a tenth of an sd, with the
    cure."""
    (message,) = built("all", {"theta": THETA, "x": CRUSHED[key]})
    assert "'x': standardization crushes it" in message
    assert "adapter.log" in message
    assert not built("all", {"theta": THETA, "x": np.arcsinh(CRUSHED[key])})


@pytest.mark.parametrize("key", FINE)
def test_other_data_are_left_alone(key):
    """Laws with ordinary tails, discrete ones, and constants are no reason for a warning, in sets and as
    parameters neither."""
    assert not built("all", {"theta": THETA, "x": FINE[key]})


def test_images_are_left_alone():
    """Dark images with a bright spot are ordinary data."""
    place = RNG.uniform(2, 14, (100, 2))
    y, x = np.mgrid[:16, :16]
    spots = np.exp(-((x - place[:, :1, None]) ** 2 + (y - place[:, 1:, None]) ** 2) / 4)[..., None]
    roles = {"summary_variables": "x", "summary_network": "convolutional_network"}
    assert not built("all", {"theta": place, "x": spots}, **roles)


FAR = {
    "1e9 + N": 1e9 + NOISE,
    "1e-8 N": 1e-8 * NOISE,
    "1e4 N": 1e4 * NOISE,
    "Julian dates": 2461000.5 + 0.1 * NOISE,
}
NEAR = {
    "10 N": 10 * NOISE,
    "N / 10": NOISE / 10,
    "rare events": RARE * 1.0,
    "counts": RNG.poisson(20, (N, 3)),
}


def test_conditions_far_from_a_unit_scale_are_told():
    """Where they are not standardized, as by default, with the cure; nothing is said once they are, or where
    they are near."""
    for values in FAR.values():
        (message,) = built("inference_variables", {"theta": THETA, "x": values})
        assert "'x': it is not standardized" in message
        assert 'standardize="all"' in message
        assert not built("all", {"theta": THETA, "x": values})
    for values in NEAR.values():
        assert not built("inference_variables", {"theta": THETA, "x": values})


def test_the_variable_is_named():
    """Of several variables in a role the one at fault."""
    data = {"theta": THETA, "fine": NOISE, "far": 1e9 + NOISE}
    (message,) = built("inference_variables", data, inference_conditions=["fine", "far"])
    assert message.startswith("'far':")


def test_whole_numbers_with_a_density_are_told():
    """Counts and choices as inferred variables, but not as conditions, for point estimates, or beside a
    spread of thousands."""
    counts, choices = RNG.poisson(5, (N, 1)), RNG.integers(0, 3, (N, 1))
    for values in (counts, choices):
        (message,) = built("all", {"theta": values, "x": NOISE})
        assert "'theta': it has whole numbers only" in message
        assert "k + rng.uniform()" in message
    (message,) = built("all", {"theta": np.concatenate([THETA, counts], axis=1), "x": NOISE})
    assert message.startswith("'theta[1]':")
    assert not built("all", {"theta": THETA, "x": np.concatenate([counts, choices, NOISE], axis=1)})
    assert not built("all", {"theta": np.round(1e7 * RNG.uniform(size=(N, 1))), "x": NOISE})
    assert not built("all", {"theta": counts + RNG.uniform(size=(N, 1)), "x": NOISE})
    assert not built("all", {"theta": counts, "x": NOISE}, network=bf.networks.ScoringRuleNetwork(["mean"]))
