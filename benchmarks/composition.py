"""Composed posteriors against exact ones, for 1 to 10 000 items.

    python benchmarks/composition.py BED [BED ...] [--items 3 10 100] [--data-sets 8] [--seed 1]

    analytic    theta ~ N(0, I_4), items N(theta, S) with eigenvalues 0.1, 0.5, 2, 4 of S; exact scores
    noisy       the same, with errors of the scores: 0.002 / s shared by all items and 0.01 / s of each its own, at noise s
    normal      mean and log variance of 20 observations, prior N(0, I_2); trained network, with and without the simulator at inference
    learned     the same, with the prior's score that the network has learned
    linear      theta ~ N(0, I_5), items N(M theta, 0.5 I_5)
    uniform     mean and log variance of 20 observations, uniform on [-2, 2]^2; exact by a grid
    bimodal     theta ~ N(0.5, 1), items theta^2 + 0.5 z; exact by a grid; the last columns are the error of P(theta > 0)

Each line: DM, the error of the posterior mean in exact sds (rms over parameters; mean and largest over data sets); SDR, the geometric mean
of the sd ratios (mean, smallest, largest); network evaluations for each item; seconds of CPU time for each data set. Errors hold the
scatter of 1 000 draws, 0.03 in DM and 0.02 in SDR. Parameters of data sets are drawn from the prior.
"""

import argparse
import math
import time
import warnings
from types import SimpleNamespace

import numpy as np
import torch
from torch.distributions import Independent, Uniform

import sbi_models as bf
from sbi_models import seeding
from sbi_models.approximators.composition.calibrated import calibrated
from sbi_models.approximators.composition.stages import Plan
from sbi_models.errors import TrustWarning
from sbi_models.simulators.benchmarks.normal import NormalModel

DRAWS = 1000
MODEL = NormalModel()


class Gaussians:
    """Items with Gaussian posteriors, and scores that are exact or have errors in 1 / s, smooth in theta."""

    def __init__(self, x, likelihood, errors, seed):
        self.theta_dim, self.x, self.likelihood, self.errors = x.shape[1], x, likelihood, errors
        precision = torch.linalg.inv(likelihood)
        self.eye = torch.eye(self.theta_dim).double()
        self.covariance = torch.linalg.inv(self.eye + precision)
        self.means = x @ (self.covariance @ precision).mT
        shared, own = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)
        self.waves = 0.7 * torch.randn(16, self.theta_dim, generator=shared).double()
        self.heights, self.phases = (
            torch.randn(16, self.theta_dim, generator=shared).double(),
            6.3 * torch.rand(16, generator=shared).double(),
        )
        if errors[1]:
            self.own_heights = torch.randn(len(x), 16, self.theta_dim, generator=own).double()
            self.own_phases = 6.3 * torch.rand(len(x), 16, generator=own).double()

    def __len__(self):
        return len(self.x)

    @property
    def features(self):
        return self.x[:, :0]

    def some(self, rows):
        chosen = Gaussians(self.x[rows], self.likelihood, self.errors, 0)
        if self.errors[1]:
            chosen.own_heights, chosen.own_phases = self.own_heights[rows], self.own_phases[rows]
        return chosen

    def gaussians(self):
        return self.means, self.covariance.expand(len(self), -1, -1)

    def score(self, theta, noise, rows):
        scores = -(theta - self.means[rows][:, None]) @ torch.linalg.inv(self.covariance + noise**2 * self.eye)
        if self.errors[0]:
            angles = theta @ self.waves.mT + math.log(noise)
            scores = scores + self.errors[0] / noise / 8**0.5 * torch.cos(angles + self.phases) @ self.heights
            own = torch.cos(angles + self.own_phases[rows][:, None])
            scores = scores + self.errors[1] / noise / 8**0.5 * own @ self.own_heights[rows]
        return scores


