"""Simulators with a normal proposal around posterior draws."""

import json
import pickle

import numpy as np
import pytest

from sbi_models import simulators
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.simulators import NormalProposal, SimulatorWithProposal, make_simulator
from sbi_models.simulators.benchmarks import GaussianLinear

LOWER, UPPER = np.array([-np.inf, 0.0, -np.inf, 1.0]), np.array([np.inf, np.inf, 2.0, 5.0])


def unbounded(theta):
    """What the prior is a normal of, written down for these bounds."""
    share = (theta[:, 3] - 1.0) / 4.0
    return np.stack(
        [theta[:, 0], np.log(theta[:, 1]), np.log(2.0 - theta[:, 2]), np.log(share / (1 - share))], axis=1
    )


def some_draws(n=5_000, seed=0):
    """Two variables of four components within the bounds, the first two correlated."""
    z = np.random.default_rng(seed).normal(size=(n, 4)) * 0.3
    z[:, 1] += z[:, 0]
    theta = np.stack(
        [z[:, 0], np.exp(z[:, 1]), 2.0 - np.exp(z[:, 2]), 1.0 + 4.0 / (1 + np.exp(-z[:, 3]))], axis=1
    )
    return {"a": theta[:, :1], "b": theta[:, 1:]}


def test_the_prior_has_the_mean_and_thrice_the_sds_of_the_draws():
    """In the unbounded space: mean within 4 standard errors, covariance nine times that of the draws within 6
    %; all within the bounds."""
    draws = some_draws()
    prior = NormalProposal.around(draws, LOWER, UPPER, 3.0)
    drawn = prior(40_000, np.random.default_rng(1))
    assert {name: value.shape for name, value in drawn.items()} == {"a": (40_000, 1), "b": (40_000, 3)}
    theta = np.concatenate(list(drawn.values()), axis=1)
    assert ((theta > LOWER) & (theta < UPPER)).all()
    given = unbounded(np.concatenate(list(draws.values()), axis=1))
    found = unbounded(theta)
    np.testing.assert_allclose(found.mean(axis=0), given.mean(axis=0), atol=4 * 3 * 0.45 / 200)
    np.testing.assert_allclose(np.cov(found.T), 9 * np.cov(given.T), atol=0.06 * 9 * 0.18)
    inside = (theta > prior.central_intervals()[:, 0]) & (theta < prior.central_intervals()[:, 1])
    np.testing.assert_allclose(inside.mean(axis=0), 0.95, atol=0.005)


def test_the_prior_is_the_same_from_json():
    """To the bit, through text."""
    prior = NormalProposal.around(some_draws(), LOWER, UPPER, 2.0)
    again = NormalProposal.from_json(json.loads(json.dumps(prior.as_json())))
    one, other = (p(10, np.random.default_rng(2)) for p in (prior, again))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_draws_outside_the_bounds_do_not_count_and_too_few_are_refused():
    """A draw that is not finite or outside changes nothing; fewer than 100 good ones are an error."""
    draws = some_draws(200)
    spoilt = {
        "a": np.concatenate([draws["a"], [[np.nan], [0.0]]]),
        "b": np.concatenate([draws["b"], [[1.0, 0.0, 2.0], [-1.0, 0.0, 2.0]]]),
    }
    np.testing.assert_array_equal(
        NormalProposal.around(spoilt, LOWER, UPPER, 3.0).mean,
        NormalProposal.around(draws, LOWER, UPPER, 3.0).mean,
    )
    with pytest.raises(DataError, match="got 99"):
        NormalProposal.around({name: value[:99] for name, value in draws.items()}, LOWER, UPPER, 3.0)
    with pytest.raises(ConfigurationError, match="widening above 1"):
        NormalProposal.around(draws, LOWER, UPPER, 1.0)


def prior(rng):
    return {"theta": rng.normal(size=2)}


def likelihood(theta, rng):
    return {"x": theta + rng.normal(size=2)}


def narrow_to(center, names=("theta",), width=2):
    """A prior with sd 0.3 around a number in each component."""
    rng = np.random.default_rng(0)
    draws = {name: center + 0.1 * rng.normal(size=(1_000, width)) for name in names}
    free = np.full(width * len(names), np.inf)
    return NormalProposal.around(draws, -free, free, 3.0)


