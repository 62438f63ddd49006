"""Certificates: power against misspecified simulators, and false alarms by law and size of a set.

    python benchmarks/certificate.py [DATA_SETS [SEED ...]]
    python benchmarks/certificate.py alarms [CALIBRATIONS [LAW ...]]

theta ~ Normal(0, I), x_i ~ Normal(theta_0, exp(theta_1 / 2)), i = 1..20. Parameters of observations are drawn
from the prior, their data from a likelihood with one thing changed, in units of the noise's sd where it says
sd. Columns, shares of DATA_SETS observations (500):

    approximator   what needs no simulator: p-value of the certificate at most 0.05
    workflow       with posterior predictive checks: the same
    weights        importance weights by the model's own likelihood that fail the certificate
                   (next to it, the median effective share)

Asked of the model: at most 0.05 plus sampling error. Asked of those marked *: more than 0.9. Of the others,
some differ from the model by what the parameters are there for: a shift of all noise by 1 is another theta_0
and a larger variance another theta_1, as likely as others before seeing data; no test of data alone can tell
them apart. The rest is what twenty observations show of a change that is small.

False alarms: sets of 3, 4 or 5 elements, of 2 to 40, or all of 10, of continuous, discrete and tied laws,
with a mask where sizes vary. A network is trained once for each law; then what is usual is learned from 6000
new simulations, CALIBRATIONS times (10), and 500 new observations of each of some sizes are certified each
time, by the approximator, and 50 by the workflow with its predictive check (of 20 replicates). Rows give the
shares with p <= 0.05 and their standard errors over calibrations. Asked: 4 to 6 % of each size. Of data of
which there are so few that more than a tenth of the simulations are equal, as pairs of zeros and ones, fewer
fail, or none; see `ranks.LARGEST_LOT`.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from sbi_models import BasicWorkflow, make_simulator, seeding
from sbi_models.approximators import Certificate
from sbi_models.simulators.benchmarks.normal import NormalModel

EPOCHS, BATCHES, BATCH_SIZE = 5, 100, 128
LENGTH = 20
LATE = np.arange(LENGTH) >= LENGTH // 2

Noise = np.ndarray


def with_outliers(noise: Noise, rng: np.random.Generator) -> Noise:
    """A tenth of the observations at 5 to 10 sds to either side."""
    where = rng.permuted(np.broadcast_to(np.arange(LENGTH) < LENGTH // 10, noise.shape), axis=1)
    return noise + where * rng.uniform(5, 10, noise.shape) * rng.choice([-1, 1], noise.shape)


def correlated(noise: Noise) -> Noise:
    """Stationary noise with a correlation of 0.8 from one observation to the next."""
    series = noise.copy()
    for t in range(1, LENGTH):
        series[:, t] = 0.8 * series[:, t - 1] + 0.6 * noise[:, t]
    return series


CASES: dict[str, Callable[[Noise, np.random.Generator], Noise]] = {
    "the model": lambda e, rng: e,
    "* noise of the late half shifted by 3 sd": lambda e, rng: e + 3 * LATE,
    "* outliers: a tenth at 5 to 10 sd": with_outliers,
    "* variance times 100 (beyond the prior)": lambda e, rng: 10 * e,
    "* variance by 100 (beyond the prior)": lambda e, rng: 0.1 * e,
    "* variance of the late half times 25": lambda e, rng: np.where(LATE, 5 * e, e),
    "noise of the late half shifted by 2 sd": lambda e, rng: e + 2 * LATE,
    "noise drifts by 4 sd": lambda e, rng: e + 4 * np.linspace(0, 1, LENGTH),
    "variance of the late half times 16": lambda e, rng: np.where(LATE, 4 * e, e),
    "skewed noise: exponential": lambda e, rng: rng.exponential(size=e.shape) - 1,
    "skewed noise: log-normal": lambda e, rng: (np.exp(e) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
    "noise with a correlation of 0.8": lambda e, rng: correlated(e),
    "heavy tails: Student's t with 3": lambda e, rng: rng.standard_t(3, size=e.shape),
    "variance times 2.7 (another theta_1)": lambda e, rng: np.exp(0.5) * e,
}

SHIFTS = {"* all noise shifted by 5 (beyond the prior)": 5.0, "all noise shifted by 1 (another theta_0)": 1.0}


def observations(case: str, number: int, seed: int) -> Noise:
    """x of shape (number, 20, 1)."""
    rng = seeding.generator(seed, "misspecified", case)
    theta = rng.normal(size=(number, 2))
    noise = CASES.get(case, CASES["the model"])(rng.normal(size=(number, LENGTH)), rng)
    return (theta[:, :1] + SHIFTS.get(case, 0.0) + np.exp(theta[:, 1:] / 2) * noise)[:, :, None]


def trained(seed: int) -> BasicWorkflow:
    """A workflow on the model."""
    workflow = BasicWorkflow(
        NormalModel().simulator,
        inference_variables="theta",
        summary_variables="x",
        inference_network="coupling_flow",
        summary_network="deep_set",
        standardize="all",
        initial_learning_rate=2e-3,
        seed=seed,
        progress=False,
    )
    workflow.fit_online(epochs=EPOCHS, num_batches_per_epoch=BATCHES, batch_size=BATCH_SIZE)
    return workflow


def flagged(certificates: list[Certificate]) -> float:
    """Share of p-values at or below the nominal false alarm rate."""
    return float(np.mean([c.p_value is not None and c.p_value <= c.level for c in certificates]))


LAWS: dict[str, Callable[[Noise, np.random.Generator], Noise]] = {
    "normal": lambda theta, rng: theta + rng.normal(size=(len(theta), MOST)),
    "Poisson": lambda theta, rng: rng.poisson(np.exp(theta), size=(len(theta), MOST)).astype(float),
    "Bernoulli": lambda theta, rng: (rng.uniform(size=(len(theta), MOST)) < 1 / (1 + np.exp(-theta))).astype(
        float
    ),
    "rounded to halves": lambda theta, rng: np.round(2 * (theta + rng.normal(size=(len(theta), MOST)))) / 2,
    "two in three are zero": lambda theta, rng: (
        np.exp(theta)
        * rng.exponential(size=(len(theta), MOST))
        * (rng.uniform(size=(len(theta), MOST)) < 1 / 3)
    ),
    "Cauchy": lambda theta, rng: theta + rng.standard_cauchy(size=(len(theta), MOST)),
}
"""Elements of sets (n, 40) given theta (n, 1)."""

MOST = 40
SIZES = {
    "3 to 5": ((3, 4, 5), (3, 4, 5)),
    "2 to 40": (tuple(range(2, 41)), (2, 3, 8, 20, 40)),
    "10": ((10,), (10,)),
}
"""Sizes of simulated sets, equally frequent, and tested sizes."""

MASKED = "there"


def sets(
    law: str, sizes: tuple[int, ...]
) -> tuple[Callable[..., dict[str, Noise]], Callable[..., dict[str, Noise]]]:
    """Prior and likelihood of sets of a law; elements beyond the size are 0 and masked."""

    def prior(batch_size: int, rng: np.random.Generator) -> dict[str, Noise]:
        return {"theta": rng.normal(size=(batch_size, 1))}

    def likelihood(theta: Noise, rng: np.random.Generator) -> dict[str, Noise]:
        size = rng.choice(sizes, size=(len(theta), 1))
        longest = max(sizes)
        there = np.arange(longest) < size
        return {"x": (LAWS[law](theta, rng)[:, :longest] * there)[:, :, None], MASKED: there.astype(float)}

    return prior, likelihood


def false_alarms(law: str, kind: str, calibrations: int, seed: int = 1) -> None:
    """Print a row for each size."""
    simulated, asked = SIZES[kind]
    simulator = make_simulator(list(sets(law, simulated)), is_batched=True)
    workflow = BasicWorkflow(
        simulator,
        inference_variables="theta",
        summary_variables="x",
        summary_mask=MASKED if len(simulated) > 1 else None,
        inference_network="coupling_flow",
        summary_network="deep_set",
        initial_learning_rate=2e-3,
        seed=seed,
        progress=False,
    )
    workflow.fit_online(epochs=1, num_batches_per_epoch=100, batch_size=128)
    observed = [make_simulator(list(sets(law, (size,))), is_batched=True) for size in asked]
    shares = np.empty((2, len(asked), calibrations))
    for i in range(calibrations):
        workflow.approximator.learn_certificate(
            simulator.sample(6000, seed=1000 + i, progress=False), None, seed=i
        )
        for k, exact in enumerate(observed):
            data = padded(exact.sample(500, seed=5000 + i, progress=False), max(simulated))
            shares[0, k, i] = flagged(workflow.approximator.certify(data, seed=i))
            some = {name: value[:50] for name, value in data.items()}
            shares[1, k, i] = flagged(workflow.certify(some, num_replicates=20, seed=i))
    errors = shares.std(axis=2, ddof=1) / np.sqrt(calibrations)
    for k, size in enumerate(asked):
        both = "  ".join(
            f"{share:6.2%} +- {error:.2%}"
            for share, error in zip(shares[:, k].mean(axis=1), errors[:, k], strict=True)
        )
        print(f"{law:22} {kind:8} {size:4d}  {both}", flush=True)


def padded(data: dict[str, Noise], longest: int) -> dict[str, Noise]:
    """Sets with as many places as those of the training."""
    return {
        name: value
        if name == "theta"
        else np.pad(value, [(0, 0), (0, longest - value.shape[1])] + [(0, 0)] * (value.ndim - 2))
        for name, value in data.items()
    }


def powers() -> None:
    """Print the table for each seed of the training."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for seed in [int(text) for text in sys.argv[2:]] or [1]:
        clock = time.perf_counter()
        workflow = trained(seed)
        print(f"training {seed}: {time.perf_counter() - clock:.0f} s; {number} observations of each kind")
        print(f"{'':45} approximator  workflow  weights  median share")
        for case in [*CASES, *SHIFTS]:
            x = {"x": observations(case, number, seed)}
            alone = workflow.approximator.certify(x, seed=seed)
            full = workflow.certify(x, seed=seed)
            weights = np.mean([any("exact posterior" in warning for warning in c.warnings) for c in full])
            share = np.median([c.effective_sample_size for c in full])
            print(
                f"{case:45} {flagged(alone):12.3f} {flagged(full):9.3f} {weights:8.3f} {share:13.2f}",
                flush=True,
            )


def main() -> None:
    """Run the part named by the first argument."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["alarms"]:
        print(f"{'law':22} {'sizes':8} size  approximator       workflow")
        for law in sys.argv[3:] or LAWS:
            for kind in SIZES:
                false_alarms(law, kind, int(sys.argv[2]) if len(sys.argv) > 2 else 10)
    else:
        powers()


if __name__ == "__main__":
    main()
