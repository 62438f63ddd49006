"""Is the verdict right? Posteriors whose flaws are known, judged over and over.

    python benchmarks/verdict.py [SEEDS]

theta ~ Normal(0, I), x ~ Normal(theta, 0.25 I), in 2 and in 10 parameters: the exact posterior, the same with sds of 0.8 and of 1.25, the
same moved by 0.3 sds, and the prior in its place. 500 data sets of 500 draws each, 100 seeds (default) for every case:

    right       seeds in which the verdict has the right word       (asked: at least 95 of 100)
    named       parameters that have the right word, on average
    factor      estimated width factor of a parameter: mean, and how often the 95 % interval holds the true one
    bias        the same of the bias in posterior sds
    CPU s       of one verdict
"""

import sys
import time

import numpy as np
from numpy.typing import NDArray

from sbi_models.diagnostics import judge
from sbi_models.seeding import generator

DATA_SETS, DRAWS, NOISE = 500, 500, 0.5
CASES = {
    "exact": ("calibrated", 1.0, 0.0),
    "sd x 0.8": ("over-confident", 0.8, 0.0),
    "sd x 1.25": ("under-confident", 1.25, 0.0),
    "mean + 0.3 sd": ("biased", 1.0, 0.3),
    "prior": ("uninformative", 1.0, 0.0),
}


def problem(case: str, dim: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws (n_datasets, n_draws, dim) and true values (n_datasets, dim)."""
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
        factors += [(row.width_factor.value, row.width_factor.low <= 1 / width <= row.width_factor.high) for row in verdict.parameters]
        biases += [(row.bias.value, row.bias.low <= shift / width <= row.bias.high) for row in verdict.parameters]
    (factor, factor_held), (bias, bias_held) = np.mean(factors, axis=0), np.mean(biases, axis=0)
    return (
        f"{dim:3} parameters  {case:14} {expected:16} right {right:4} of {seeds}  named {np.mean(named):5.1%}  "
        f"factor {factor:.3f} ({factor_held:.1%})  bias {bias:+.3f} ({bias_held:.1%})  CPU s {seconds / seeds:.2f}"
    )


def main() -> None:
    """Score every case in 2 and in 10 parameters."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for dim in (2, 10):
        for case in CASES:
            print(score(case, dim, seeds), flush=True)


if __name__ == "__main__":
    main()
