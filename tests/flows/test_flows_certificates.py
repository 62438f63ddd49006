"""Certificates in the pipeline: what the setting `predictive_replicates` does."""

from typing import Any

import pytest
from pydantic import ValidationError
from small_run import SMALL, small_experiment

from flows.certificates import certify_observations
from flows.michelson import STUDY
from sbi_models import BasicWorkflow, seeding
from sbi_models.networks import CouplingFlow, DeepSet


class Kept:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, str] = {}

    def log_json(self, value: Any, path: str) -> None:
        self.files[path] = value

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.metrics |= metrics

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags |= tags


@pytest.fixture(scope="module")
def workflow() -> BasicWorkflow:
    """A small workflow on the simulator of the study, trained for a second."""
    made = BasicWorkflow(
        STUDY.simulator,
        inference_variables="theta",
        summary_variables="x",
        inference_network=CouplingFlow(depth=1, widths=(16,)),
        summary_network=DeepSet(summary_dim=4, widths=(16,), head_widths=(16,)),
        seed=1,
        progress=False,
    )
    made.fit_online(epochs=1, num_batches_per_epoch=20, batch_size=64)
    return made


@pytest.mark.parametrize("replicates", [0, 20])
def test_predictive_replicates_are_those_of_the_certificates(workflow: BasicWorkflow, replicates: int) -> None:
    """Certificates of the pipeline are those of the workflow with so many data sets simulated from each posterior; with 0 there is no
    predictive check among them, nor among the metrics."""
    experiment, tracker = small_experiment({"infer": {"predictive_replicates": replicates}}), Kept()
    labels, observations = STUDY.observations()
    found = certify_observations(experiment, workflow.approximator, labels, observations, tracker)
    expected = workflow.certify(observations, num_replicates=replicates, seed=seeding.derive(experiment.seed, "certificates"))
    assert found == [{"data_set": label, **one.as_dict()} for label, one in zip(labels, expected, strict=True)]
    assert tracker.files == {"inference/certificates.json": found}
    assert all((one["predictive"] is None) == (replicates == 0) for one in found)
    assert ("certificate.predictive.1" in tracker.metrics) == (replicates > 0)


@pytest.mark.parametrize("replicates", [1, -1, 2.5])
def test_bad_predictive_replicates_are_refused(replicates: float) -> None:
    """One replicate has no spread; that, negative numbers and fractions do not validate."""
    with pytest.raises(ValidationError, match="predictive_replicates"):
        small_experiment({"infer": {"predictive_replicates": replicates}})
    assert SMALL.infer.predictive_replicates == 100
