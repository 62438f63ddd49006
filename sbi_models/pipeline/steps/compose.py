"""Step `compose`: one posterior given all real data sets of a study, from the registered approximator."""

import math
import warnings
from time import perf_counter
from typing import Any

import pandas as pd

from sbi_models import load, seeding
from sbi_models.approximators import CompositionalApproximator
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.errors import ConfigurationError, TrustWarning
from sbi_models.pipeline.cache import content_key, question_parts
from sbi_models.pipeline.experiment.composition_settings import Compose
from sbi_models.pipeline.experiment.known_prior import prior_of
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.study import KnowsComposition
from sbi_models.pipeline.folders import project_root, work_folder
from sbi_models.pipeline.outcomes import Composition, LearnedLikelihood, Registered, Results, Training
from sbi_models.pipeline.posterior_tables import (
    MEAN_ERROR,
    SD_RATIO,
    draws_frame,
    posterior_figure,
    posterior_table,
    table_rows,
)
from sbi_models.pipeline.steps.likelihood import trained_likelihood
from sbi_models.pipeline.steps.task import done, step
from sbi_models.tracking import open_store
from sbi_models.tracking.names import keys_of
from sbi_models.workflows import ComparedReport, CompositionalWorkflow, LikelihoodWorkflow

NUMBERS = (
    "bias_shift",
    "calibration_residual",
    "contradiction",
    "influence",
    "explained",
    "acceptance",
    "last_step",
    "noise",
    "num_modes",
    "evaluations",
    "simulations",
    "width_ratio",
    "sbc_p_value",
    "sbc_shift",
    "sbc_variance",
)
"""Fields of a composition's report that become metrics."""

COMPARED = (
    "likelihood_p_value",
    "likelihood_shift",
    "likelihood_variance",
    "difference",
    "unexplained",
    "sd_ratio",
)
"""The same of a `ComparedReport`."""


def compose_key(question: Question, sha256: str, likelihood_sha256: str | None = None) -> str:
    """Key of the step, from the trained files, the real observations, and all that says what they mean."""
    settings = question.experiment.compose
    return content_key(
        "compose",
        __name__,
        [sha256, likelihood_sha256],
        *question_parts(question),
        None if settings is None else settings.model_dump(),
    )


def _key(arguments: dict[str, Any]) -> str:
    learned = arguments["learned"]
    return compose_key(
        arguments["question"], arguments["training"].sha256, None if learned is None else learned.sha256
    )


@step("compose", Composition, _key)
def compose(
    question: Question, training: Training, registered: Registered, learned: LearnedLikelihood | None
) -> Composition:
    """Draws from the posterior given all real observations together, from the registered model.

    A learned likelihood is compared with it.
    """
    started, approximator = perf_counter(), load(registered.uri, open_store(project_root()), certify=False)
    if not isinstance(approximator, CompositionalApproximator):
        raise ConfigurationError(
            f"Expected a model that composes, got {registered.uri} of kind "
            f"{approximator.kind!r}. Train it anew."
        )
    folder = work_folder() / _key({"question": question, "training": training, "learned": learned})
    likelihood = None if learned is None else trained_likelihood(question, learned)
    composition = compose_observations(question, approximator, Results(folder), likelihood)
    return composition.model_copy(update=done(started))


def compose_observations(
    question: Question,
    approximator: CompositionalApproximator,
    results: Results,
    likelihood: LikelihoodWorkflow | None = None,
) -> Composition:
    """Draw from the posterior given all real data sets, compare with the exact one where the study knows it.

    Args:
        question: settings of the composition, and study.
        approximator: trained compositional approximator.
        results: writer of draws, table, report, figure, metrics and warnings.
        likelihood: learned likelihood of the data sets that the composition is compared with.
    """
    experiment, study = question.experiment, question.study
    settings = experiment.compose or Compose()
    observed, observations = study.observations()
    labels = [f"all {len(observed)}"]
    workflow = CompositionalWorkflow(study.simulator, inference_network=approximator)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", TrustWarning
        )  # the report has them: they go to the screen and to the run
        draws, (report,) = workflow.compositional_sample(
            num_samples=settings.num_samples,
            conditions={name: observations[name][None] for name in approximator.condition_names},
            compute_prior_score=prior_of(study, approximator.inference_names),
            method=settings.method,
            noise=settings.noise,
            calibration_simulations=settings.calibration_simulations,
            seed=seeding.derive(experiment.seed, "compose"),
            likelihood=likelihood,
            return_diagnostics=True,
        )
    values = study.evaluate(draws)
    references = [study.composed_references(observations)] if isinstance(study, KnowsComposition) else None
    table = posterior_table(study, labels, values, references)
    draws_frame(labels, draws, study.parameter_names).to_parquet(
        results.path("composition/draws.parquet"), index=False
    )
    results.table(table, "composition/posterior.csv")
    results.json(report.as_dict(), "composition/report.json")
    if references is not None:
        results.figures(
            {
                "composed": posterior_figure(
                    study, labels, values, references, samples_label="composed posterior"
                )
            }
        )
    results.metrics |= report_metrics(report) | ({} if references is None else composed_errors(table))
    if isinstance(report, ComparedReport):
        results.tags["compose.returned"] = report.returned
    results.tags["compose.warnings"] = " ".join(report.warnings) or "none"
    fields = results.fields()
    return Composition(
        **fields,
        table=table_rows(table),
        report=report.as_dict(),
        draws_sha256=fields["files"]["composition/draws.parquet"],
    )


def report_metrics(report: CompositionReport) -> dict[str, float]:
    """The numbers of a report as metrics; those that its method does not have are left out."""
    names = [name for name in (*NUMBERS, *COMPARED) if hasattr(report, name)]
    numbers = {name: float(getattr(report, name)) for name in names}
    return {f"compose.{name}": value for name, value in numbers.items() if math.isfinite(value)}


def composed_errors(table: pd.DataFrame) -> dict[str, float]:
    """The errors against the exact posterior given all data sets as metrics, by quantity."""
    metrics, keys = {}, keys_of(table["quantity"])
    for _, row in table.iterrows():
        name = keys[row["quantity"]]
        metrics[f"compose.{name}.error_of_mean_in_sd"] = float(row[MEAN_ERROR])
        metrics[f"compose.{name}.sd_ratio"] = float(row[SD_RATIO])
    return metrics