def test_a_simulator_of_single_rows_draws_from_the_narrow_prior():
    """Parameters around 4, and data that belong to them; rows do not depend on how many there are."""
    simulator = SimulatorWithProposal(make_simulator([prior, likelihood]), narrow_to(4.0))
    rows = simulator.sample(3_000, seed=1)
    np.testing.assert_allclose(rows["theta"].mean(axis=0), 4.0, atol=0.03)
    np.testing.assert_allclose(rows["theta"].std(axis=0), 0.3, rtol=0.06)
    np.testing.assert_allclose((rows["x"] - rows["theta"]).std(axis=0), 1.0, rtol=0.06)
    np.testing.assert_array_equal(simulator.sample(3, seed=1)["x"], rows["x"][:3])
    assert simulator.log_joint is None


def test_a_batched_benchmark_keeps_its_joint_density_and_goes_through_pickle():
    """The weights of importance sampling are those under the prior of the benchmark; workers give the same
    rows."""
    model = GaussianLinear()
    simulator = SimulatorWithProposal(model.simulator, narrow_to(0.1, width=10))
    rows = simulator.sample(300, seed=1)
    assert rows["theta"].std() < 0.4
    np.testing.assert_array_equal(simulator.log_joint(**rows), model.log_joint(**rows))
    again = pickle.loads(pickle.dumps(simulator)).sample(300, seed=1)
    np.testing.assert_array_equal(again["x"], rows["x"])
    np.testing.assert_array_equal(
        SimulatorWithProposal(model.simulator, simulator.prior).sample(300, seed=1)["x"], rows["x"]
    )


def two(rng):
    return {"theta": rng.normal(size=2), "noise": rng.normal(size=1)}


def swapped(theta):
    return {"x": theta, "noise": theta[:1]}


@pytest.mark.parametrize(
    ("simulator", "names", "message"),
    [
        (make_simulator([two, swapped]), ("theta",), r"draw theta \(2\) alone"),
        (make_simulator([prior, likelihood]), ("beta",), r"draw beta \(2\) alone"),
        (make_simulator([prior, likelihood], meta_fn=lambda: {"n": 1}), ("theta",), "without meta_fn"),
    ],
)
def test_simulators_that_do_not_draw_the_parameters_by_themselves_are_refused(simulator, names, message):
    """Something else from the same function, no such parameter, and a meta function."""
    with pytest.raises(ConfigurationError, match=message):
        SimulatorWithProposal(simulator, narrow_to(0.0, names))


def test_parameters_of_another_width_are_refused():
    """An error that says what there is."""
    with pytest.raises(ConfigurationError, match=r"theta \(3\) alone.*got theta \(2\)\."):
        SimulatorWithProposal(make_simulator([prior, likelihood]), narrow_to(0.0, width=3))


@pytest.mark.parametrize(
    ("old", "new"), [("NarrowPrior", NormalProposal), ("NarrowedSimulator", SimulatorWithProposal)]
)
def test_former_names_warn(old, new):
    """The names of version 0.1 are the classes of today, with a warning that has the new name."""
    with pytest.warns(FutureWarning, match=new.__name__):
        assert getattr(simulators, old) is new


def test_a_hundred_draws_are_enough():
    """100 draws within the bounds make a proposal, 99 do not; one on a bound, and one that is not finite, do
    not count."""
    lower, upper = np.array([0.0]), np.array([1.0])
    draws = np.linspace(0.1, 0.9, 100)[:, None]
    beyond = np.array([[0.0], [1.0], [np.nan]])
    made = NormalProposal.around({"a": np.concatenate([draws, beyond])}, lower, upper, 3.0)
    assert made.mean == pytest.approx(np.log(draws / (1 - draws)).mean())
    with pytest.raises(DataError, match="got 99"):
        NormalProposal.around({"a": np.concatenate([draws[1:], beyond])}, lower, upper, 3.0)


def test_between_two_bounds_the_proposal_is_where_the_draws_are():
    """The median of the proposal, and of its interval, are the inverse of the logit of the draws' mean
    logit, near the lower bound as the draws are."""
    share = np.random.default_rng(2).beta(2, 30, size=2_000)
    made = NormalProposal.around({"a": 1 + 4 * share[:, None]}, np.array([1.0]), np.array([5.0]), 2.0)
    middle = np.log(share / (1 - share)).mean()
    expected = 1 + 4 / (1 + np.exp(-middle))
    drawn = made(20_000, np.random.default_rng(3))["a"]
    assert np.mean(drawn < expected) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(20_000))
    low, high = made.central_intervals()[0]
    assert 1 < low < expected < high < 5
    assert np.mean((low < drawn) & (drawn < high)) == pytest.approx(0.95, abs=0.007)
