"""One posterior given all real data sets of a study, from the registered approximator: draws, table, figure,
report and metrics."""

import math
import warnings

import pandas as pd

from sbi_models import seeding
from sbi_models.approximators import CompositionalApproximator
from sbi_models.approximators.composition.prior_scores import PriorScoreLike
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.errors import TrustWarning
from sbi_models.pipeline.experiment.settings import Compose, Experiment
from sbi_models.pipeline.experiment.study import KnowsComposition, KnowsPrior, Study
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.outcomes import Manifest, Results
from sbi_models.pipeline.report.posteriors import (
    MEAN_ERROR,
    SD_RATIO,
    draws_frame,
    posterior_figure,
    posterior_table,
)
from sbi_models.tracking.names import keys_of
from sbi_models.workflows import CompositionalWorkflow

NUMBERS = (
    *(
        "bias_shift",
        "calibration_residual",
        "contradiction",
        "influence",
        "explained",
        "acceptance",
        "last_step",
    ),
    *(
        "noise",
        "num_modes",
        "evaluations",
        "simulations",
        "width_ratio",
        "sbc_p_value",
        "sbc_shift",
        "sbc_variance",
    ),
)
"""Of the report, that become metrics."""


def prior_of(study: Study, names: tuple[str, ...]) -> PriorScoreLike | None:
    """The prior that a study knows, as a score or as torch distributions of its simulator; None leaves it to
    what the network learned."""
    if isinstance(study, KnowsPrior):
        return study.prior_score
    priors = study.simulator.priors
    return {name: priors[name] for name in names} if all(name in priors for name in names) else None


def compose_observations(
    experiment: Experiment, approximator: CompositionalApproximator, results: Results
) -> Manifest:
    """Draw from the posterior given all real data sets, compare with the exact one where the study knows it.

    Args:
        experiment: experiment with settings of the composition.
        approximator: trained for it.
        results: take draws, table, report, figure, metrics and warnings.
    """
    study = study_of(experiment)
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
    results.tags["compose.warnings"] = " ".join(report.warnings) or "none"
    manifest = results.manifest()
    told = {"table": table.to_dict(orient="records"), "report": report.as_dict()}
    return manifest | told | {"draws_sha256": manifest["files"]["composition/draws.parquet"]}


def report_metrics(report: CompositionReport) -> dict[str, float]:
    """The numbers of a report as metrics; those that its method does not have are left out."""
    numbers = {name: float(getattr(report, name)) for name in NUMBERS}
    return {f"compose.{name}": value for name, value in numbers.items() if math.isfinite(value)}


def composed_errors(table: pd.DataFrame) -> dict[str, float]:
    """The errors against the exact posterior given all data sets as metrics, by quantity."""
    metrics, keys = {}, keys_of(table["quantity"])
    for _, row in table.iterrows():
        name = keys[row["quantity"]]
        metrics[f"compose.{name}.error_of_mean_in_sd"] = float(row[MEAN_ERROR])
        metrics[f"compose.{name}.sd_ratio"] = float(row[SD_RATIO])
    return metrics
