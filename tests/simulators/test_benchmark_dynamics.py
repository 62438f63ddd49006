"""Solvers of the benchmarks with differential equations, moments of their observations, and the real data."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sbi_models.simulators.benchmarks import BENCHMARKS
from sbi_models.simulators.benchmarks.ode import runge_kutta

SIR, LOTKA_VOLTERRA, HARE_LYNX, INFLUENZA = (
    BENCHMARKS[name] for name in ("sir", "lotka_volterra", "hare_lynx", "influenza")
)


def solve(rate, start, times):
    """scipy's adaptive solver of order 8 at tight tolerance, shape (t, d)."""
    return solve_ivp(
        rate, (times[0], times[-1]), start, method="DOP853", t_eval=times, rtol=1e-11, atol=1e-13
    ).y.T


def predator_prey(alpha, beta, gamma, delta):
    return lambda _, y: [alpha * y[0] - beta * y[0] * y[1], delta * y[0] * y[1] - gamma * y[1]]


def epidemic(beta, gamma):
    return lambda _, y: [-beta * y[0] * y[1], beta * y[0] * y[1] - gamma * y[1]]


def test_the_solver_is_of_order_four():
    """Halving the step divides the error by 16 on an oscillator with a known solution."""
    times, start = np.array([0.0, 0.4, 2.0]), np.array([[1.0], [0.0]])
    errors = []
    for step in (0.1, 0.05, 0.025):
        states = runge_kutta(lambda y: np.stack([y[1], -y[0]]), start, times, step)
        errors.append(np.hypot(states[-1, 0, 0] - np.cos(2.0), states[-1, 1, 0] + np.sin(2.0)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.1)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(4.0, abs=0.1)


@pytest.mark.nightly
def test_the_errors_of_the_solver_are_far_below_the_noise():
    """Against scipy for 12 draws of each prior: errors are below a hundredth of the observation's standard
    deviation."""
    rng = np.random.default_rng(0)
    theta = SIR.prior(12, rng)["theta"]
    exact = [solve(epidemic(*row), [1 - 1e-6, 1e-6], np.arange(10) * 17.0)[:, 1] for row in theta]
    np.testing.assert_allclose(SIR.trajectory(theta), exact, atol=1e-6)
    theta = LOTKA_VOLTERRA.prior(12, rng)["theta"]
    exact = [np.log(solve(predator_prey(*row), [30.0, 1.0], np.arange(10) * 2.1)).T.ravel() for row in theta]
    np.testing.assert_allclose(
        LOTKA_VOLTERRA.trajectory(theta), np.clip(exact, np.log(1e-10), np.log(1e4)), atol=1e-4
    )
    theta = INFLUENZA.prior(12, rng)["theta"]
    exact = [763 * solve(epidemic(*row[:2]), [762 / 763, 1 / 763], np.arange(15.0))[1:, 1] for row in theta]
    np.testing.assert_allclose(INFLUENZA.trajectory(theta), exact, rtol=1e-5)
    theta = HARE_LYNX.reference_draws[:12]
    exact = [np.log(solve(predator_prey(*row[:4]), row[4:6], np.arange(21.0))) for row in theta]
    np.testing.assert_allclose(HARE_LYNX.trajectory(theta), exact, atol=1e-5)


@pytest.mark.parametrize(
    "model", [SIR, LOTKA_VOLTERRA, HARE_LYNX, INFLUENZA], ids=lambda model: type(model).__name__
)
def test_a_smaller_step_changes_nothing_that_matters(model):
    """Over 400 draws of the prior, its far corners included, the trajectory with half the step is the same to
    0.001 or relatively so."""
    theta = model.prior(400, np.random.default_rng(1))["theta"]
    step = {SIR: 0.125, INFLUENZA: 0.025}.get(model, 0.00625)
    np.testing.assert_allclose(
        model.trajectory(theta), model.trajectory(theta, step=step), rtol=1e-3, atol=1e-3
    )


def test_predators_and_prey_keep_their_invariant():
    """delta u - gamma log u + beta v - alpha log v is constant along a solution."""
    theta = LOTKA_VOLTERRA.prior(50, np.random.default_rng(2))["theta"]
    alpha, beta, gamma, delta = theta.T[:, :, None]
    u, v = np.moveaxis(LOTKA_VOLTERRA.trajectory(theta).reshape(50, 2, 10), 1, 0)
    invariant = delta * np.exp(u) - gamma * u + beta * np.exp(v) - alpha * v
    np.testing.assert_allclose(invariant, np.broadcast_to(invariant[:, :1], invariant.shape), rtol=1e-3)


@pytest.mark.nightly
def test_observations_scatter_around_the_solution_as_the_models_say():
    """Means and variances of 6000 observations: binomial, log-normal, negative binomial."""
    rng, n = np.random.default_rng(3), 6000

    def check(x, mean, variance):
        np.testing.assert_allclose((x.mean(axis=0) - mean) / np.sqrt(variance / n + 1e-12), 0.0, atol=5)
        np.testing.assert_allclose(x.var(axis=0), variance, rtol=0.15, atol=1e-9)

    one = np.array([0.5, 0.12])
    share = SIR.trajectory(one)
    x = SIR.likelihood(np.tile(one, (n, 1)), rng)["x"]
    assert ((x >= 0) & (x <= 1000) & (x == np.round(x))).all()
    check(x[:, 2:7], 1000 * share[2:7], (1000 * share * (1 - share))[2:7])
    one = np.array([0.7, 0.05, 0.9, 0.06])
    logs = np.log(LOTKA_VOLTERRA.likelihood(np.tile(one, (n, 1)), rng)["x"])
    check(logs, LOTKA_VOLTERRA.trajectory(one), np.full(20, 0.01))
    one = np.array([1.8, 0.5, 0.2])
    mean = INFLUENZA.trajectory(one)
    check(INFLUENZA.likelihood(np.tile(one, (n, 1)), rng)["x"], mean, mean + 0.2 * mean**2)
    one = np.array([0.55, 0.028, 0.8, 0.024, 33.0, 6.0, 0.25, 0.4])
    logs = np.log(HARE_LYNX.likelihood(np.tile(one, (n, 1)), rng)["x"])
    check(logs, HARE_LYNX.trajectory(one), np.broadcast_to([0.25**2, 0.4**2], (21, 2)))


def walk(log_density, points, steps, rng):
    """Metropolis chains from `points`, shape (n, d), with steps along differences of the points: keeps a
    density that it starts from."""
    archive, now = points, points.copy()
    here = log_density(now)
    for _ in range(steps):
        first, second = rng.integers(len(archive), size=(2, len(now)))
        proposal = now + 1.7 / np.sqrt(2 * now.shape[1]) * (archive[first] - archive[second])
        there = log_density(proposal)
        moved = np.log(rng.uniform(size=len(now))) < there - here
        now, here = np.where(moved[:, None], proposal, now), np.where(moved, there, here)
    return now


@pytest.mark.nightly
def test_hares_and_lynxes_have_the_reference_posterior():
    """Chains that start at reference draws and follow our log joint move away from them, but keep their means
    and spreads."""
    reference = np.log(HARE_LYNX.reference_draws)
    assert HARE_LYNX.observed.shape == (21, 2)
    assert HARE_LYNX.observed[[0, -1]].tolist() == [[30.0, 4.0], [24.7, 8.6]]
    start = reference[::8]
    end = walk(
        lambda z: HARE_LYNX.log_joint(np.exp(z), HARE_LYNX.observed) + z.sum(axis=-1),
        start,
        30,
        np.random.default_rng(4),
    )
    mean, sd = reference.mean(axis=0), reference.std(axis=0)
    np.testing.assert_allclose((end.mean(axis=0) - mean) / sd, 0.0, atol=4.5 / np.sqrt(len(end)))
    np.testing.assert_allclose(end.std(axis=0) / sd, 1.0, atol=4.5 / np.sqrt(2 * len(end)) * 1.3)
    moved = np.mean([np.corrcoef(start[:, i], end[:, i])[0, 1] for i in range(8)])
    assert moved < 0.4


def test_influenza_has_the_published_posterior():
    """beta 1.73 (0.05), gamma 0.54 (0.05) and R0 3.2 (0.3), by a sum over a grid of our log joint."""
    beta, gamma, inverse = np.linspace(1.4, 2.1, 36), np.linspace(0.3, 0.8, 36), np.geomspace(0.01, 2.0, 24)
    rates = np.stack(np.meshgrid(beta, gamma, indexing="ij"), axis=-1)
    slices = [np.concatenate([rates, np.full((36, 36, 1), value)], axis=-1) for value in inverse]
    log_joint = np.stack(
        [INFLUENZA.log_joint(theta, INFLUENZA.observed) for theta in slices], axis=-1
    ) + np.log(inverse)
    p = np.exp(log_joint - log_joint.max()).sum(axis=-1)
    p /= p.sum()
    ratio = rates[..., 0] / rates[..., 1]
    published = {
        "beta": (rates[..., 0], 1.73, 0.05),
        "gamma": (rates[..., 1], 0.54, 0.05),
        "R0": (ratio, 3.2, 0.3),
    }
    for values, mean, sd in published.values():
        ours = (p * values).sum()
        assert ours == pytest.approx(mean, abs=0.2 * sd)
        assert np.sqrt((p * (values - ours) ** 2).sum()) == pytest.approx(sd, rel=0.25)
