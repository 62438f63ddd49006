"""Diagnostics and verdict on an approximator by test simulations, and on each member of an ensemble, written to the runs of both."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from flows.members import RunWithMembers, of_member
from flows.parameters import Experiment, load_object
from flows.study import Study
from sbi_models import diagnostics, seeding
from sbi_models.approximators import Approximator, EnsembleApproximator
from sbi_models.tracking import Tracker
from sbi_models.types import Variables
from sbi_models.workflows import EnsembleWorkflow

Manifest = dict[str, Any]

History = Mapping[str, list[float]]

NOT_IN_TAGS = re.compile(r"[^\w .:/-]")
"""What MLflow does not admit in names of tags."""

MEASURES = {"jensen_shannon": "Jensen-Shannon divergence of members [nats]", "energy": "energy distance between members [share]"}


def diagnose_runs(experiment: Experiment, approximator: Approximator, test: Variables, history: History, run: RunWithMembers) -> Manifest:
    """Figures, metrics, log score and verdict of the approximator, and of each member in its child run.

    Args:
        experiment: number of draws, names of the parameters, and the real observations that members of an ensemble may disagree on.
        approximator: trained.
        test: simulations with their true parameters, name to (n_datasets, ...), raw space.
        history: losses by name, as the training left them.
        run: of the pipeline run.
    """
    num_samples, seed = experiment.diagnose.num_samples, seeding.derive(experiment.seed, "diagnose")
    diagnose = _Diagnosis(experiment, approximator.inference_names, test)
    manifest = diagnose(run.tracker, approximator, approximator.sample(num_samples=num_samples, conditions=test, seed=seed), history)
    if isinstance(approximator, EnsembleApproximator):
        draws = approximator.sample(num_samples=num_samples, conditions=test, seed=seed, merge_members=False)
        manifest["members"] = {
            name: diagnose(run.members[name], member, draws[name], of_member(history, name))  # type: ignore[arg-type]
            for name, member in approximator.members.items()
        }
        manifest["disagreement"] = _disagreement(experiment, approximator, test, run.tracker)
        manifest["figures"] = sorted([*manifest["figures"], "disagreement"])
    return manifest


def verdict_tags(verdict: Mapping[str, Any]) -> dict[str, str]:
    """The words of a verdict, `as_dict()` of it, as tags: `verdict`, `verdict.NAME` of each parameter, and `verdict.jointly`."""
    rows = dict(verdict["parameters"])
    if verdict["joint"] is not None:
        rows["jointly"] = verdict["joint"]
    return {"verdict": verdict["label"]} | {f"verdict.{NOT_IN_TAGS.sub('_', name)}": row["label"] for name, row in rows.items()}


class _Diagnosis:
    """Writes figures, metrics and the verdict of one approximator to its run."""

    def __init__(self, experiment: Experiment, inference_names: tuple[str, ...], test: Variables) -> None:
        parameter_names = load_object(experiment.study).parameter_names
        self.test = test
        self.seed = seeding.derive(experiment.seed, "verdict")
        self.truth = {name: test[name] for name in inference_names}
        self.names = [label for variable in inference_names for label in parameter_names[variable]]

    def __call__(self, tracker: Tracker, approximator: Approximator, draws: Variables, history: History) -> Manifest:
        table = diagnostics.default_metrics(draws, self.truth, variable_names=self.names)
        verdict = diagnostics.judge(draws, self.truth, variable_names=self.names, seed=self.seed)
        figures = diagnostics.default_figures(draws, self.truth, history=history, variable_names=self.names)
        figures["verdict"] = diagnostics.plot_verdict(verdict)
        tracker.log_figures(figures)
        tracker.log_table(table, "metrics/diagnostics.csv")
        metrics = {f"{metric}.{name}": float(value) for metric, row in table.iterrows() for name, value in row.items()}
        told = verdict.as_dict()
        tracker.log_json(told, "verdict.json")
        tracker.set_tags(verdict_tags(told))
        manifest: Manifest = {"metrics": table.to_dict(orient="index"), "figures": sorted(figures), "verdict": told}
        if all(member.has_density for member in approximator.members.values()):
            manifest["log_score"] = metrics["log_score"] = float(approximator.log_prob(self.test).mean())
        tracker.log_metrics({name.lower().replace(" ", "_"): value for name, value in metrics.items()})
        return manifest


def _disagreement(experiment: Experiment, approximator: EnsembleApproximator, test: Variables, tracker: Tracker) -> Manifest:
    """How far the members are apart for the real observations, against the test simulations: a figure, a table, and metrics."""
    study: Study = load_object(experiment.study)
    labels, observations = study.observations()
    has_density = all(member.has_density for member in approximator.members.values())
    measure: Literal["jensen_shannon", "energy"] = "jensen_shannon" if has_density else "energy"
    seed = seeding.derive(experiment.seed, "disagreement")
    workflow = EnsembleWorkflow(inference_networks=approximator, seed=seed)
    observed, simulated = (
        workflow.disagreement(data, num_samples=experiment.diagnose.disagreement_samples, measure=measure, seed=seed)
        for data in (observations, test)
    )
    tracker.log_figures({"disagreement": diagnostics.plot_disagreement(observed, reference=simulated, label=MEASURES[measure])})
    above = [float((simulated > value).mean()) for value in observed]
    table = pd.DataFrame({study.data_set_name: labels, measure: observed, "share of test simulations above": above})
    tracker.log_table(table, "metrics/disagreement.csv")
    summary = {
        "observed": {"median": float(np.median(observed)), "largest": float(observed.max())},
        "simulated": {"median": float(np.median(simulated)), "95_percent": float(np.quantile(simulated, 0.95))},
    }
    tracker.log_metrics({f"disagreement.{of}.{name}": value for of, row in summary.items() for name, value in row.items()})
    return {"measure": measure, **summary}
