"""Experiments with a learned likelihood: its workflow, checks, diagnosis, and posteriors of real data."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbi_models import diagnostics, seeding
from sbi_models.approximators import Approximator, EnsembleApproximator
from sbi_models.approximators.discrete import discrete_variables_of
from sbi_models.approximators.element_likelihood import ElementLikelihood, likelihood_members
from sbi_models.errors import TrustWarning
from sbi_models.networks import InferenceNetwork
from sbi_models.pipeline.experiment.adapter_steps import adapter_of
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.outcomes import JSONObject, Results
from sbi_models.ragged import lengths
from sbi_models.simulators.prior_json import distribution_to_json
from sbi_models.tracking.names import keys_of
from sbi_models.types import Variables
from sbi_models.workflows import BasicWorkflow, EnsembleWorkflow, LikelihoodWorkflow, PosteriorReport
from sbi_models.workflows.basic import AUTO
from sbi_models.workflows.likelihood.implied import ImpliedPosterior
from sbi_models.workflows.likelihood.prior import resolved_prior

NUMBERS = ("effective_draws", "log_evidence", "r_hat", "pareto_k", "outside_reach")
"""Fields of the report on a posterior that become metrics."""

_MOST = 100
"""Elements of a data set of the verdict, if the settings do not ask for more."""

_MOST_ELEMENTS = 1_000
"""Elements of test simulations that the density of observables is judged by."""


# ---- training ----------------------------------------------------------------


def likelihood_workflow(
    question: Question, network: InferenceNetwork | str, training: dict[str, Any]
) -> LikelihoodWorkflow:
    """The untrained workflow; "auto" has a learning rate of its own."""
    experiment, settings = question.experiment, question.experiment.likelihood
    assert settings is not None
    left_out = {"initial_learning_rate"} if network == AUTO else set()
    return LikelihoodWorkflow(
        question.study.simulator,
        parameters=experiment.inference_variables,
        observables=experiment.observables,
        conditions=settings.conditions or None,
        iid=settings.iid,
        network=network,
        adapter=adapter_of(experiment.adapter),
        **{name: value for name, value in training.items() if name not in left_out},
    )


def choices_of(workflow: BasicWorkflow | EnsembleWorkflow | LikelihoodWorkflow) -> dict[str, Any]:
    """What a training with "auto" has chosen."""
    if isinstance(workflow, BasicWorkflow):
        return {} if workflow.automatic is None else workflow.automatic.choices
    approximator = workflow.approximator
    if isinstance(workflow, EnsembleWorkflow) or not isinstance(approximator, EnsembleApproximator):
        return {}
    weights = approximator.weights or {}
    return {f"weight of {name}": round(weight, 3) for name, weight in weights.items()}


def priors_of(question: Question) -> dict[str, Any]:
    """The prior that a trained file keeps: JSON by parameter, None for one that JSON cannot hold."""
    names = question.experiment.inference_variables
    known = question.study.simulator.priors
    return {name: distribution_to_json(known[name]) for name in names if name in known}


def check_likelihood(question: Question, approximator: Approximator) -> None:
    """Let an approximator that was built from the first simulations read the real observations.

    Raises:
        ConfigurationError: if the prior of a parameter has no density.
        DataError: for observations that do not fit.
    """
    first = likelihood_members(approximator)[0][1]
    widths = {name: first.shapes[name][0] for name in first.parameter_names}
    resolved_prior(None, question.study.simulator.priors, first.parameter_names, widths)
    _, observations = question.study.observations()
    if observations:
        ElementLikelihood(approximator, observations)


# ---- posteriors --------------------------------------------------------------


def implied_draws(
    posterior: ImpliedPosterior, conditions: Variables, num_samples: int, seed: int
) -> tuple[Variables, list[PosteriorReport]]:
    """Draws of every data set and reports on them, which say what a TrustWarning would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        return posterior.drawn(num_samples=num_samples, conditions=conditions, seed=seed)


