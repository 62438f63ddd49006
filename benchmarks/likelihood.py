"""Accuracy of learned likelihoods and their posteriors: exact densities, conjugate posteriors, references.

    python benchmarks/likelihood.py gaussian
    python benchmarks/likelihood.py exponential|poisson|bernoulli [--steps 8000]
    python benchmarks/likelihood.py two_moons|slcp [--budget 10000]

Each run trains once and prints one line of JSON for each figure; errors of posterior means are in exact
standard deviations. `two_moons` and `slcp` are scored against the reference draws of the package sbibm
(classifier two-sample test, mlp), which `quality.py` downloads.
"""

import argparse
import json
import time
import warnings
from typing import Any

import numpy as np
import torch
from quality import references
from scipy import stats
from torch.distributions import Beta, Gamma, Normal

import sbi_models as bf
from sbi_models.diagnostics import c2st_of_each
from sbi_models.errors import TrustWarning
from sbi_models.simulators import benchmarks

NUMBERS = (1, 10, 100, 1000)
QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles of a prior at which the truth of a data set lies."""

PRIORS = {
    "exponential": [(2.0, 1.0), (4.0, 1.0), (1.0, 0.3), (9.0, 6.0)],
    "poisson": [(2.0, 0.5), (4.0, 1.0), (1.0, 0.3), (9.0, 3.0)],
    "bernoulli": [(1.0, 1.0), (4.0, 2.0), (0.7, 0.7), (2.0, 8.0)],
}
"""Arguments of priors of each bed, Gamma or Beta; the first is that of the simulations."""

STEPS_AN_EPOCH, BATCH = 1000, 1024
DRAWS = 4000


def told(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def errors(draws: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> dict[str, float]:
    """Errors of means in exact sds, and of sds as shares, of draws (n, S, d)."""
    of_means, of_sds = (draws.mean(axis=1) - mean) / sd, draws.std(axis=1) / sd - 1
    return {
        "mean_rms": round(float(np.sqrt((of_means**2).mean())), 4),
        "mean_worst": round(float(np.abs(of_means).max()), 4),
        "sd_rms": round(float(np.sqrt((of_sds**2).mean())), 4),
        "sd_worst": round(float(np.abs(of_sds).max()), 4),
    }


def gaussian(_: argparse.Namespace) -> None:
    """Linear Gaussian in ten dimensions, 10 000 simulations: theta ~ N(0, 0.1), x ~ N(theta, 0.1)."""
    d, sd = 10, np.sqrt(0.1)

    def observe(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": theta + sd * rng.normal(size=theta.shape)}

    simulator = bf.make_simulator([{"theta": Normal(0.0, sd).expand((d,))}, observe], is_batched=True)
    workflow = bf.LikelihoodWorkflow(simulator, parameters="theta", observables="x", seed=1, progress=False)
    start = time.process_time()
    workflow.fit_offline(simulator.sample(10_000, seed=1))
    trained = time.process_time() - start
    test = simulator.sample(1000, seed=2)
    exact = stats.norm.logpdf(test["x"], test["theta"], sd).sum(axis=1)
    difference = exact - workflow.log_likelihood(test)
    start = time.process_time()
    x = test["x"][:10]
    draws = workflow.sample(num_samples=DRAWS, conditions={"x": x}, seed=3)["theta"]
    told(
        bed="gaussian",
        log_likelihood_mean=round(float(difference.mean()), 4),
        **errors(draws, x / 2, np.full_like(x, np.sqrt(0.05))),
        train_cpu_s=round(trained),
        sample_cpu_s=round(time.process_time() - start),
    )


def conjugate(arguments: argparse.Namespace) -> None:
    """One training on single elements, then posteriors for all numbers of elements and priors."""
    bed = arguments.bed
    law = Beta if bed == "bernoulli" else Gamma
    frozen = stats.beta if bed == "bernoulli" else lambda a, b: stats.gamma(a, scale=1 / b)
    draw = {
        "exponential": lambda p, rng, size: rng.exponential(1 / p, size=size),
        "poisson": lambda p, rng, size: rng.poisson(p, size=size).astype(float),
        "bernoulli": lambda p, rng, size: rng.binomial(1, p, size=size).astype(float),
    }[bed]

    def exact(a: float, b: float, x: np.ndarray) -> Any:
        total, n = x.sum(), len(x)
        more = {"exponential": (n, total), "poisson": (total, n), "bernoulli": (total, n - total)}[bed]
        return frozen(a + more[0], b + more[1])

    def observe(p: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": draw(p, rng, p.shape)}

    simulator = bf.make_simulator([{"p": law(*PRIORS[bed][0])}, observe], is_batched=True, block_size=4096)
    workflow = bf.LikelihoodWorkflow(
        simulator, parameters="p", observables="x", iid="elements", seed=1, progress=False
    )
    start = time.process_time()
    workflow.fit_online(
        epochs=max(1, arguments.steps // STEPS_AN_EPOCH),
        num_batches_per_epoch=STEPS_AN_EPOCH,
        batch_size=BATCH,
    )
    told(bed=bed, train_cpu_s=round(time.process_time() - start))
    rng = np.random.default_rng(5)
    for n in NUMBERS:
        for k, prior in enumerate(PRIORS[bed]):
            x = np.stack([draw(p, rng, n) for p in frozen(*prior).ppf(QUANTILES)])
            posteriors = [exact(*prior, one) for one in x]
            mean, sd = (np.array([[getattr(one, what)()] for one in posteriors]) for what in ("mean", "std"))
            start = time.process_time()
            draws = workflow.sample(
                num_samples=DRAWS, conditions={"x": x[..., None]}, prior=law(*prior) if k else None, seed=3
            )
            told(
                bed=bed,
                elements=n,
                prior=prior,
                **errors(draws["p"], mean, sd),
                r_hat=round(max(report.r_hat or 0.0 for report in workflow.reports), 3),
                cpu_s=round(time.process_time() - start, 1),
            )


def reference(arguments: argparse.Namespace) -> None:
    """C2ST (mlp) against reference draws; the prior of both beds is uniform."""
    model = benchmarks.BENCHMARKS[arguments.bed]
    simulator = model.simulator
    prior = torch.distributions.Uniform(torch.as_tensor(model.lower), torch.as_tensor(model.upper))
    workflow = bf.LikelihoodWorkflow(
        simulator, parameters="theta", observables="x", prior=prior, seed=1, progress=False
    )
    start = time.process_time()
    workflow.fit_offline(simulator.sample(arguments.budget, seed=1))
    told(bed=arguments.bed, train_cpu_s=round(time.process_time() - start))
    pairs = [references(arguments.bed, number) for number in arguments.observations]
    x = np.concatenate([observed for observed, _ in pairs])
    start = time.process_time()
    draws = workflow.sample(num_samples=arguments.draws, conditions={"x": x}, seed=3)["theta"]
    scores = c2st_of_each([theta[: arguments.draws] for _, theta in pairs], list(draws), "mlp", seed=1)
    told(
        bed=arguments.bed,
        observations=arguments.observations,
        c2st_mlp=[round(float(score), 3) for score in scores],
        r_hat=[round(report.r_hat or 0.0, 3) for report in workflow.reports],
        effective=[round(report.effective_draws) for report in workflow.reports],
        cpu_s=round(time.process_time() - start),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bed", choices=["gaussian", *PRIORS, "two_moons", "slcp"])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--observations", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("always", TrustWarning)
    bed = arguments.bed
    (gaussian if bed == "gaussian" else conjugate if bed in PRIORS else reference)(arguments)


if __name__ == "__main__":
    main()
