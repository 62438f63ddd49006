"""Composed posteriors against exact ones, for 1 to 1 000 items, with and without the simulator.

    python benchmarks/composition.py BED [BED ...] | all  [--prior function|torch|both] [--items 1 3 10 100
    1000] [--data-sets 8] [--only simulator|none] [--likelihood 0] [--steps 1560] [--simulations 20000]
        [--seed 1] [--data-seed 1] [--networks FOLDER] [--verbose]

Networks are trained with the defaults of `CompositionalWorkflow` and kept in the folder; --train-only makes
them and stops. A prior that is a function is known by its draws alone, so its score is the one that the
network has learned.

    bernoulli    theta ~ Beta(2, 2), items 0 or 1
    exponential  rate ~ Gamma(3, 1), items are times
    poisson      rate ~ Gamma(3, 1), items are counts
    categorical  p ~ Dirichlet(2, 2, 2), items one of three; as a function, the first two of p
    simplex      the same, and the function gives all three of p
    nig          variance ~ InverseGamma(3, 2), mean ~ N(0, variance), items 5 normals each; the torch prior
                 gives the variance, a function the mean
    pareto       theta ~ Pareto of scale 1 and shape 3, items uniform on [0, theta]
    regression   theta ~ N(0, I_5), items a design point x ~ N(0, I_5) and y = x theta + 0.5 z
    student      location ~ N(0, 1), log scale ~ N(0, 0.5), items Student-t with 4 degrees of freedom; exact
                 by a grid
    bimodal      theta ~ N(0.5, 1), items theta^2 + 0.5 z; exact by a grid; the last column is the largest
                 error of P(theta > 0)
    normal       mean and log variance of 20 observations, prior N(0, I_2)
    uniform      the same, uniform on [-2, 2]^2; exact by a grid
    linear       theta ~ N(0, I_5), items N(M theta, 0.5 I_5)
    analytic     theta ~ N(0, I_4), items N(theta, S) with eigenvalues 0.1, 0.5, 2, 4 of S; exact scores, no
                 network
    noisy        the same, with errors of the scores at noise s: 0.002 / s shared by all items, and 0.01 / s
                 independent for each

Each line: DM, the error of the posterior mean in exact sds (rms over parameters; mean and largest over data
sets); SDR, the geometric mean of the sd ratios (mean, smallest, largest); network evaluations for each item;
seconds of CPU time for each data set; how many data sets were warned of, a refused one among them; missed: DM
> 1 and no warning; for nothing: DM < 0.2 and a warning; impossible: how many rows the likelihood was called
with whose parameters the prior cannot give (all 256 of a block where its parameters are fixed). An
exclamation mark is where DM or SDR is outside of the goal. Moments are those of raw parameters; errors hold
the scatter of 1 000 draws, 0.03 in DM and 0.02 in SDR. Data sets are drawn from the prior, and are the same
for both forms of it. The last lines sum warnings up.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from composition_beds import BEDS
from composition_training import NETWORKS, approximator_of, likelihood_of, workflows_of

from sbi_models.errors import SbiModelsError, TrustWarning

EXACT_SCORES = ("analytic", "noisy")
GOALS = {1: 0.15, 3: 0.15, 10: 0.2, 100: 0.25, 1000: 0.4}
"""Largest mean DM by the number of items."""


@dataclass(frozen=True)
class Answer:
    """Result of one data set: errors in exact sds and sd ratios, (d,) each, and warnings.

    There are no numbers if the data set is refused.
    """

    errors: np.ndarray
    ratios: np.ndarray
    words: tuple[str, ...] = ()
    evaluations: float = math.nan
    wrong_weight: float = math.nan
    report: dict | None = None
    failure: str = ""
    """"refused" for an error of the package, "crashed" for any other one."""

    @property
    def dm(self) -> float:
        dm = math.sqrt(np.mean(self.errors**2))
        return dm if self.failure or math.isfinite(dm) else math.inf

    @property
    def sdr(self) -> float:
        return math.exp(np.mean(np.log(np.maximum(self.ratios, 1e-300))))

    @property
    def warned(self) -> bool:
        return bool(self.words) and self.failure != "crashed"

    @property
    def is_missed(self) -> bool:
        return self.dm > 1 and not self.warned

    @property
    def is_needless(self) -> bool:
        return self.dm < 0.2 and self.warned


def trained_answer(bed, networks, n: int, row: int, arguments: argparse.Namespace) -> Answer:
    """Compose one data set of a bed with a trained workflow, and a learned likelihood or None."""
    workflow, likelihood = networks
    items = bed.data_set(n, np.random.default_rng([arguments.data_seed, n, row]))
    exact = bed.exact(items)
    drawn, (report,) = workflow.compositional_sample(
        num_samples=arguments.draws,
        conditions={name: value[None] for name, value in items.items()},
        seed=row,
        likelihood=likelihood,
        return_diagnostics=True,
    )
    draws = np.concatenate([drawn[name][0] for name in bed.names], axis=-1)
    mean, sd = exact.mean[: draws.shape[1]], exact.sd[: draws.shape[1]]
    wrong = math.nan if not bed.two_modes else abs(float((draws[:, 0] > 0).mean()) - exact.positive)
    return Answer(
        (draws.mean(axis=0) - mean) / sd,
        draws.std(axis=0) / sd,
        report.warnings,
        report.evaluations,
        wrong,
        report.as_dict(),
    )


def analytic_answer(bed, n: int, row: int, simulator: bool, arguments: argparse.Namespace) -> Answer:
    """Compose one data set of Gaussian items without a network."""
    away, report = bed.run(n, arguments.data_seed * 1000 + row, simulator, arguments.draws)
    return Answer(
        away.mean(axis=0), away.std(axis=0), report.warnings, report.evaluations, report=report.as_dict()
    )


def answers(compose, number: int) -> Iterator[Answer]:
    """Results of all data sets, refused ones included; warnings outside of a report count as well."""
    nothing = np.full(1, math.nan)
    for row in range(number):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                answer = compose(row)
            except SbiModelsError as error:
                answer = Answer(nothing, nothing, (f"{type(error).__name__}: {error}",), failure="refused")
            except Exception as error:  # noqa: BLE001 - that it crashes is a result, too
                answer = Answer(nothing, nothing, (f"{type(error).__name__}: {error}",), failure="crashed")
        told = tuple(str(warning.message) for warning in caught if issubclass(warning.category, TrustWarning))
        yield answer if answer.words or not told else replace(answer, words=told)


def line_of(found: list[Answer], n: int) -> str:
    """One line about all data sets of a cell."""
    given = [answer for answer in found if not answer.failure]
    failures = [answer.failure for answer in found if answer.failure]
    parts = []
    if given:
        dms, sdrs = [answer.dm for answer in given], [answer.sdr for answer in given]
        dm, sdr = np.mean(dms), np.mean(sdrs)
        far = "!" if not dm <= GOALS.get(n, math.inf) else " "
        wide = "!" if not 0.9 <= sdr <= 1.1 else " "
        parts.append(
            f"DM {dm:6.3f}{far} (max {max(dms):5.2f})  SDR {sdr:5.3f}{wide} ({min(sdrs):.2f} {max(sdrs):.2f})"
        )
        parts.append(f"evaluations {np.mean([answer.evaluations for answer in given]):4.0f}")
    parts.append(f"warned {sum(answer.warned for answer in found)}/{len(found)}")
    parts += [f"{failures.count(kind)} {kind}" for kind in ("refused", "crashed") if kind in failures]
    missed, needless = sum(answer.is_missed for answer in found), sum(answer.is_needless for answer in found)
    parts += [
        f"{number} {kind}" for number, kind in ((missed, "missed"), (needless, "for nothing")) if number
    ]
    wrong = [answer.wrong_weight for answer in given if not math.isnan(answer.wrong_weight)]
    returned = [answer.report.get("returned") for answer in given]
    if any(returned):
        parts.append(f"likelihood returned {returned.count('likelihood')}/{len(returned)}")
    return "  ".join(parts + ([f"P(theta > 0) off by {max(wrong):.3f}"] if wrong else []))


def cells(name: str, arguments: argparse.Namespace, training: dict[str, int]):
    """Cells of a bed: prior, simulator or not, and the function of (number of items, data set) that composes.

    The bed comes with each cell, or None.
    """
    modes = [mode for mode in (True, False) if arguments.only in (None, "simulator" if mode else "none")]
    if name in EXACT_SCORES:
        from composition_analytic import BEDS as analytic

        for mode in modes:
            yield (
                "exact",
                mode,
                None,
                lambda n, row, mode=mode: analytic_answer(analytic[name], n, row, mode, arguments),
            )
        return
    for prior in ("function", "torch") if arguments.prior == "both" else (arguments.prior,):
        if (name, prior) == ("simplex", "torch"):
            continue  # which is categorical
        if arguments.train_only:
            approximator_of(arguments.networks, name, prior, **training)
            continue
        bed, workflows = BEDS[name], workflows_of(arguments.networks, name, prior, **training)
        likelihood = None
        if arguments.likelihood:
            likelihood = likelihood_of(
                arguments.networks, name, prior, steps=arguments.likelihood, seed=arguments.seed
            )
        for mode in modes:
            yield (
                prior,
                mode,
                bed,
                lambda n, row, mode=mode, bed=bed, own=workflows, beside=likelihood: trained_answer(
                    bed, (own[mode], beside), n, row, arguments
                ),
            )


def summary(found: list[Answer]) -> str:
    """Relation of warnings and errors over all data sets."""
    given = [answer for answer in found if not answer.failure]
    return (
        f"{len(found)} data sets: DM > 1 in {sum(answer.dm > 1 for answer in given)}, of which "
        f"{sum(answer.is_missed for answer in given)} not warned; DM < 0.2 in "
        f"{sum(answer.dm < 0.2 for answer in given)}, of which "
        f"{sum(answer.is_needless for answer in given)} warned; "
        f"{sum(answer.failure == 'refused' for answer in found)} refused, "
        f"{sum(answer.failure == 'crashed' for answer in found)} crashed"
    )


def main() -> None:
    """Run the beds of the command line."""
    torch.set_num_threads(1)
    known = [*BEDS, *EXACT_SCORES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("beds", nargs="+", choices=[*known, "all"])
    parser.add_argument("--prior", choices=["function", "torch", "both"], default="both")
    parser.add_argument("--items", nargs="+", type=int, default=[1, 3, 10, 100, 1000])
    parser.add_argument("--data-sets", type=int, default=8)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", choices=["simulator", "none"])
    parser.add_argument("--steps", type=int, default=1560)
    parser.add_argument("--simulations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="of the training")
    parser.add_argument("--data-seed", type=int, default=1, help="of parameters and items of the data sets")
    parser.add_argument("--networks", type=Path, default=NETWORKS, help="folder of trained networks")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument(
        "--likelihood",
        type=int,
        default=0,
        help="steps of 1 024 simulations of a learned likelihood, which is composed beside; 0: none",
    )
    parser.add_argument(
        "--reports",
        type=Path,
        help="file that a line of JSON is added to for each data set: errors and the whole report",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="DM, SDR and the words for each data set, not for failures alone",
    )
    arguments = parser.parse_args()
    training = {"steps": arguments.steps, "simulations": arguments.simulations, "seed": arguments.seed}
    everything: dict[tuple[str, bool], list[Answer]] = {}
    for name in known if "all" in arguments.beds else arguments.beds:
        for prior, simulator, bed, compose in cells(name, arguments, training):
            for n in [] if arguments.train_only else arguments.items:
                clock = time.process_time()
                before = 0 if bed is None else bed.num_impossible
                found = list(answers(lambda row, n=n, compose=compose: compose(n, row), arguments.data_sets))
                seconds = (time.process_time() - clock) / len(found)
                impossible = 0 if bed is None else bed.num_impossible - before
                print(
                    f"{name:12}{prior:9}{'simulator' if simulator else '-':10} n {n:<5} "
                    f"{line_of(found, n)}  CPU s {seconds:.1f}"
                    + (f"  impossible {impossible}" if impossible else ""),
                    flush=True,
                )
                for row, answer in enumerate(found if arguments.reports else []):
                    cell = {
                        "bed": name,
                        "prior": prior,
                        "simulator": simulator,
                        "items": n,
                        "data_set": row,
                        "dm": answer.dm,
                        "sdr": answer.sdr,
                    }
                    with arguments.reports.open("a") as file:
                        file.write(
                            json.dumps(cell | {"failure": answer.failure, "report": answer.report}) + "\n"
                        )
                for row, answer in enumerate(found):
                    if not arguments.verbose and not answer.failure:
                        continue
                    said = f"{answer.failure}: " * bool(answer.failure) + (
                        " ".join(answer.words) or "no word"
                    )
                    print(f"    {row}  DM {answer.dm:.2f}  SDR {answer.sdr:.2f}  {said}", flush=True)
                everything.setdefault((prior, simulator), []).extend(found)
    for (prior, simulator), found in everything.items():
        print(f"prior {prior}, {'with' if simulator else 'without'} the simulator, {summary(found)}")


if __name__ == "__main__":
    main()
