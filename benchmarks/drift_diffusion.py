"""Drift-diffusion model of reaction time and choice: exact draws, exact density, exact posterior moments.

    python benchmarks/drift_diffusion.py

checks the density against closed forms and the draws against the density, one line of JSON each.

Evidence is a Wiener process with drift v and unit variance that starts at w * a between the boundaries 0 and
a. The choice is the boundary that it reaches first, 1 for a, and the reaction time rt is when it does, plus
the non-decision time t0. The density is that of D. J. Navarro and I. G. Fuss, Fast and accurate calculations
for first-passage times in Wiener diffusion models, J. Math. Psychol. 53 (2009): a series for short times and
one for long ones. Draws are those of J. Drugowitsch, Fast and accurate Monte Carlo sampling of first-passage
times from Wiener diffusion models, Scientific Reports 6 (2016): the process leaves intervals around where it
is, until it is at a boundary; side and time of leaving are independent.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import integrate, special, stats
from torch.distributions import Beta, Gamma, Normal

import sbi_models as bf

NAMES = ("v", "a", "w", "t0")

PRIOR = {"v": Normal(0.0, 1.5), "a": Gamma(8.0, 5.0), "w": Beta(6.0, 6.0), "t0": Gamma(9.0, 30.0)}

_LAWS = {
    "v": stats.norm(0.0, 1.5),
    "a": stats.gamma(8.0, scale=1 / 5.0),
    "w": stats.beta(6.0, 6.0),
    "t0": stats.gamma(9.0, scale=1 / 30.0),
}
"""The same prior, in SciPy."""

_SHORT = 0.3
"""Time, in units of a squared, up to which the series for short times is summed.

At this time the first term that is left out of either series is below 1e-15 of the first one.
"""

_PILOT, _FEWEST_EFFECTIVE, _MOST_ROUNDS = 3000, 300, 60
_FINAL = 40_000
"""Draws of the last proposal of a reference posterior."""

_DEGREES = 8
_NUMBERS_AT_ONCE = 500_000


# ---- density ----------------------------------------------------------------


def log_density(theta: np.ndarray, rt: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Log density in nats (m, N) of trials (N,) at parameters (m, 4), of `NAMES`; -inf for rt <= t0."""
    v, a, w, t0 = (column[:, None] for column in theta.T)
    is_upper = choice > 0.5
    start, drift = np.where(is_upper, 1 - w, w), np.where(is_upper, -v, v)
    time = (rt - t0) / a**2
    result = np.full(time.shape, -np.inf)
    inside = time > 0
    result[inside] = _log_driftless(time[inside], np.broadcast_to(start, time.shape)[inside])
    result += -drift * a * start - 0.5 * v**2 * (rt - t0) - 2 * np.log(a)
    return np.where(inside, result, -np.inf)


