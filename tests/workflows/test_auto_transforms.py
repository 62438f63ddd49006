"""Supports and scales that are found from draws, against distributions whose supports and scales are
known."""

import numpy as np
import pytest
import torch

from sbi_models.adapters import Adapter
from sbi_models.workflows.auto.transforms import (
    _generalized_pareto,
    adapter_of,
    data_scales,
    in_words,
    parameter_bounds,
    real_line,
)

N = 200_000


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda g: g.normal(3.0, 2.0, N), (None, None)),
        (lambda g: g.standard_t(5, N), (None, None)),
        (lambda g: g.uniform(-3, 3, N), (-3.0, 3.0)),
        (lambda g: g.uniform(0.25, 0.5, N), (0.25, 0.5)),
        (lambda g: 1e-3 * g.beta(1, 1, N), (0.0, 0.001)),
        (lambda g: g.lognormal(-1.0, 1.0, N), (0.0, None)),
        (lambda g: g.lognormal(np.log(0.4), 0.5, N), (0.0, None)),
        (lambda g: g.exponential(2.0, N), (0.0, None)),
        (lambda g: np.abs(g.normal(size=N)), (0.0, None)),
        (lambda g: 5.0 + g.exponential(2.0, N), (5.0, None)),
        (lambda g: 2.0 - g.exponential(1.0, N), (None, 2.0)),
        (lambda g: g.normal(100.0, 1.0, N), (None, None)),
    ],
)
def test_bounds_of_known_distributions(draw, expected):
    """A bound is where draws stop, not where they thin out; positive and skewed without a bound elsewhere is
    bounded by 0."""
    lower, upper = parameter_bounds(draw(rng())[:, None])
    assert (lower[0], upper[0]) == expected


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda g, n: g.beta(2, 2, n), (0.0, 1.0)),
        (lambda g, n: g.beta(3, 3, n), (0.0, 1.0)),
        (lambda g, n: g.beta(0.5, 0.5, n), (0.0, 1.0)),
        (lambda g, n: 2 * g.beta(2, 2, n) - 1, (-1.0, 1.0)),
        (lambda g, n: 3 + 4 * g.beta(2, 2, n), (3.0, 7.0)),
        (lambda g, n: g.triangular(0, 0.5, 1, n), (0.0, 1.0)),
        (lambda g, n: g.gamma(3, 1, n), (0.0, None)),
        (lambda g, n: g.gamma(8, 1, n), (0.0, None)),
        (lambda g, n: 1 / g.gamma(3, 1, n), (0.0, None)),
        (lambda g, n: 1 + g.pareto(3, n), (1.0, None)),
        (lambda g, n: g.normal(size=n), (None, None)),
        (lambda g, n: g.logistic(size=n), (None, None)),
        (lambda g, n: g.laplace(size=n), (None, None)),
        (lambda g, n: g.standard_cauchy(n), (None, None)),
        (lambda g, n: g.normal(size=n) * 0.3 + 2 * (g.random(n) < 0.5), (None, None)),
    ],
)
def test_bounds_that_draws_thin_out_towards(draw, expected, seed):
    """Densities that vanish at a bound have it, those with normal, exponential or heavy tails have none, from
    20 000 draws."""
    (low,), (high,) = parameter_bounds(draw(np.random.default_rng(seed), 20_000)[:, None])
    assert (low, high) == expected


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda g, n: 10 ** g.uniform(-3, 3, n), (1e-3, 1e3)),
        (lambda g, n: np.exp(g.uniform(np.log(2e-5), np.log(0.5), n)), (2e-5, 0.5)),
        (lambda g, n: 1 + g.pareto(0.3, n), (1.0, None)),
        (lambda g, n: g.gamma(0.1, 1, n), (0.0, None)),
        (lambda g, n: g.lognormal(0, 3, n), (0.0, None)),
        (lambda g, n: np.abs(g.standard_cauchy(n)), (0.0, None)),
        (lambda g, n: g.uniform(0, 1, n), (0.0, 1.0)),
        (lambda g, n: g.beta(0.05, 0.05, n), (0.0, 1.001)),
    ],
)
def test_bounds_over_powers_of_ten(draw, expected, seed):
    """A positive bound that is small beside the range, as of a log-uniform prior, is found; what thins out
    towards 0 has the bound 0."""
    (low,), (high,) = parameter_bounds(draw(np.random.default_rng(seed), 20_000)[:, None])
    assert (low, high) == (
        pytest.approx(expected[0]),
        expected[1] if expected[1] is None else pytest.approx(expected[1]),
    )


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_unit_of_a_positive_parameter_makes_no_difference(unit):
    """A gamma variable in any unit goes to the same real numbers, and back inside its bound."""
    draws = np.random.default_rng(0).gamma(3, 1, (20_000, 1))
    scaled, raw = {"theta": torch.as_tensor(unit * draws)}, {"theta": torch.as_tensor(draws)}
    adapter, plain = real_line("theta", unit * draws).fitted(scaled), real_line("theta", draws).fitted(raw)
    there, expected = adapter.forward(scaled)["theta"], plain.forward(raw)["theta"]
    assert float((there.std() / expected.std()).log().abs()) < 0.4  # units are powers of 2
    np.testing.assert_allclose(adapter.inverse({"theta": there})["theta"], unit * draws, rtol=1e-9)