class AnalyticBed:
    """Composition of Gaussian items without any network."""

    def __init__(self, errors):
        self.errors, d = errors, 4
        axes, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0)).double())
        self.likelihood = axes @ torch.diag(torch.tensor([0.1, 0.5, 2.0, 4.0]).double()) @ axes.mT

    def data(self, theta, n, seed):
        noise = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)).double()
        return theta + noise @ torch.linalg.cholesky(self.likelihood).mT

    def run(self, n, seed, simulator):
        theta = torch.randn(4, generator=torch.Generator().manual_seed(seed)).double()
        x = self.data(theta, n, seed + 1)
        identity = torch.eye(4).double()

        def fresh(theta, number, seed):
            for start in range(0, number, 16384):
                part = seeding.derive(seed, start) >> 1
                yield Gaussians(self.data(theta, min(16384, number - start), part), self.likelihood, self.errors, part)

        plan = Plan(0.02, min(max(4000, 200 * n), 500_000), seed, (0.01, 0.02, 0.05, 0.1, 0.2))
        moments, items = (torch.zeros(4).double(), identity), Gaussians(x, self.likelihood, self.errors, seed)
        draws, report = calibrated(items, torch.neg, moments, DRAWS, plan, fresh=fresh if simulator else None)
        inverse = torch.linalg.inv(self.likelihood)
        covariance = torch.linalg.inv(identity + n * inverse)
        away = (draws - covariance @ inverse @ x.sum(0)) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).mT
        return away.numpy(), report, 0.0


class TrainedBed:
    """A trained workflow against an exact posterior: of moments, or of weights on a grid."""

    def __init__(self, workflow, exact, score=None):
        self.workflow, self.exact, self.score = workflow, exact, score

    def run(self, n, seed, simulator):
        theta = self.workflow.simulate(1, seed=1000 + seed)["theta"][0]
        x = self.workflow.simulator.sample(n, seed=seed, theta=theta)["x"]
        draws, (report,) = self.workflow.compositional_sample(
            num_samples=DRAWS,
            conditions={"x": x[None]},
            compute_prior_score=self.score,
            calibration_simulations=None if simulator else 0,
            seed=seed,
            return_diagnostics=True,
        )
        exact = self.exact(x)
        wrong = float((draws["theta"][0] > 0).mean()) - exact.positive if hasattr(exact, "positive") else 0.0
        return (draws["theta"][0] - exact.mean) / exact.sd, report, wrong


def on_grid(log_density, low, high, points=1201):
    """Moments of a density on a grid that is laid twice, the second time where the mass is."""
    for _ in range(2):
        axes = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        logs = log_density(grid)
        p = np.exp(logs - logs.max())
        p /= p.sum()
        mean = np.tensordot(p, grid, axes=p.ndim)
        sd = np.sqrt(np.tensordot(p, (grid - mean) ** 2, axes=p.ndim))
        low, high = np.maximum(low, mean - 8 * sd), np.minimum(high, mean + 8 * sd)
    return SimpleNamespace(mean=mean, sd=sd, positive=float(p[grid[..., 0] > 0].sum()))


def trained(functions, seed, epochs, **roles):
    """A workflow of batched functions, trained online."""
    simulator = bf.make_simulator(functions, is_batched=True)
    workflow = bf.CompositionalWorkflow(
        simulator, inference_variables="theta", standardize="all", initial_learning_rate=1e-3, seed=seed, **roles
    )
    workflow.fit_online(epochs=epochs, num_batches_per_epoch=200, batch_size=256)
    return workflow


def normal(seed, prior=MODEL.prior):
    """The network of two parameters of 20 normal observations."""
    return trained([prior, MODEL.likelihood], seed, 30, summary_variables="x", summary_network="deep_set")


def normal_bed(seed, learned=False):
    return TrainedBed(normal(seed), MODEL.posterior, None if learned else lambda data, t=None: {"theta": -data["theta"]})


def uniform_bed(seed):
    prior = {"theta": Independent(Uniform(torch.full((2,), -2.0), torch.full((2,), 2.0)), 1)}

    def exact(x):
        count, mean, square = x.size, x.mean(), ((x - x.mean()) ** 2).sum()

        def log_density(theta):
            return -count / 2 * theta[..., 1] - (square + count * (theta[..., 0] - mean) ** 2) / (2 * np.exp(theta[..., 1]))

        found = on_grid(log_density, np.array([-2.0, -2.0]), np.array([2.0, 2.0]))
        return SimpleNamespace(mean=found.mean, sd=found.sd)

    return TrainedBed(normal(seed, prior), exact)


