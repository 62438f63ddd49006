"""What a simulator says about functions that do not fit."""

import numpy as np
import pytest

from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.simulators import Simulator, make_simulator


def theta(rng):
    return {"theta": rng.normal(size=2)}


def sometimes_longer(rng):
    return {"x": rng.normal(size=3 if rng.uniform() < 0.5 else 4)}


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([theta, theta], r"'theta' returns 'theta', which an earlier function returned. Rename"),
        (sometimes_longer, r"'x' of one shape, got \(3,\) and \(4,\).*mask"),
        (
            lambda: {"x": [[1.0], [1.0, 2.0]]},
            r"'x' that function '.lambda.' returned, got ragged lists.*mask",
        ),
        (lambda: np.zeros(2), r"must return a dict of names to arrays, got ndarray"),
        (lambda: None, r"must return a dict of names to arrays, got NoneType"),
        (
            lambda: {"x": "three"},
            r"real numbers in 'x' that function '.lambda.' returned, got <U5\..*Convert text",
        ),
        (
            lambda: {"x": None},
            r"real numbers in 'x' that function '.lambda.' returned, got object of NoneType",
        ),
        (
            lambda: {"x": 1j},
            r"real numbers in 'x' that function '.lambda.' returned, got complex128\. "
            r"Pass real and imaginary part",
        ),
    ],
)
def test_outputs_that_cannot_be_used_are_refused(functions, message):
    """A SimulationError names the function or variable, what was expected, and what was got."""
    with pytest.raises(SimulationError, match=message):
        make_simulator(functions).sample(20, seed=0)


@pytest.mark.parametrize(
    ("output", "shape"),
    [
        (lambda n: np.zeros((n + 1, 2)), r"\(9, 2\)"),
        (lambda n: np.zeros((1, n)), r"\(1, 8\)"),
        (lambda n: 0.5, r"\(\)"),
    ],
)
def test_batched_functions_must_return_the_batch_axis(output, shape):
    """A batched output without one row a simulation is refused, with the shape expected and got."""
    simulator = make_simulator(lambda batch_size: {"x": output(batch_size)}, is_batched=True, block_size=8)
    with pytest.raises(SimulationError, match=rf"expected 'x' of shape \(8, ...\), got {shape}"):
        simulator.sample(3, seed=0)


def test_an_argument_that_nothing_returns_is_named():
    """A missing argument is a ConfigurationError that lists what is there and how to order functions."""
    with pytest.raises(
        ConfigurationError,
        match=r"takes 'thta', which nothing before it returns. Available there: .*theta.*Order",
    ):
        make_simulator([theta, lambda thta: {"x": thta}]).sample(1, seed=0)
    with pytest.raises(ConfigurationError, match="takes 'theta'"):
        make_simulator([lambda theta: {"x": theta}, theta]).sample(1, seed=0)


def test_a_fixed_value_of_no_function_is_named():
    """Fixing a misspelt variable is refused, with the names there are."""
    with pytest.raises(
        ConfigurationError, match=r"No function returns 'thta', so it cannot be fixed. Known: theta"
    ):
        make_simulator(theta).sample(2, seed=0, thta=1.0)


@pytest.mark.parametrize("batch_shape", [0, -1, 2.5, "3", None, (), (2, 0), (2, 1.5)])
def test_bad_batch_shapes_are_refused(batch_shape):
    """The number of simulations is a positive integer or a tuple of them."""
    with pytest.raises(ConfigurationError, match="positive number of simulations"):
        make_simulator(theta).sample(batch_shape, seed=0)


def test_simulators_need_functions_blocks_and_seeds():
    """No function, something that cannot be called, an empty block and a bad seed are refused when they are
    given."""
    with pytest.raises(ConfigurationError, match="at least one function"):
        make_simulator([])
    with pytest.raises(ConfigurationError, match=r"Expected a function, .* got 3"):
        Simulator([theta, 3])
    with pytest.raises(ConfigurationError, match="block_size of at least 1, got 0"):
        make_simulator(theta, is_batched=True, block_size=0)
    with pytest.raises(ConfigurationError, match="non-negative integer"):
        make_simulator(theta).sample(1, seed=-1)