def test_shares_of_a_whole_are_a_simplex():
    """Draws of a Dirichlet law go to d - 1 real numbers; whole numbers, and unbounded draws, stay as they
    are."""
    g = np.random.default_rng(0)
    shares = g.dirichlet([2, 2, 2], 2000)
    made = real_line("p", shares).forward({"p": torch.as_tensor(shares)})["p"]
    assert made.shape == (2000, 2)
    for draws in (g.poisson(3, (2000, 1)).astype(float), g.normal(size=(2000, 2))):
        assert real_line("k", draws).transforms == ()


def test_bounds_are_outside_the_draws():
    """Also of few draws, whose ends say less; draws are inside, strictly."""
    for n in (1_000, 5_000, 100_000):
        values = rng().uniform(-0.123456789, np.pi, n)
        (low,), (high,) = parameter_bounds(values[:, None])
        assert low < values.min()
        assert high > values.max()
        assert high - low < 1.05 * (np.pi + 0.123456789)


def test_too_few_draws_have_no_bounds():
    """Below a thousand the ends say too little."""
    assert parameter_bounds(rng().uniform(size=(900, 2))) == ([None, None], [None, None])


def test_bounds_that_are_no_round_numbers_hold_new_draws():
    """A million further draws of a uniform distribution between -0.123456789 and pi are inside the bounds
    that 200 000 have."""
    generator = rng()
    draws, more = (generator.uniform(-0.123456789, np.pi, n) for n in (N, 1_000_000))
    (low,), (high,) = parameter_bounds(draws[:, None])
    assert low < more.min()
    assert high > more.max()


def test_scales_of_data_with_known_noise():
    """Multiplicative noise is found by its logarithm, counts by their root, additive noise is left as it
    is."""
    g, n = rng(), 2_000
    theta = g.uniform(1.0, 3.0, (n, 1))
    data = {
        "multiplied": np.exp(theta + 0.3 * g.normal(size=(n, 4))),
        "counted": g.poisson(20 * theta, (n, 4)).astype(float),
        "added": theta + g.normal(size=(n, 4)),
        "positive": 50.0 + theta + g.normal(size=(n, 4)),
    }
    assert data_scales(list(data), data, theta) == {
        "multiplied": "log",
        "counted": "sqrt",
        "added": "identity",
        "positive": "identity",
    }


def test_counts_have_no_logarithm():
    """A count can be 0 in an observation, though it never was in the simulations."""
    g = rng()
    theta = g.uniform(5.0, 9.0, (500, 1))
    counts = np.round(np.exp(theta + 0.2 * g.normal(size=(500, 3))))
    assert counts.min() > 0
    assert data_scales(["x"], {"x": counts}, theta)["x"] == "sqrt"


def test_the_adapter_and_the_words():
    """Steps for what is bounded or scaled alone; words for people."""
    bounds, scales = (
        {"a": ([0.0, None], [None, None]), "b": ([None], [None])},
        {"x": "log", "y": "identity", "z": "sqrt"},
    )
    assert [step.kind for step in adapter_of(bounds, scales).transforms] == ["constrain", "log", "sqrt"]
    assert adapter_of({}, {}).transforms == Adapter().transforms
    words = in_words(bounds, scales)
    assert words == {
        "a": "support (0, inf) x (-inf, inf)",
        "b": "support (-inf, inf)",
        "x": "scale log",
        "y": "scale identity",
        "z": "scale sqrt",
    }


def test_few_draws_over_powers_of_ten_have_no_bounds():
    """Nine hundred log-uniform draws over six powers of ten say too little, too; five thousand say both
    ends."""
    draws = 10.0 ** rng().uniform(-3, 3, size=(5_000, 1))
    assert parameter_bounds(draws[:900]) == ([None], [None])
    (low,), (high,) = parameter_bounds(draws)
    assert low == pytest.approx(1e-3, rel=0.1)
    assert high == pytest.approx(1e3, rel=0.1)


def test_shares_that_fill_little_of_the_unit_interval_have_no_upper_bound():
    """Draws around 0.6 with an sd of 0.01 say nothing of 1; those of Beta(2, 2) do."""
    assert parameter_bounds(rng().normal(0.6, 0.01, size=(5_000, 1)))[1] == [None]
    assert parameter_bounds(rng().beta(2, 2, size=(5_000, 1))) == ([0.0], [1.0])


@pytest.mark.parametrize("power", [1, 2, 4])
def test_the_tail_of_a_density_that_vanishes_at_its_end(power):
    """Where the distribution function is the k-th power of the distance to an end at 3, the shape is -1 / k,
    within 4 standard errors, and the end is found within 15 % of the fitted distances."""
    column = 3.0 + rng().uniform(size=N) ** (1 / power)
    shape, end = _generalized_pareto(column)
    assert shape == pytest.approx(-1 / power, abs=4 * 1.3 / np.sqrt(0.05 * N))
    reach = 0.05 ** (1 / power)
    assert end == pytest.approx(3.0, abs=0.15 * reach)
