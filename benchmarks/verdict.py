"""False alarm rate and power of the verdict, on exact posteriors of many laws and on known failures.

    python benchmarks/verdict.py [laws | power | words] [SEEDS]

laws    Draws and truth of one law: how often the verdict rejects them, at false_alarms=0.01 and 0.1, in 1, 2
        and 20 parameters, from 20 data sets of 10 draws to 300 of 500. A row is in order if the 99.9 %
        binomial interval of its rate reaches down to the nominal rate. SEEDS are for the smallest size, half
        as many for the next, a twelfth for the largest.
power   Posteriors with known failures: in how many seeds the verdict detects a flaw, for 100 and 500 data
        sets of 500 draws, in 3, 10 and 20 parameters, and the most frequent words with 500. SEEDS are for 3
        parameters, 60 % of them for 10, 40 % for 20.
words   theta ~ Normal(0, I), x ~ Normal(theta, 0.25 I): right words for the exact posterior, for sds of 0.8
        and 1.25, a shift by 0.3 sds, and the prior; the estimated factor and bias of a parameter: mean, and
        how often the 95 % interval holds the true one; CPU seconds.

The defaults are 96 (laws), 10 (power) and 50 (words) seeds: power takes seven minutes of one core, laws
longer.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from sbi_models.diagnostics import Verdict, judge
from sbi_models.seeding import generator

Floats = NDArray[np.float64]
Rng = np.random.Generator
FLAWED = ("over-confident", "under-confident", "biased", "miscalibrated")


# --- exact posteriors: draws and truth of one law, which depends on m ~ Normal(0, 1) of each data set


def banana(r: Rng, m: Floats, shape: tuple[int, ...]) -> Floats:
    """Noise in which each parameter is a parabola of the one before."""
    noise = r.normal(size=shape)
    return m + np.concatenate([noise[..., :1], noise[..., :-1] ** 2 + 0.3 * noise[..., 1:]], axis=2)


def with_atoms(r: Rng, m: Floats, shape: tuple[int, ...]) -> Floats:
    """Exactly 0 with probability 0.4, else lognormal: a spike and a slab."""
    return np.where(r.random(shape) < 0.4, 0.0, np.exp(m + r.normal(size=shape)))


LAWS: dict[str, Callable[[Rng, Floats, tuple[int, ...]], Floats]] = {
    "normal": lambda r, m, shape: m + r.normal(size=shape),
    "exponential": lambda r, m, shape: np.exp(m) * r.exponential(size=shape),
    "lognormal": lambda r, m, shape: np.exp(m + r.normal(size=shape)),
    "Cauchy": lambda r, m, shape: m + r.standard_cauchy(size=shape),
    "Student t, 3 d.f.": lambda r, m, shape: m + r.standard_t(3, size=shape),
    "gamma(0.3)": lambda r, m, shape: np.exp(m) * r.gamma(0.3, size=shape),
    "uniform": lambda r, m, shape: m + r.random(shape),
    "two modes, 90 : 10": lambda r, m, shape: m + 20.0 * (r.random(shape) < 0.1) + r.normal(size=shape),
    "Bernoulli": lambda r, m, shape: r.binomial(1, 1.0 / (1.0 + np.exp(-3.0 * m)), size=shape).astype(float),
    "Poisson": lambda r, m, shape: r.poisson(np.exp(m), size=shape).astype(float),
    "geometric": lambda r, m, shape: r.geometric(1.0 / (1.0 + np.exp(m)), size=shape).astype(float),
    "spike and slab": with_atoms,
    "constant given the data": lambda _, m, shape: m + np.zeros(shape),
    "common scale": lambda r, m, shape: m + r.normal(size=shape) / r.gamma(1.0, size=(*shape[:2], 1)),
    "banana": banana,
}
SIZES = {(20, 10): 1.0, (50, 50): 0.5, (300, 500): 1 / 12}
"""Data sets and draws, and the share of the seeds."""
DIMS = (1, 2, 20)


def exact(law: str, dim: int, n: int, num_draws: int, seed: int) -> tuple[Floats, Floats]:
    """Draws (n, num_draws, dim) and true values (n, dim) of one law."""
    rng = generator(seed, "laws of verdicts", law, dim, n)
    values = LAWS[law](rng, rng.normal(size=(n, 1, dim)), (n, num_draws + 1, dim))
    return values[:, :-1], values[:, -1]


def laws(seeds: int) -> None:
    """False alarms by law, dimension, and size."""
    print(
        f"| law | parameters | {' | '.join(f'{n} x {s}' for n, s in SIZES)} | at 1 % | at 10 % "
        f"|\n|---|---|{'---|' * len(SIZES)}---|---|"
    )
    everywhere = np.zeros(3, dtype=int)
    for law in LAWS:
        for dim in DIMS:
            counts, total, trials = [], np.zeros(2, dtype=int), 0
            for (n, num_draws), share in SIZES.items():
                found, some = np.zeros(2, dtype=int), max(1, round(share * seeds))
                for seed in range(some):
                    verdict = judge(*exact(law, dim, n, num_draws, seed), seed=seed)
                    found += [accused(verdict, at) for at in (0.01, 0.1)]
                counts.append(f"{found[0]}, {found[1]} of {some}")
                total, trials = total + found, trials + some
            fine = [
                count <= binom.ppf(0.999, trials, at) for count, at in zip(total, (0.01, 0.1), strict=True)
            ]
            everywhere += [*total, trials]
            shares = [
                f"{count / trials:.1%}{'' if right else ' TOO MANY'}"
                for count, right in zip(total, fine, strict=True)
            ]
            print(f"| {law} | {dim} | {' | '.join(counts)} | {' | '.join(shares)} |", flush=True)
    print(
        f"| all | | {'| ' * len(SIZES)}{everywhere[0] / everywhere[2]:.2%} | "
        f"{everywhere[1] / everywhere[2]:.2%} |"
    )


def accused(verdict: Verdict, false_alarms: float) -> bool:
    """True if a flaw is detected at this false alarm rate."""
    rows = [*verdict.parameters, *([] if verdict.joint is None else [verdict.joint])]
    return any(
        check.adjusted <= false_alarms for row in rows for check in row.checks if check.name != "information"
    )


# --- failures: x = theta + noise, draws around x; truth and draws differ in one thing


def correlated(rng: Rng, shape: tuple[int, ...], rho: float) -> Floats:
    """Standard normal noise of which the first two parameters correlate by rho."""
    noise = rng.normal(size=shape)
    noise[..., 1] = rho * noise[..., 0] + np.sqrt(1.0 - rho**2) * noise[..., 1]
    return noise


def signs_of_three(rng: Rng, shape: tuple[int, ...]) -> Floats:
    """Standard normal noise, pairwise independent, with a positive product of the first three parameters."""
    noise = rng.normal(size=shape)
    noise[..., 2] = np.abs(noise[..., 2]) * np.sign(noise[..., 0] * noise[..., 1])
    return noise


def first(values: Floats, changed: Floats) -> Floats:
    """The values with the first parameter changed."""
    return np.concatenate([changed[..., :1], values[..., 1:]], axis=-1)


Case = tuple[Floats, Floats, Floats]
"""m, and noise of truth and draws: truth = m + noise, (n, 1, dim), draws = m + noise, (n, S, dim)."""
Failure = Callable[[Rng, Floats, Floats, Floats], tuple[Floats, Floats]]
"""From m (n, 1, dim) and standard normal noise of truth and draws to other noise of both."""

FAILURES: dict[str, tuple[str, Failure]] = {
    "every sd x 0.85": ("over-confident", lambda _, m, t, d: (t, 0.85 * d)),
    "every sd x 1.15": ("under-confident", lambda _, m, t, d: (t, 1.15 * d)),
    "one sd x 0.8": ("over-confident", lambda _, m, t, d: (t, first(d, 0.8 * d))),
    "one sd x 1.25": ("under-confident", lambda _, m, t, d: (t, first(d, 1.25 * d))),
    "one mean + 0.3 sd": ("biased", lambda _, m, t, d: (t, first(d, d + 0.3))),
    "every mean + 0.15 sd": ("biased", lambda _, m, t, d: (t, d + 0.15)),
    "a mode of 10 % is missing": (
        "any",
        lambda r, m, t, d: (first(t, t + 8.0 * (r.random(t.shape) < 0.1)), d),
    ),
    "truth t, 3 d.f., draws normal": (
        "any",
        lambda r, m, t, d: (r.standard_t(3, size=t.shape) / np.sqrt(3.0), d),
    ),
    "truth normal, draws t, 3 d.f.": (
        "any",
        lambda r, m, t, d: (t, r.standard_t(3, size=d.shape) / np.sqrt(3.0)),
    ),
    "truth exponential, draws normal": ("any", lambda r, m, t, d: (r.exponential(size=t.shape) - 1.0, d)),
    "truth correlates by 0.6, draws not": (
        "miscalibrated",
        lambda r, m, t, d: (correlated(r, t.shape, 0.6), d),
    ),
    "draws correlate by 0.6, truth not": (
        "miscalibrated",
        lambda r, m, t, d: (t, correlated(r, d.shape, 0.6)),
    ),
    "correlation of 0.6 flipped": (
        "miscalibrated",
        lambda r, m, t, d: (correlated(r, t.shape, 0.6), correlated(r, d.shape, -0.6)),
    ),
    "product of three signs": ("miscalibrated", lambda r, m, t, d: (signs_of_three(r, t.shape), d)),
    "truth of a common scale, draws not": (
        "miscalibrated",
        lambda r, m, t, d: (
            t / np.sqrt(r.gamma(1.5, size=t[..., :1].shape)),
            d / np.sqrt(r.gamma(1.5, size=d.shape)),
        ),
    ),
    "sd x 1.4 or 0.7, by the data": (
        "miscalibrated",
        lambda _, m, t, d: (t, d * np.where(m[..., :1] > 0.0, 1.4, 0.7)),
    ),
    "sd x 1.4 or 0.7, by chance": (
        "miscalibrated",
        lambda r, m, t, d: (t, d * np.where(r.random((len(m), 1, 1)) < 0.5, 1.4, 0.7)),
    ),
    "mean + or - 0.3 sd, by the data": (
        "miscalibrated",
        lambda _, m, t, d: (t, d + 0.3 * np.sign(m[..., :1])),
    ),
    "correlation + or - 0.6, by the data": (
        "miscalibrated",
        lambda r, m, t, d: (
            correlated(r, t.shape, 0.6) * np.where(np.arange(m.shape[2]) == 1, np.sign(m[..., :1]), 1.0),
            d,
        ),
    ),
}


def failing(failure: str, dim: int, n: int, seed: int, num_draws: int = 500) -> tuple[Floats, Floats, Floats]:
    """Draws (n, num_draws, dim), true values (n, dim), and data (n, dim)."""
    rng = generator(seed, "failures of verdicts", failure, dim)
    m, of_truth, of_draws = (
        rng.normal(size=(n, 1, dim)),
        rng.normal(size=(n, 1, dim)),
        rng.normal(size=(n, num_draws, dim)),
    )
    if failure == IGNORANCE:
        prior = np.sqrt(2.0) * of_draws
        return np.where(rng.random((n, 1, 1)) < 0.5, prior, m + of_draws), (m + of_truth)[:, 0], m[:, 0]
    of_truth, of_draws = FAILURES[failure][1](rng, m, of_truth, of_draws)
    return m + of_draws, (m + of_truth)[:, 0], m[:, 0]


IGNORANCE = "the prior for half of the data, by chance"
COLUMNS = [(n, dim) for dim in (3, 10, 20) for n in (100, 500)]
SHARES = {3: 1.0, 10: 0.6, 20: 0.4}
"""Of the seeds, by dimension."""


def power(seeds: int) -> None:
    """How often each failure is found."""
    titles = " | ".join(f"n = {n}, {dim} par." for n, dim in COLUMNS)
    print(f"| failure | {titles} | words at n = 500 |\n|---|{'---|' * len(COLUMNS)}---|")
    for failure in [*FAILURES, IGNORANCE]:
        shares, words = [], Counter[str]()
        for n, dim in COLUMNS:
            found, some = 0, max(1, round(SHARES[dim] * seeds))
            for seed in range(some):
                samples, truth, data = failing(failure, dim, n, seed)
                verdict = judge(samples, truth, conditions=data if failure == IGNORANCE else None, seed=seed)
                found += verdict.label in FLAWED
                words[verdict.label] += n == 500
            shares.append(f"{found} of {some}")
        told = ", ".join(
            f"{word} {count / words.total():.0%}" for word, count in words.most_common(3) if count
        )
        print(f"| {failure} | {' | '.join(shares)} | {told} |", flush=True)


# --- words and estimates

DATA_SETS, DRAWS, NOISE = 500, 500, 0.5
CASES = {
    "exact": ("calibrated", 1.0, 0.0),
    "sd x 0.8": ("over-confident", 0.8, 0.0),
    "sd x 1.25": ("under-confident", 1.25, 0.0),
    "mean + 0.3 sd": ("biased", 1.0, 0.3),
    "prior": ("uninformative", 1.0, 0.0),
}


def problem(case: str, dim: int, seed: int) -> tuple[Floats, Floats]:
    """Draws (num_datasets, n_draws, dim) and true values (num_datasets, dim)."""
    rng = generator(seed, "benchmark of verdicts", case, dim)
    truth = rng.normal(size=(DATA_SETS, dim))
    noise = rng.normal(size=(DATA_SETS, DRAWS, dim))
    if case == "prior":
        return noise, truth
    _, width, shift = CASES[case]
    x = truth + NOISE * rng.normal(size=truth.shape)
    mean, sd = x / (1 + NOISE**2), NOISE / np.sqrt(1 + NOISE**2)
    return (mean + shift * sd)[:, None, :] + width * sd * noise, truth


def score(case: str, dim: int, seeds: int) -> str:
    """How often the verdict is right, on one line."""
    expected, width, shift = CASES[case]
    right, named, factors, biases, seconds = 0, [], [], [], 0.0
    for seed in range(seeds):
        samples, truth = problem(case, dim, seed)
        clock = time.process_time()
        verdict = judge(samples, truth, seed=seed)
        seconds += time.process_time() - clock
        right += verdict.label == expected
        named += [label == expected for label in verdict.labels.values()]
        factors += [
            (row.width_factor.value, row.width_factor.low <= 1 / width <= row.width_factor.high)
            for row in verdict.parameters
        ]
        biases += [
            (row.bias.value, row.bias.low <= shift / width <= row.bias.high) for row in verdict.parameters
        ]
    (factor, factor_held), (bias, bias_held) = np.mean(factors, axis=0), np.mean(biases, axis=0)
    return (
        f"{dim:3} parameters  {case:14} {expected:16} right {right:4} of {seeds}  named "
        f"{np.mean(named):5.1%}  factor {factor:.3f} ({factor_held:.1%})  bias {bias:+.3f} "
        f"({bias_held:.1%})  CPU s {seconds / seeds:.2f}"
    )


def words(seeds: int) -> None:
    """Score every case in 2 and in 10 parameters."""
    for dim in (2, 10):
        for case in CASES:
            print(score(case, dim, seeds), flush=True)


PARTS = {"laws": (laws, 96), "power": (power, 10), "words": (words, 50)}


def main() -> None:
    """Print the parts asked for, or all."""
    wanted = [argument for argument in sys.argv[1:] if argument in PARTS] or list(PARTS)
    seeds = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    for name in wanted:
        part, usual = PARTS[name]
        part(seeds[0] if seeds else usual)


if __name__ == "__main__":
    main()
