"""Posterior draws for the real observations of a study, a table and a figure of them, and their certificates."""

from flows.certificates import certify_observations
from flows.parameters import Experiment
from flows.reporting import draws_frame, posterior_figure, posterior_table, reference_errors
from flows.results import Manifest, Results
from flows.studies import study_of
from sbi_models import seeding
from sbi_models.approximators import Approximator


def infer_observations(experiment: Experiment, approximator: Approximator, results: Results) -> Manifest:
    """Draw for each real data set, and compare with the exact posterior where the study knows it.

    Args:
        experiment: with settings of the inference.
        approximator: a trained one.
        results: take draws, table, figure, certificates and metrics.
    """
    study = study_of(experiment)
    labels, observations = study.observations()
    seed = seeding.derive(experiment.seed, "infer")
    draws = approximator.sample(num_samples=experiment.infer.num_samples, conditions=observations, seed=seed)
    values, references = study.evaluate(draws), study.references(observations)
    table = posterior_table(study, labels, values, references)
    draws_frame(labels, draws, study.parameter_names).to_parquet(results.path("inference/draws.parquet"), index=False)
    results.table(table, "inference/posteriors.csv")
    if references is not None:
        results.figures({"posteriors": posterior_figure(study, labels, values, references)})
    results.metrics |= reference_errors(table)
    certificates = certify_observations(experiment, approximator, labels, observations, results)
    manifest = results.manifest()
    return manifest | {
        "data_set_name": study.data_set_name,
        "table": table.to_dict(orient="records"),
        "draws_sha256": manifest["files"]["inference/draws.parquet"],
        "certificates": certificates,
    }