def _log_driftless(time: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Log density (n,) of leaving (0, 1) at 0, without drift."""
    result, short = np.empty_like(time), time <= _SHORT
    t, x = time[short], start[short]
    near, far = np.exp(-2 * x / t), np.exp(-2 * (1 - x) / t)
    rest = (x - 2) * far + (x + 2) * near**2 * far
    rest += (x - 4) * near**2 * far**4 + (x + 4) * near**6 * far**4
    with np.errstate(divide="ignore", invalid="ignore"):
        result[short] = np.log(x + rest) - x**2 / (2 * t) - 1.5 * np.log(t) - 0.5 * np.log(2 * np.pi)
    t, x = time[~short], start[~short]
    base, total = -0.5 * np.pi**2 * t, np.zeros_like(t)
    for k in range(1, 5):
        total += k * np.sin(k * np.pi * x) * np.exp((k**2 - 1) * base)
    result[~short] = np.log(np.pi * total) + base
    return result


def probability_of_upper(theta: np.ndarray) -> np.ndarray:
    """Probability (m,) of the choice 1 at parameters (m, 4)."""
    v, a, w, _ = theta.T
    with np.errstate(invalid="ignore"):
        exact = np.expm1(-2 * v * a * w) / np.expm1(-2 * v * a)
    return np.where(np.abs(v * a) < 1e-9, w, exact)


# ---- draws ------------------------------------------------------------------


class _ExitTimes:
    """Time at which a Wiener process without drift leaves (-1, 1) from 0, by its inverted distribution.

    Interpolated between 40 000 times; the error is below 1e-6 of the time.
    """

    def __init__(self) -> None:
        self.log_times = np.linspace(np.log(0.01), np.log(40.0), 40_000)
        time = np.exp(self.log_times)
        k = 2 * np.arange(30)[:, None] + 1
        sign = np.where(k % 4 == 1, 1.0, -1.0)
        inside = 4 / np.pi * (sign / k * np.exp(-(k**2) * np.pi**2 * time / 8)).sum(axis=0)
        outside = 2 * (sign * special.erfc(k / np.sqrt(2 * time))).sum(axis=0)
        inside, outside = np.where(time > 1, inside, 1 - outside), np.where(time > 1, 1 - inside, outside)
        self.logits = np.log(outside) - np.log(inside)

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Times (size,)."""
        return np.exp(np.interp(rng.logistic(size=size), self.logits, self.log_times))


_EXIT_TIMES = _ExitTimes()


def observe(
    v: np.ndarray, a: np.ndarray, w: np.ndarray, t0: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """One trial for each row of parameters (n, 1): rt in units of time, and choice, (n, 1) each."""
    drift, upper, place = (np.array(value, dtype=float).ravel() for value in (v, a, w * a))
    time, left = np.zeros(len(drift)), np.arange(len(drift))
    while len(left):
        x, top, speed = place[left], upper[left], drift[left]
        # the time of leaving has a factor exp(-speed^2 time / 2) for the drift, by rejection: at most 35 %
        radius = np.minimum(np.minimum(x, top - x), 1 / np.maximum(np.abs(speed), 1e-12))
        leaving, waiting = np.empty(len(left)), np.arange(len(left))
        while len(waiting):
            proposed = radius[waiting] ** 2 * _EXIT_TIMES.draw(rng, len(waiting))
            fine = rng.uniform(size=len(waiting)) < np.exp(-0.5 * speed[waiting] ** 2 * proposed)
            leaving[waiting[fine]] = proposed[fine]
            waiting = waiting[~fine]
        time[left] += leaving
        up = rng.uniform(size=len(left)) < special.expit(2 * speed * radius)
        moved = np.where(up, x + radius, x - radius)
        # positions are exact at a boundary: x - x is 0, and the radius top - x leads to top
        moved = np.where(up & (radius == top - x), top, moved)
        place[left] = moved
        left = left[(moved > 0) & (moved < top)]
    rt = time + np.ravel(t0)
    return {"rt": rt[:, None], "choice": (place > 0).astype(float)[:, None]}


def simulator() -> bf.Simulator:
    """Prior and one trial."""
    return bf.make_simulator([dict(PRIOR), observe], is_batched=True, block_size=4096)


def trials(theta: np.ndarray, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Trials (m, number) of data sets at parameters (m, 4): rt and choice."""
    columns = np.repeat(theta, number, axis=0).T[..., None]
    drawn = observe(*columns, rng=rng)
    return drawn["rt"].reshape(-1, number), drawn["choice"].reshape(-1, number)


# ---- reference --------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Exact posterior of a data set by importance sampling.

    Attributes:
        mean, sd: moments of the parameters (4,), raw space.
        effective: effective number of draws; errors are about 1 / sqrt(effective) sds.
    """

    mean: np.ndarray
    sd: np.ndarray
    effective: float


def reference(rt: np.ndarray, choice: np.ndarray, rng: np.random.Generator) -> Reference:
    """Posterior moments from trials (N,) and `PRIOR`.

    Proposals are Student's t on the real line (v, log a, logit w, log t0) that are fitted to the draws of
    the one before, weighted by prior times a power of the likelihood, which grows from 0 to 1. The first
    draws are those of the prior with t0 below the first trial.
    """

    def logs(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta = raw(z)
        prior = sum(_LAWS[name].logpdf(column) for name, column in zip(NAMES, theta.T, strict=True))
        volume = z[:, 1] + z[:, 3] + special.log_expit(z[:, 2]) + special.log_expit(-z[:, 2])
        step = max(1, _NUMBERS_AT_ONCE // len(rt))
        parts = [log_density(theta[i : i + step], rt, choice).sum(axis=1) for i in range(0, len(theta), step)]
        return prior + volume, np.concatenate(parts)

    most = np.array([1.0, 1.0, 1.0, _LAWS["t0"].cdf(rt.min())])  # no trial is before t0
    shares = most * rng.uniform(size=(_PILOT, len(NAMES)))
    columns = [_LAWS[name].ppf(column) for name, column in zip(NAMES, shares.T, strict=True)]
    z = real(np.stack(columns, axis=1))
    prior, likelihood = logs(z)
    log_proposal, power = prior, 0.0
    for _ in range(_MOST_ROUNDS):
        is_last = power == 1.0
        power = _largest_power(prior - log_proposal, likelihood)
        weights = _weights(prior - log_proposal, likelihood, power)
        mean = weights @ z
        covariance = (z - mean).T @ ((z - mean) * weights[:, None])
        law = stats.multivariate_t(mean, covariance, df=_DEGREES)
        z = law.rvs(size=_FINAL if is_last and power == 1.0 else _PILOT, random_state=rng)
        (prior, likelihood), log_proposal = logs(z), law.logpdf(z)
        if is_last and power == 1.0:
            break
    else:
        raise RuntimeError("The reference posterior was not reached.")
    weights, theta = _weights(prior - log_proposal, likelihood, 1.0), raw(z)
    mean = weights @ theta
    return Reference(mean, np.sqrt(weights @ (theta - mean) ** 2), float(1 / (weights**2).sum()))


def real(theta: np.ndarray) -> np.ndarray:
    """Parameters (m, 4) on the real line."""
    v, a, w, t0 = theta.T
    return np.stack([v, np.log(a), special.logit(w), np.log(t0)], axis=1)


def raw(z: np.ndarray) -> np.ndarray:
    """Raw parameters (m, 4) of those on the real line."""
    return np.stack([z[:, 0], np.exp(z[:, 1]), special.expit(z[:, 2]), np.exp(z[:, 3])], axis=1)


def _weights(offset: np.ndarray, likelihood: np.ndarray, power: float) -> np.ndarray:
    possible = np.isfinite(likelihood)
    logs = np.where(possible, offset + power * np.where(possible, likelihood, 0.0), -np.inf)
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _largest_power(offset: np.ndarray, likelihood: np.ndarray) -> float:
    """Largest power of the likelihood at which enough draws are effective, by bisection."""

    def enough(power: float) -> bool:
        return bool(1 / (_weights(offset, likelihood, power) ** 2).sum() >= _FEWEST_EFFECTIVE)

    if enough(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low


# ---- checks -----------------------------------------------------------------


def main() -> None:
    rng = np.random.default_rng(1)
    theta = np.stack([_LAWS[name].rvs(size=40, random_state=rng) for name in NAMES], axis=1)
    worst: dict[str, Any] = {"upper": 0.0, "lower": 0.0}
    for row, upper in zip(theta, probability_of_upper(theta), strict=True):
        for name, choice, exact in (("upper", 1.0, upper), ("lower", 0.0, 1 - upper)):

            def density(log_time: float, row: np.ndarray = row, choice: float = choice) -> float:
                rt = np.array([row[3] + np.exp(log_time)])
                return float(np.exp(log_density(row[None], rt, np.array([choice])) + log_time)[0, 0])

            integral = integrate.quad(density, -14, 8, limit=500, epsabs=1e-12)[0]
            worst[name] = max(worst[name], abs(integral - exact))
    print(json.dumps({"check": "integrals against probabilities", "worst": worst}))
    values, number = [], 20_000
    for row in theta:
        (rt,), (choice,) = trials(row[None], number, rng)
        grid = row[3] + np.exp(np.linspace(-14, 8, 20_001))
        for side in (0.0, 1.0):
            density = np.exp(log_density(row[None], grid, np.full(grid.shape, side)))[0]
            cumulative = integrate.cumulative_simpson(density, x=grid, initial=0)
            chosen = rt[choice == side]
            if len(chosen) > 50:
                shares = np.interp(chosen, grid, cumulative / cumulative[-1])
                values.append(stats.kstest(shares, "uniform").pvalue)
        share = stats.binomtest(int(choice.sum()), number, probability_of_upper(row[None])[0])
        values.append(share.pvalue)
    print(
        json.dumps(
            {
                "check": f"{number} draws at each of {len(theta)} parameters: times (KS), choices (binomial)",
                "p_smallest": round(float(min(values)), 4),
                "p_of_all": round(float(stats.kstest(values, "uniform").pvalue), 3),
                "tests": len(values),
            }
        )
    )


if __name__ == "__main__":
    main()