def linear_bed(seed, d=5):
    matrix = np.eye(d) + 0.3 * np.random.default_rng(0).normal(size=(d, d))

    def prior(batch_size, rng):
        return {"theta": rng.normal(size=(batch_size, d))}

    def likelihood(theta, rng):
        return {"x": theta @ matrix.T + np.sqrt(0.5) * rng.normal(size=theta.shape)}

    workflow = trained([prior, likelihood], seed, 20, inference_conditions="x")

    def exact(x):
        covariance = np.linalg.inv(np.eye(d) + len(x) * matrix.T @ matrix / 0.5)
        return SimpleNamespace(mean=covariance @ matrix.T @ x.sum(0) / 0.5, sd=np.sqrt(np.diag(covariance)))

    return TrainedBed(workflow, exact, lambda data, t=None: {"theta": -data["theta"]})


def bimodal_bed(seed):
    def prior(batch_size, rng):
        return {"theta": rng.normal(0.5, 1.0, size=(batch_size, 1))}

    def likelihood(theta, rng):
        return {"x": theta**2 + 0.5 * rng.normal(size=theta.shape)}

    workflow = trained([prior, likelihood], seed, 20, inference_conditions="x")

    def exact(x):
        return on_grid(
            lambda grid: -((grid[..., 0] - 0.5) ** 2) / 2 - ((x[:, 0] - grid**2) ** 2).sum(-1) / 0.5,
            np.array([-4.0]),
            np.array([4.0]),
            4001,
        )

    return TrainedBed(workflow, exact, lambda data, t=None: {"theta": 0.5 - data["theta"]})


BEDS = {
    "analytic": lambda seed: AnalyticBed((0.0, 0.0)),
    "noisy": lambda seed: AnalyticBed((0.002, 0.01)),
    "normal": normal_bed,
    "learned": lambda seed: normal_bed(seed, learned=True),
    "linear": linear_bed,
    "uniform": uniform_bed,
    "bimodal": bimodal_bed,
}


def main() -> None:
    """Run the beds of the command line."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TrustWarning)  # their number is printed
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("beds", nargs="+", choices=BEDS)
    parser.add_argument("--items", nargs="+", type=int, default=[3, 10, 100, 1000])
    parser.add_argument("--data-sets", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["simulator", "none"])
    arguments = parser.parse_args()
    for name in arguments.beds:
        clock = time.process_time()
        bed = BEDS[name](arguments.seed)
        print(f"{name}: made in {time.process_time() - clock:.0f} CPU s", flush=True)
        modes = [True] if name in ("analytic", "noisy") else [True, False]
        for simulator in [mode for mode in modes if arguments.only in (None, "simulator" if mode else "none")]:
            for n in arguments.items:
                clock = time.process_time()
                runs = [bed.run(n, row, simulator) for row in range(arguments.data_sets)]
                seconds = (time.process_time() - clock) / len(runs)
                means = [math.sqrt((away.mean(axis=0) ** 2).mean()) for away, _, _ in runs]
                ratios = [math.exp(np.log(away.std(axis=0)).mean()) for away, _, _ in runs]
                reports = [report for _, report, _ in runs]
                wrong = max(abs(error) for _, _, error in runs)
                print(
                    f"{name:9}{'simulator' if simulator else '-':10}n {n:<6} DM {np.mean(means):.3f} (max {max(means):.2f})  "
                    f"SDR {np.mean(ratios):.3f} ({min(ratios):.3f} {max(ratios):.3f})  "
                    f"evaluations {np.mean([report.evaluations for report in reports]):.0f}  CPU s {seconds:.1f}  "
                    f"warned {sum(bool(report.warnings) for report in reports)}/{len(runs)}  noise {reports[-1].noise}  "
                    f"bias {' '.join(f'{report.bias_shift:.2f}' for report in reports)}  modes {max(r.num_modes for r in reports)}  "
                    f"R2 {min(report.explained for report in reports):.3f}"
                    + (f"  P(theta > 0) off by {wrong:.3f}" if name == "bimodal" else ""),
                    flush=True,
                )


if __name__ == "__main__":
    main()
