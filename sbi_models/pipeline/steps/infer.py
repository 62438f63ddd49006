"""Step `infer`: posterior draws for the real observations, a table and a figure of them, and certificates."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from sbi_models import load, seeding
from sbi_models.approximators import Approximator, ContinuousApproximator, EnsembleApproximator
from sbi_models.diagnostics import c2st
from sbi_models.pipeline.cache import content_key, question_parts
from sbi_models.pipeline.certificate_summary import P_VALUES, WEIGHTS, in_short
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.study import KnowsReferenceDraws
from sbi_models.pipeline.folders import project_root, work_folder
from sbi_models.pipeline.learned_likelihood import posteriors_of_observations
from sbi_models.pipeline.outcomes import Inference, JSONObject, Registered, Results, Training
from sbi_models.pipeline.posterior_tables import (
    draws_frame,
    posterior_figure,
    posterior_table,
    reference_errors,
    table_rows,
)
from sbi_models.pipeline.steps.task import done, step
from sbi_models.simulators import Simulator
from sbi_models.tracking import open_store
from sbi_models.tracking.names import keys_of, name_tags
from sbi_models.types import Variables
from sbi_models.workflows import BasicWorkflow, EnsembleWorkflow
from sbi_models.workflows.importance_resampling import ResamplingReport
from sbi_models.workflows.likelihood.implied import is_likelihood


def infer_key(question: Question, sha256: str) -> str:
    """Key of the step, from the trained file, the real observations, and all that says what they mean."""
    settings = question.experiment.infer.model_dump()
    return content_key("infer", __name__, sha256, *question_parts(question), settings)


def _key(arguments: dict[str, Any]) -> str:
    return infer_key(arguments["question"], arguments["training"].sha256)


@step("infer", Inference, _key)
def infer(question: Question, training: Training, registered: Registered) -> Inference:
    """Posterior draws for the real observations, from the registered model, with certificates."""
    started, approximator = perf_counter(), load(registered.uri, open_store(project_root()), certify=False)
    folder = work_folder() / infer_key(question, training.sha256)
    return infer_observations(question, approximator, Results(folder)).model_copy(update=done(started))


def infer_observations(question: Question, approximator: Approximator, results: Results) -> Inference:
    """Draw for each real data set, and compare with the exact posterior where the study knows it.

    Args:
        question: settings of the inference, and study.
        approximator: trained approximator.
        results: writer of draws, table, figure, certificates and metrics.
    """
    experiment, study = question.experiment, question.study
    labels, observations = study.observations()
    seed = seeding.derive(experiment.seed, "infer")
    corrections: list[JSONObject] = []
    reports: list[JSONObject] = []
    if is_likelihood(approximator):
        draws, reports = posteriors_of_observations(question, approximator, results)
    elif experiment.infer.num_proposals is None:
        draws = approximator.sample(
            num_samples=experiment.infer.num_samples, conditions=observations, seed=seed
        )
    else:
        draws, resampled = workflow_with(study.simulator, approximator).importance_sample(
            num_samples=experiment.infer.num_samples,
            num_proposals=experiment.infer.num_proposals,
            conditions=observations,
            seed=seed,
        )
        corrections = _record_corrections(labels, resampled, results)
    values, references = study.evaluate(draws), study.references(observations)
    table = posterior_table(study, labels, values, references)
    draws_frame(labels, draws, study.parameter_names).to_parquet(
        results.path("inference/draws.parquet"), index=False
    )
    results.table(table, "inference/posteriors.csv")
    if references is not None:
        ours = "posterior by the likelihood" if reports else "amortized posterior"
        ours = "corrected posterior" if corrections else ours
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
    certificates = (
        [] if reports else certify_observations(question, approximator, labels, observations, results)
    )
    fields = results.fields()
    return Inference(
        **fields,
        data_set_name=study.data_set_name,
        table=table_rows(table),
        draws_sha256=fields["files"]["inference/draws.parquet"],
        certificates=certificates,
        corrections=corrections,
        reference_c2st=scores,
        reports=reports,
    )


def certify_observations(
    question: Question,
    approximator: Approximator,
    labels: Sequence[str],
    observations: Variables,
    results: Results,
) -> list[JSONObject]:
    """Certificates of real observations, raw variables (num_datasets, ...), also written to the results."""
    experiment = question.experiment
    certified = workflow_with(question.study.simulator, approximator).certify(
        observations,
        num_replicates=experiment.infer.predictive_replicates,
        seed=seeding.derive(experiment.seed, "certificates"),
    )
    certificates = [
        {"data_set": label, **certificate.as_dict()}
        for label, certificate in zip(labels, certified, strict=True)
    ]
    results.json(certificates, "inference/certificates.json")
    metrics = {
        "certificate.failed": float(sum(certificate["verdict"] == "failed" for certificate in certificates))
    }
    keys = keys_of(labels)
    for certificate in certificates:
        name = keys[certificate["data_set"]]
        numbers = {key: certificate[key] for key in (*P_VALUES, *WEIGHTS) if certificate[key] is not None}
        metrics |= {f"certificate.{key}.{name}": value for key, value in numbers.items()}
    results.metrics |= metrics
    results.tags |= {"certificate": in_short(certificates)} | name_tags("data_set", keys)
    return certificates


def workflow_with(simulator: Simulator, approximator: Approximator) -> BasicWorkflow | EnsembleWorkflow:
    """A workflow of a trained approximator."""
    if isinstance(approximator, EnsembleApproximator):
        return EnsembleWorkflow(simulator, inference_networks=approximator)
    assert isinstance(approximator, ContinuousApproximator)
    return BasicWorkflow(simulator, inference_network=approximator)


def _record_corrections(
    labels: list[str], reports: Sequence[ResamplingReport], results: Results
) -> list[JSONObject]:
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
