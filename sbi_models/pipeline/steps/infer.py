"""Posterior draws for the real observations of a study, a table and a figure of them, and their
certificates."""

from collections.abc import Sequence

import numpy as np

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.diagnostics import c2st
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study import KnowsReferenceDraws
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.outcomes import Manifest, Results
from sbi_models.pipeline.report.posteriors import (
    draws_frame,
    posterior_figure,
    posterior_table,
    reference_errors,
)
from sbi_models.pipeline.steps.certify import certify_observations, workflow_with
from sbi_models.tracking.names import keys_of, name_tags
from sbi_models.types import Variables
from sbi_models.workflows.importance_resampling import ResamplingReport


def infer_observations(experiment: Experiment, approximator: Approximator, results: Results) -> Manifest:
    """Draw for each real data set, and compare with the exact posterior where the study knows it.

    Args:
        experiment: experiment with settings of the inference.
        approximator: a trained one.
        results: take draws, table, figure, certificates and metrics.
    """
    study = study_of(experiment)
    labels, observations = study.observations()
    seed = seeding.derive(experiment.seed, "infer")
    corrections: list[Manifest] = []
    if experiment.infer.num_proposals is None:
        draws = approximator.sample(
            num_samples=experiment.infer.num_samples, conditions=observations, seed=seed
        )
    else:
        draws, reports = workflow_with(study.simulator, approximator).importance_sample(
            num_samples=experiment.infer.num_samples,
            num_proposals=experiment.infer.num_proposals,
            conditions=observations,
            seed=seed,
        )
        corrections = _record_corrections(labels, reports, results)
    values, references = study.evaluate(draws), study.references(observations)
    table = posterior_table(study, labels, values, references)
    draws_frame(labels, draws, study.parameter_names).to_parquet(
        results.path("inference/draws.parquet"), index=False
    )
    results.table(table, "inference/posteriors.csv")
    if references is not None:
        ours = "corrected posterior" if corrections else "amortized posterior"
        results.figures(
            {"posteriors": posterior_figure(study, labels, values, references, samples_label=ours)}
        )
    results.metrics |= reference_errors(table)
    results.tags |= name_tags("quantity", keys_of(quantity.name for quantity in study.quantities))
    scores = {}
    if isinstance(study, KnowsReferenceDraws):
        scores = _scores(labels, draws, study.reference_draws(observations), seed)
        results.metrics |= {
            f"reference.c2st_mlp.{key}": scores[label] for label, key in keys_of(labels).items()
        }
    certificates = certify_observations(experiment, approximator, labels, observations, results)
    manifest = results.manifest()
    return manifest | {
        "data_set_name": study.data_set_name,
        "table": table.to_dict(orient="records"),
        "draws_sha256": manifest["files"]["inference/draws.parquet"],
        "certificates": certificates,
        "corrections": corrections,
        "reference_c2st": scores,
    }


def _record_corrections(
    labels: list[str], reports: Sequence[ResamplingReport], results: Results
) -> list[Manifest]:
    """What importance weights say of each data set, to the results."""
    rows = [{"data_set": label, **report.as_dict()} for label, report in zip(labels, reports, strict=True)]
    results.json(rows, "inference/corrections.json")
    keys = keys_of(labels)
    for row in rows:
        numbers = {
            name: row[name]
            for name in (
                "effective_draws",
                "raw_effective_draws",
                "largest_weight",
                "pareto_k",
                "log_evidence",
            )
        }
        results.metrics |= {
            f"correction.{name}.{keys[row['data_set']]}": value for name, value in numbers.items()
        }
    return rows


def _scores(labels: list[str], draws: Variables, references: list[Variables], seed: int) -> dict[str, float]:
    """C2ST, by an MLP, of draws against as many reference draws of each data set."""
    scores = {}
    for i, (label, reference) in enumerate(zip(labels, references, strict=True)):
        exact = np.concatenate([reference[name] for name in draws], axis=1)
        ours = np.concatenate([values[i] for values in draws.values()], axis=1)
        number = min(len(exact), len(ours))
        scores[label] = c2st(exact[:number], ours[:number], "mlp", seed=seed)
    return scores
