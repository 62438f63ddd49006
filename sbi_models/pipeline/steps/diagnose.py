"""Diagnostics and verdict on an approximator by test simulations, and on each member of an ensemble."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sbi_models import diagnostics, seeding
from sbi_models.approximators import Approximator, EnsembleApproximator
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.member_runs import of_member
from sbi_models.pipeline.outcomes import Manifest, Results
from sbi_models.tracking.names import keys_of, name_tags
from sbi_models.types import Variables
from sbi_models.workflows import EnsembleWorkflow

History = Mapping[str, list[float]]

JOINTLY = "jointly"

MEASURES = {
    "jensen_shannon": "Jensen-Shannon divergence of members [nats]",
    "energy": "energy distance between members [share]",
}


def diagnose_all(
    experiment: Experiment, approximator: Approximator, test: Variables, history: History, folder: Path
) -> Manifest:
    """Figures, metrics, log score and verdict of the approximator, and of each member of an ensemble.

    Args:
        experiment: number of draws, names of the parameters, and the real observations that members of an
            ensemble may disagree on.
        approximator: trained.
        test: simulations with their true parameters, name to (num_datasets, ...), raw space.
        history: losses by name, as the training left them.
        folder: folder for `run/`, which has the results of the approximator, and `members/NAME/`.
    """
    num_samples, seed = experiment.diagnose.num_samples, seeding.derive(experiment.seed, "diagnose")
    diagnose = Diagnosis(
        experiment, approximator.inference_names, test, seeding.derive(experiment.seed, "verdict")
    )
    results = Results(folder / "run")
    told = diagnose(
        results,
        approximator,
        approximator.sample(num_samples=num_samples, conditions=test, seed=seed),
        history,
    )
    if isinstance(approximator, EnsembleApproximator):
        draws = approximator.sample(num_samples=num_samples, conditions=test, seed=seed, merge_members=False)
        told["members"], member_keys = {}, keys_of(approximator.members)
        for name, member in approximator.members.items():
            own = Results(folder / "members" / member_keys[name])
            found = diagnose(own, member, draws[name], of_member(history, name))  # type: ignore[arg-type]
            told["members"][name] = found | own.manifest()
        if study_of(experiment).observations()[0]:
            told["disagreement"] = _disagreement(experiment, approximator, test, results)
            told["figures"] = sorted([*told["figures"], "disagreement"])
    return told | results.manifest()


def verdict_tags(verdict: Mapping[str, Any]) -> dict[str, str]:
    """The words of a verdict, `as_dict()` of it, as tags: `verdict`, `verdict.NAME` of each parameter, and
    `verdict.jointly`."""
    rows, keys = verdict["parameters"], parameter_keys(verdict["parameters"])
    tags = {"verdict": verdict["label"]} | {
        f"verdict.{keys[name]}": row["label"] for name, row in rows.items()
    }
    return tags | ({} if verdict["joint"] is None else {f"verdict.{JOINTLY}": verdict["joint"]["label"]})


def parameter_keys(names: Iterable[str]) -> dict[str, str]:
    """The key of each parameter in metrics and tags."""
    return keys_of(names, reserved=[JOINTLY])


class Diagnosis:
    """Writes figures, metrics and the verdict of one approximator to its results, and tells what the screen
    shows of them."""

    def __init__(
        self, experiment: Experiment, inference_names: tuple[str, ...], test: Variables, seed: int
    ) -> None:
        parameter_names = study_of(experiment).parameter_names
        self.test = test
        self.seed = seed
        self.truth = {name: test[name] for name in inference_names}
        self.names = [label for variable in inference_names for label in parameter_names[variable]]

    def __call__(
        self, results: Results, approximator: Approximator, draws: Variables, history: History | None = None
    ) -> Manifest:
        table = diagnostics.default_metrics(draws, self.truth, variable_names=self.names)
        conditions = {name: self.test[name] for name in approximator.condition_names}
        verdict = diagnostics.judge(
            draws, self.truth, variable_names=self.names, conditions=conditions, seed=self.seed
        )
        figures = diagnostics.default_figures(draws, self.truth, history=history, variable_names=self.names)
        figures["verdict"] = diagnostics.plot_verdict(verdict)
        results.figures(figures)
        results.table(table, "metrics/diagnostics.csv")
        keys = parameter_keys(self.names)
        metrics = {
            f"{str(metric).lower().replace(' ', '_')}.{keys[str(name)]}": float(value)
            for metric, row in table.iterrows()
            for name, value in row.items()
        }
        told = verdict.as_dict()
        results.json(told, "verdict.json")
        results.tags |= verdict_tags(told) | name_tags("parameter", keys)
        manifest: Manifest = {
            "diagnostics": table.to_dict(orient="index"),
            "figures": sorted(figures),
            "verdict": told,
        }
        if all(member.has_density for member in approximator.members.values()):
            manifest["log_score"] = metrics["log_score"] = float(approximator.log_prob(self.test).mean())
        results.metrics |= metrics
        return manifest


def _disagreement(
    experiment: Experiment, approximator: EnsembleApproximator, test: Variables, results: Results
) -> Manifest:
    """How far the members are apart for the real observations, against the test simulations: a figure, a
    table, and metrics."""
    study = study_of(experiment)
    labels, observations = study.observations()
    has_density = all(member.has_density for member in approximator.members.values())
    measure: Literal["jensen_shannon", "energy"] = "jensen_shannon" if has_density else "energy"
    seed = seeding.derive(experiment.seed, "disagreement")
    workflow = EnsembleWorkflow(inference_networks=approximator, seed=seed)
    observed, simulated = (
        workflow.disagreement(
            data, num_samples=experiment.diagnose.disagreement_samples, measure=measure, seed=seed
        )
        for data in (observations, test)
    )
    results.figures(
        {
            "disagreement": diagnostics.plot_disagreement(
                observed, reference=simulated, label=MEASURES[measure]
            )
        }
    )
    above = [float((simulated > value).mean()) for value in observed]
    table = pd.DataFrame(
        {study.data_set_name: labels, measure: observed, "share of test simulations above": above}
    )
    results.table(table, "metrics/disagreement.csv")
    summary = {
        "observed": {"median": float(np.median(observed)), "largest": float(observed.max())},
        "simulated": {
            "median": float(np.median(simulated)),
            "95_percent": float(np.quantile(simulated, 0.95)),
        },
    }
    results.metrics.update(
        {f"disagreement.{of}.{name}": value for of, row in summary.items() for name, value in row.items()}
    )
    return {"measure": measure, **summary}