def posteriors_of_observations(
    question: Question, approximator: Approximator, results: Results
) -> tuple[Variables, list[JSONObject]]:
    """Posterior draws of the real data sets, and the reports on them, also written to the results."""
    experiment, study = question.experiment, question.study
    labels, observations = study.observations()
    posterior = ImpliedPosterior(approximator, study.simulator)
    draws, reports = implied_draws(
        posterior, observations, experiment.infer.num_samples, seeding.derive(experiment.seed, "infer")
    )
    rows = [{"data_set": label, **report.as_dict()} for label, report in zip(labels, reports, strict=True)]
    results.json(rows, "inference/reports.json")
    keys = keys_of(labels)
    for row in rows:
        known = {name: row[name] for name in NUMBERS if row[name] is not None and np.isfinite(row[name])}
        results.metrics |= {
            f"posterior.{name}.{keys[row['data_set']]}": float(value) for name, value in known.items()
        }
    doubtful = sum(not report.is_reliable for report in reports)
    results.metrics["posterior.doubtful"] = float(doubtful)
    results.tags["posterior"] = doubts_in_short(rows)
    return draws, rows


def doubts_in_short(reports: Sequence[Mapping[str, Any]]) -> str:
    """How many data sets have draws without doubts, and which have not.

    >>> doubts_in_short([{"data_set": "a", "warnings": ()}, {"data_set": "b", "warnings": ("Few draws.",)}])
    '1 of 2 without doubts: not b'
    """
    others = [str(row["data_set"]) for row in reports if row["warnings"]]
    shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    return f"{len(reports) - len(others)} of {len(reports)} without doubts" + (
        f": not {shown}" if others else ""
    )


def report_in_words(report: Mapping[str, Any]) -> str:
    """What the draws of one data set are worth, in one line."""
    parts = [f"{report['effective_draws']:.0f} effective draws"]
    for key, title in (("r_hat", "R-hat"), ("pareto_k", "Pareto k"), ("log_evidence", "log evidence")):
        if report[key] is not None:
            parts.append(f"{title} {report[key]:.2f}")
    return ", ".join(parts)


# ---- diagnosis ---------------------------------------------------------------


def num_elements(question: Question) -> int:
    """Number of elements of the data sets that the verdict is on; 1 where a simulation is no single element.

    That of the settings, or the median of the real data sets.
    """
    settings = question.experiment.likelihood
    can_be_set = len(question.study.simulator.calls) > 1  # parameters, and then elements given these
    if settings is None or settings.iid != "elements" or not can_be_set:
        return 1
    if settings.elements is not None:
        return settings.elements
    _, observations = question.study.observations()
    if not observations:
        return 1
    return int(np.clip(np.median(lengths(observations[question.experiment.observables[0]])), 1, _MOST))


def judge_observables(
    question: Question, approximator: Approximator, test: Variables, results: Results
) -> JSONObject:
    """Verdict on the density of the observables at the true parameters, by ranks of elements among draws.

    Args:
        question: names and numbers of draws.
        approximator: trained likelihood.
        test: simulations with their true parameters, raw space.
        results: writer of the verdict, the figure `observables` and metrics.
    """
    experiment = question.experiment
    seed = seeding.derive(experiment.seed, "observables")
    first = likelihood_members(approximator)[0][1]
    every, _ = first.elements(test, "test simulations")
    total = len(next(iter(every.values())))
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:_MOST_ELEMENTS])
    elements = {name: value[chosen] for name, value in every.items()}
    draws = approximator.sample(
        num_samples=experiment.diagnose.num_samples, conditions=elements, seed=seeding.derive(seed, "draws")
    )
    truth = {name: elements[name] for name in first.inference_names}
    verdict = diagnostics.judge(
        draws, truth, discrete=discrete_variables_of(approximator), seed=seeding.derive(seed, "verdict")
    )
    content = verdict.as_dict()
    results.json(content, "verdict_of_observables.json")
    results.figures({"observables": diagnostics.plot_verdict(verdict)})
    results.tags["verdict_of_observables"] = content["label"]
    return content
