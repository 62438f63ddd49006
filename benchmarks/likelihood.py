"""Accuracy of learned likelihoods and their posteriors: exact densities, conjugate posteriors, references.

    python benchmarks/likelihood.py gaussian
    python benchmarks/likelihood.py exponential|poisson|bernoulli [--steps 8000]
    python benchmarks/likelihood.py drift_diffusion [--steps 8000] [--approximator FILE] [--ranks 200]
    python benchmarks/likelihood.py two_moons|slcp [--budget 10000]

Each run trains once and prints one line of JSON for each figure; errors of posterior means are in exact
standard deviations. `two_moons` and `slcp` are scored against the reference draws of the package sbibm
(classifier two-sample test, mlp), which `quality.py` downloads. `drift_diffusion` keeps what it has
trained in a file, and takes it from there another time.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import drift_diffusion as ddm
import numpy as np
import torch
from quality import references
from scipy import stats
from torch.distributions import Beta, Gamma, Normal

import sbi_models as bf
from sbi_models.approximators import load_approximator
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

TRIALS, DATA_SETS = (10, 100, 1000), 12
TRIALS_OF_RANKS, DRAWS_OF_RANKS, RANK_BINS = 30, 399, 20
HELD_OUT = 20_000


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


def drift_diffusion(arguments: argparse.Namespace) -> None:
    """Reaction time and choice, four parameters: against the exact density, its posterior, and by ranks."""
    simulator, names = ddm.simulator(), list(ddm.NAMES)
    roles: dict[str, Any] = {
        "parameters": names,
        "observables": ["rt", "choice"],
        "iid": "elements",
        "seed": 1,
        "progress": False,
    }
    file = arguments.approximator
    if file is not None and file.exists():
        workflow = bf.LikelihoodWorkflow(simulator, network=load_approximator(file), **roles)
    else:
        workflow = bf.LikelihoodWorkflow(simulator, **roles)
        start = time.process_time()
        workflow.fit_online(
            epochs=max(1, arguments.steps // STEPS_AN_EPOCH),
            num_batches_per_epoch=STEPS_AN_EPOCH,
            batch_size=BATCH,
        )
        told(bed="drift_diffusion", train_cpu_s=round(time.process_time() - start))
        if file is not None:
            workflow.approximator.save(file)
    test = simulator.sample(HELD_OUT, seed=77)
    theta = np.concatenate([test[name] for name in names], axis=1)
    exact = [
        ddm.log_density(theta[i : i + 1], test["rt"][i], test["choice"][i])[0, 0] for i in range(HELD_OUT)
    ]
    each = {**test, "rt": test["rt"][:, None], "choice": test["choice"][:, None]}
    difference = np.array(exact) - workflow.log_likelihood(each)
    told(
        bed="drift_diffusion",
        divergence_nats=round(float(difference.mean()), 5),
        error_of_it=round(float(difference.std() / np.sqrt(HELD_OUT)), 5),
    )
    rng = np.random.default_rng(5)
    for n in TRIALS:
        prior = simulator.sample(arguments.data_sets, seed=n)
        rt, choice = ddm.trials(np.concatenate([prior[name] for name in names], axis=1), n, rng)
        exact_ones = [ddm.reference(*one, rng) for one in zip(rt, choice, strict=True)]
        start = time.process_time()
        draws = workflow.sample(
            num_samples=DRAWS, conditions={"rt": rt[..., None], "choice": choice[..., None]}, seed=3
        )
        seconds = time.process_time() - start
        mean, sd = (np.stack([getattr(one, what) for one in exact_ones]) for what in ("mean", "sd"))
        for i, name in enumerate(names):
            column = slice(i, i + 1)
            told(trials=n, parameter=name, **errors(draws[name], mean[:, column], sd[:, column]))
        told(
            trials=n,
            **errors(np.concatenate([draws[name] for name in names], axis=2), mean, sd),
            effective_of_reference=round(min(one.effective for one in exact_ones)),
            effective=round(min(report.effective_draws for report in workflow.reports)),
            r_hat=round(max(report.r_hat or 0.0 for report in workflow.reports), 3),
            cpu_s_each=round(seconds / len(rt), 2),
        )
    if arguments.ranks:
        prior = simulator.sample(arguments.ranks, seed=9)
        theta = np.concatenate([prior[name] for name in names], axis=1)
        rt, choice = ddm.trials(theta, TRIALS_OF_RANKS, rng)
        draws = workflow.sample(
            num_samples=DRAWS_OF_RANKS, conditions={"rt": rt[..., None], "choice": choice[..., None]}, seed=4
        )
        for i, name in enumerate(names):
            ranks = (draws[name][..., 0] < theta[:, i : i + 1]).sum(axis=1)
            counts = np.bincount(ranks * RANK_BINS // (DRAWS_OF_RANKS + 1), minlength=RANK_BINS)
            uniform = stats.kstest((ranks + rng.uniform(size=len(ranks))) / (DRAWS_OF_RANKS + 1), "uniform")
            told(
                parameter=name,
                data_sets=arguments.ranks,
                p_chi_squared=round(float(stats.chisquare(counts).pvalue), 3),
                p_ks=round(float(uniform.pvalue), 3),
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
    parser.add_argument("bed", choices=["gaussian", *PRIORS, "drift_diffusion", "two_moons", "slcp"])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--approximator", type=Path)
    parser.add_argument("--data-sets", type=int, default=DATA_SETS)
    parser.add_argument("--ranks", type=int, default=200)
    parser.add_argument("--observations", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("always", TrustWarning)
    runs = {"gaussian": gaussian, "drift_diffusion": drift_diffusion, **dict.fromkeys(PRIORS, conjugate)}
    runs.get(arguments.bed, reference)(arguments)


if __name__ == "__main__":
    main()
