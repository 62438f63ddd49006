"""Step `diagnose`: diagnostics and verdict on test simulations, also of each member of an ensemble."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd

from sbi_models import diagnostics, seeding
from sbi_models.approximators import Approximator, EnsembleApproximator, load_approximator
from sbi_models.approximators.discrete import discrete_variables_of
from sbi_models.pipeline.cache import content_key, observations_hash, source_fingerprint
from sbi_models.pipeline.custom_diagnostics import custom_functions, run_custom
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.folders import work_folder
from sbi_models.pipeline.learned_likelihood import implied_draws, judge_observables, num_elements, priors_of
from sbi_models.pipeline.member_runs import of_member
from sbi_models.pipeline.outcomes import (
    Diagnosis,
    Disagreement,
    ModelDiagnosis,
    Results,
    Simulations,
    Training,
)
from sbi_models.pipeline.steps.task import done, step
from sbi_models.tracking.names import keys_of, name_tags
from sbi_models.types import Variables
from sbi_models.workflows import EnsembleWorkflow
from sbi_models.workflows.likelihood.implied import ImpliedPosterior, is_likelihood

History = Mapping[str, list[float]]

JOINTLY = "jointly"

MEASURES = {
    "jensen_shannon": "Jensen-Shannon divergence of members [nats]",
    "energy": "energy distance between members [share]",
}


def diagnose_key(question: Question, content_hash: Mapping[str, str], training: Training) -> str:
    """Key of the step, from trained file, history, test simulations, and code of custom diagnostics.

    For an ensemble also from the real observations, on which members may disagree.
    """
    experiment = question.experiment
    return content_key(
        "diagnose",
        __name__,
        training.key,
        training.sha256,
        content_hash["test"],
        experiment.seed,
        experiment.diagnose.model_dump(),
        question.study.parameter_names,
        observations_hash(question) if experiment.ensemble is not None else None,
        source_fingerprint(*custom_functions(experiment).values()),
        *(
            []
            if experiment.likelihood is None
            else [experiment.likelihood.diagnosed, num_elements(question), priors_of(question)]
        ),
    )


def _key(arguments: dict[str, Any]) -> str:
    content_hash = arguments["simulations"].content_hash
    return diagnose_key(arguments["question"], content_hash, arguments["training"])


@step("diagnose", Diagnosis, _key)
def diagnose(question: Question, simulations: Simulations, training: Training) -> Diagnosis:
    """Figures, metrics and the verdict on the test simulations, also of each member of an ensemble."""
    started, test = perf_counter(), simulations.load("test")
    folder = work_folder() / diagnose_key(question, simulations.content_hash, training)
    approximator = load_approximator(training.model)
    diagnosis = diagnose_all(question, approximator, test, training.history, folder)
    return diagnosis.model_copy(update=done(started))


def diagnose_all(
    question: Question, approximator: Approximator, test: Variables, history: History, folder: Path
) -> Diagnosis:
    """Figures, metrics, log score and verdict of the approximator, and of each member of an ensemble.

    Args:
        question: settings, names of the parameters, and real observations that members may disagree on.
        approximator: trained approximator.
        test: simulations with their true parameters, name to (num_datasets, ...), raw space.
        history: losses of each epoch by name.
        folder: folder for `run/`, which has the results of the approximator, and `members/NAME/`.
    """
    seed = question.experiment.seed
    num_samples, drawn_by = question.experiment.diagnose.num_samples, seeding.derive(seed, "diagnose")
    results = Results(folder / "run")
    if is_likelihood(approximator):
        fields = diagnose_likelihood(question, approximator, test, results, history)
        return Diagnosis(**fields, **results.fields())
    diagnoser = Diagnoser(question, approximator.inference_names, test, seeding.derive(seed, "verdict"))
    draws = approximator.sample(num_samples=num_samples, conditions=test, seed=drawn_by)
    fields = diagnoser(results, approximator, draws, history)
    members: dict[str, ModelDiagnosis] = {}
    disagreement = None
    if isinstance(approximator, EnsembleApproximator):
        keys = keys_of(approximator.members)
        draws_of: Any = approximator.sample(
            num_samples=num_samples, conditions=test, seed=drawn_by, merge_members=False
        )
        for name, member in approximator.members.items():
            files = Results(folder / "members" / keys[name])
            row = diagnoser(files, member, draws_of[name], of_member(history, name))
            members[name] = ModelDiagnosis(**row, **files.fields())
        if question.has_observations:
            disagreement = _disagreement(question, approximator, test, results)
            fields["figures"] = sorted([*fields["figures"], "disagreement"])
    return Diagnosis(**fields, **results.fields(), members=members, disagreement=disagreement)


def diagnose_likelihood(
    question: Question,
    approximator: Approximator,
    test: Variables,
    results: Results,
    history: History | None = None,
) -> dict[str, Any]:
    """Diagnostics of the posterior that a likelihood implies, for the parameters of some test simulations, of
    its observables, and its log score on all of them: fields of a `Diagnosis`."""
    experiment, seed = question.experiment, question.experiment.seed
    assert experiment.likelihood is not None
    some = {name: value[: experiment.likelihood.diagnosed] for name, value in test.items()}
    posterior = ImpliedPosterior(approximator, question.study.simulator)
    if (number := num_elements(question)) > 1:
        some = posterior.workflow.with_elements(some, number, seed=seeding.derive(seed, "elements"))
    draws, reports = implied_draws(
        posterior, some, experiment.diagnose.num_samples, seeding.derive(seed, "diagnose")
    )
    diagnoser = Diagnoser(question, posterior.inference_names, some, seeding.derive(seed, "verdict"))
    fields = diagnoser(results, posterior, draws, history)
    fields["log_score"] = float(posterior.log_likelihood(test).mean())
    if approximator.has_draws:  # a ratio has none of observables
        fields["observables"] = judge_observables(question, approximator, test, results)
        fields["figures"] = sorted([*fields["figures"], "observables"])
    fields["doubtful"] = float(np.mean([not report.is_reliable for report in reports]))
    results.metrics |= {name: fields[name] for name in ("log_score", "doubtful")}
    return fields


def verdict_tags(verdict: Mapping[str, Any]) -> dict[str, str]:
    """The words of a verdict as tags: `verdict`, `verdict.NAME` of each parameter, `verdict.jointly`."""
    rows, keys = verdict["parameters"], parameter_keys(verdict["parameters"])
    tags = {"verdict": verdict["label"]} | {
        f"verdict.{keys[name]}": row["label"] for name, row in rows.items()
    }
    return tags | ({} if verdict["joint"] is None else {f"verdict.{JOINTLY}": verdict["joint"]["label"]})


def parameter_keys(names: Iterable[str]) -> dict[str, str]:
    """The key of each parameter in metrics and tags."""
    return keys_of(names, reserved=[JOINTLY])


class Diagnoser:
    """Writes figures, metrics and the verdict of approximators on the same test simulations.

    Args:
        question: names of the parameters, and the user's own diagnostics.
        inference_names: inference variables of the approximators.
        test: simulations with their true parameters, name to (num_datasets, ...), raw space.
        seed: seed of the verdict.
    """

    def __init__(
        self, question: Question, inference_names: tuple[str, ...], test: Variables, seed: int
    ) -> None:
        parameter_names = question.study.parameter_names
        self.test = test
        self.seed = seed
        self.truth = {name: test[name] for name in inference_names}
        self.names = [label for variable in inference_names for label in parameter_names[variable]]
        self.custom = custom_functions(question.experiment)

    def __call__(
        self,
        results: Results,
        approximator: Approximator | ImpliedPosterior,
        draws: Variables,
        history: History | None = None,
    ) -> dict[str, Any]:
        """Fields of a `ModelDiagnosis`; files, metrics and tags go to the results.

        Args:
            results: writer of the files.
            approximator: trained approximator.
            draws: its draws for the test simulations, name to (num_datasets, num_samples, width), raw space.
            history: losses of its training.
        """
        table = diagnostics.default_metrics(draws, self.truth, variable_names=self.names)
        conditions = {name: self.test[name] for name in approximator.condition_names}
        discrete = {} if isinstance(approximator, ImpliedPosterior) else discrete_variables_of(approximator)
        verdict = diagnostics.judge(
            draws,
            self.truth,
            variable_names=self.names,
            conditions=conditions,
            discrete=discrete,
            seed=self.seed,
        )
        figures = diagnostics.default_figures(
            draws, self.truth, history=history, variable_names=self.names, discrete=discrete
        )
        figures["verdict"] = diagnostics.plot_verdict(verdict)
        results.figures(figures)
        results.table(table, "metrics/diagnostics.csv")
        keys = parameter_keys(self.names)
        metrics = {
            f"{str(metric).lower().replace(' ', '_')}.{keys[str(name)]}": float(value)
            for metric, row in table.iterrows()
            for name, value in row.items()
        }
        content = verdict.as_dict()
        results.json(content, "verdict.json")
        results.tags |= verdict_tags(content) | name_tags("parameter", keys)
        log_score = None
        if not isinstance(approximator, ImpliedPosterior) and all(
            member.has_density for member in approximator.members.values()
        ):
            log_score = metrics["log_score"] = float(approximator.log_prob(self.test).mean())
        results.metrics |= metrics
        return {
            "diagnostics": table.to_dict(orient="index"),
            "figures": sorted(figures),
            "verdict": content,
            "log_score": log_score,
            **run_custom(
                self.custom,
                draws,
                self.test,
                results,
                variable_keys=list(self.truth),
                variable_names=self.names,
            ),
        }


def _disagreement(
    question: Question, approximator: EnsembleApproximator, test: Variables, results: Results
) -> Disagreement:
    """Disagreement of members on the real observations, against test simulations: figure, table, metrics."""
    study, experiment = question.study, question.experiment
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
    return Disagreement(measure=measure, **summary)
