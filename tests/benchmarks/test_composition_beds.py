"""The exact posteriors of `benchmarks/composition.py`, against the prior, weighted, and against data sets
that the simulators made."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from composition_beds import BEDS

PRIORS = ["function", "torch"]
DATA_SETS = {"student": 100, "uniform": 60, "bimodal": 200, "normal": 200}
"""How many, where an exact posterior takes time."""

DRAWS = {"linear": 300_000, "regression": 200_000}
"""Of the prior, where few of them are near the posterior."""


def normal(x, mean, sd):
    return stats.norm.logpdf(x, mean, sd).sum(axis=(-1, -2))


def of_normals(theta, items):
    return normal(items["x"].reshape(-1, 1), theta[:, :1, None], np.exp(theta[:, 1:, None] / 2))


LOG_LIKELIHOODS = {
    "bernoulli": lambda theta, items: stats.bernoulli.logpmf(items["x"][:, 0], theta).sum(axis=1),
    "exponential": lambda rate, items: stats.expon.logpdf(items["x"][:, 0], scale=1 / rate).sum(axis=1),
    "poisson": lambda rate, items: stats.poisson.logpmf(items["x"][:, 0], rate).sum(axis=1),
    "categorical": lambda p, items: stats.multinomial.logpmf(
        items["x"].sum(axis=0), len(items["x"]), completed(p)
    ),
    "simplex": lambda p, items: stats.multinomial.logpmf(
        items["x"].sum(axis=0), len(items["x"]), completed(p)
    ),
    "nig": lambda theta, items: normal(
        items["x"].reshape(-1, 1), theta[:, :1, None], np.sqrt(theta[:, 1:, None])
    ),
    "pareto": lambda theta, items: stats.uniform.logpdf(items["x"][:, 0], 0, theta).sum(axis=1),
    "regression": lambda theta, items: normal(
        items["y"].T[..., None], (theta @ items["x"].T)[..., None], 0.5
    ),
    "student": lambda theta, items: stats.t.logpdf(
        items["x"][:, 0], 4, theta[:, :1], np.exp(theta[:, 1:])
    ).sum(axis=1),
    "bimodal": lambda theta, items: normal(items["x"], theta[..., None] ** 2, 0.5),
    "normal": of_normals,
    "uniform": of_normals,
    "linear": lambda theta, items: normal(
        items["x"], (theta @ BEDS["linear"].matrix.T)[:, None], np.sqrt(0.5)
    ),
}


def completed(p):
    """The three probabilities, where the prior gives two; they sum to one to the last digit."""
    first = p[:, :2].astype(float)
    return np.concatenate([first, 1 - first.sum(axis=1, keepdims=True)], axis=1)


def parameters(bed, prior, number, seed):
    """Draws of the prior, (number, d), in the order of the names."""
    simulated = bed.simulator(prior).sample(number, seed=seed, progress=False)
    return np.concatenate([simulated[name] for name in bed.names], axis=1), simulated


@pytest.mark.nightly_cases(
    "linear-torch",
    "regression-torch",
    "uniform-torch",
    "normal-torch",
    "student-torch",
    "simplex-torch",
    "categorical-torch",
    "nig-torch",
)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", BEDS)
def test_exact_moments_are_those_of_the_weighted_prior(name, prior):
    """Draws of either form of the prior, weighted by a likelihood written anew with SciPy, have the exact
    mean and sd given three items."""
    bed = BEDS[name]
    items = bed.data_set(3, np.random.default_rng([1, 3]))
    theta, _ = parameters(bed, prior, DRAWS.get(name, 100_000), seed=2)
    logs = LOG_LIKELIHOODS[name](theta, items)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    exact, d = bed.exact(items), theta.shape[1]
    standard = (theta - exact.mean[:d]) / exact.sd[:d]
    mean, square = weights @ standard, weights @ standard**2
    errors = [
        np.sqrt(weights**2 @ (values - center) ** 2)
        for values, center in ((standard, mean), (standard**2, square))
    ]
    assert np.all(np.array(errors) < [[0.06], [0.12]])  # else the test could not see much
    assert np.all(abs(mean) < 4.5 * errors[0])
    assert np.all(abs(square - 1) < 4.5 * errors[1])
    if bed.two_modes:
        positive = weights @ (theta[:, 0] > 0)
        assert abs(positive - exact.positive) < 4.5 * np.sqrt(
            weights**2 @ ((theta[:, 0] > 0) - positive) ** 2
        )


@pytest.mark.parametrize("name", BEDS)
def test_parameters_are_where_the_posterior_of_their_data_says(name):
    """Over data sets of seven items that the bed's own likelihood makes, (theta - mean) / sd has mean 0 and
    variance 1."""
    bed = BEDS[name]
    theta, _ = parameters(bed, "function", DATA_SETS.get(name, 1000), seed=3)
    away = []
    for row, own in enumerate(theta):
        columns = np.split(np.repeat(own[None], 7, axis=0), len(bed.names), axis=1)
        exact = bed.exact(
            bed.likelihood(**dict(zip(bed.names, columns, strict=True)), rng=np.random.default_rng([4, row]))
        )
        away.append((own - exact.mean[: len(own)]) / exact.sd[: len(own)])
    away = np.array(away)
    assert np.all(abs(away.mean(axis=0)) < 4.5 * away.std(axis=0) / len(away) ** 0.5)
    squares = away**2
    assert np.all(abs(squares.mean(axis=0) - 1) < 4.5 * squares.std(axis=0) / len(away) ** 0.5)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", BEDS)
def test_impossible_parameters_are_counted(name, prior):
    """A simulator that draws its own parameters is never called at impossible ones, and each one that it is
    given is counted."""
    bed = type(BEDS[name])()
    simulator = bed.simulator(prior)
    drawn = simulator.sample(2000, seed=5, progress=False)
    assert bed.num_impossible == 0
    outside = {
        "bernoulli": 1.2,
        "exponential": -0.5,
        "poisson": -0.5,
        "categorical": 0.7,
        "simplex": 0.7,
        "pareto": 0.9,
        "uniform": 2.3,
    }
    if name in outside:
        block = simulator.block_size
        simulator.sample(
            block, seed=5, **{bed.names[0]: np.full_like(drawn[bed.names[0]][:block], outside[name])}
        )
        assert bed.num_impossible == block
