"""Certificates in the pipeline: what the setting `predictive_replicates` does, and what the screen says of
them."""

import io
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console
from small_run import SMALL, small_experiment

from sbi_models import BasicWorkflow, seeding
from sbi_models.approximators import Certificate
from sbi_models.networks import CouplingFlow, DeepSet
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.outcomes import Results
from sbi_models.pipeline.report.certificates import print_certificates
from sbi_models.pipeline.steps.infer import certify_observations
from sbi_models.pipeline.studies.michelson import STUDY


@pytest.fixture(scope="module")
def workflow() -> BasicWorkflow:
    """A small workflow on the simulator of the study, trained for a second."""
    made = BasicWorkflow(
        STUDY.simulator,
        inference_variables="theta",
        summary_variables="x",
        standardize="all",
        inference_network=CouplingFlow(depth=1, widths=(16,)),
        summary_network=DeepSet(summary_dim=4, widths=(16,), head_widths=(16,)),
        seed=1,
        progress=False,
    )
    made.fit_online(epochs=1, num_batches_per_epoch=20, batch_size=64)
    return made


@pytest.mark.parametrize("replicates", [0, 20])
def test_predictive_replicates_are_those_of_the_certificates(
    workflow: BasicWorkflow, replicates: int, tmp_path: Path
) -> None:
    """Certificates of the pipeline are those of the workflow with so many data sets simulated from each
    posterior; with 0 there is no predictive check among them, nor among the metrics."""
    experiment, results = (
        small_experiment({"infer": {"predictive_replicates": replicates}}),
        Results(tmp_path),
    )
    labels, observations = STUDY.observations()
    found = certify_observations(
        question_of(experiment), workflow.approximator, labels, observations, results
    )
    expected = workflow.certify(
        observations, num_replicates=replicates, seed=seeding.derive(experiment.seed, "certificates")
    )
    assert found == [
        {"data_set": label, **one.as_dict()} for label, one in zip(labels, expected, strict=True)
    ]
    assert list(results.fields()["files"]) == ["inference/certificates.json"]
    assert json.loads((tmp_path / "inference" / "certificates.json").read_text()) == found
    assert all((one["predictive"] is None) == (replicates == 0) for one in found)
    assert ("certificate.predictive.1" in results.metrics) == (replicates > 0)


@pytest.mark.parametrize("replicates", [1, -1, 2.5])
def test_bad_predictive_replicates_are_refused(replicates: float) -> None:
    """One replicate has no spread; that, negative numbers and fractions do not validate."""
    with pytest.raises(ValidationError, match="predictive_replicates"):
        small_experiment({"infer": {"predictive_replicates": replicates}})
    assert SMALL.infer.predictive_replicates == 100


def test_the_screen_explains_columns_and_lists_what_is_unusual() -> None:
    """Columns without a number are left out, the others are explained, and each unusual statistic has a line
    below its reason."""
    odd = Certificate(
        novelty=0.001,
        unusual=(
            "median of x is above that of all simulations",
            "mean of x is below that of all simulations",
        ),
    )
    usual = Certificate(novelty=0.5, effective_sample_size=0.987, pareto_k=0.2)
    console = Console(file=io.StringIO(), soft_wrap=True)
    print_certificates(
        console,
        "patient",
        [{"data_set": name, **one.as_dict()} for name, one in {"a": odd, "[b]": usual}.items()],
    )
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[0].split() == ["patient", "certificate", "p", "novelty", "effective", "Pareto", "k"]
    assert lines[1].split() == ["a", "failed", "0.001", "0.001", "-", "-"]
    assert lines[2].split() == ["[b]", "passed", "0.5", "0.5", "98.7", "%", "0.2"]
    assert [line.partition(": ")[0] for line in lines[4:7]] == ["p", "effective", "Pareto k"]
    assert lines[8:] == [
        "patient a: The observation is unlike the simulations of the training (p = 0.001):",
        "    median of x is above that of all simulations",
        "    mean of x is below that of all simulations",
    ]
