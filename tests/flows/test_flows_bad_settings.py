"""Settings that do not fit are errors before anything is simulated or tracked."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from small_run import COMPOSED, ENSEMBLE, small_experiment

from sbi_models import diagnostics
from sbi_models.approximators.composition.methods import METHODS
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment import setting_types as parameters
from sbi_models.pipeline.experiment.composition_settings import Compose
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.yaml_files import experiment_names, load_experiment
from sbi_models.pipeline.flows.run_start import start_run
from sbi_models.pipeline.steps.likelihood import likelihood_workflow_of
from sbi_models.pipeline.steps.train import workflow_of
from sbi_models.pipeline.studies.michelson import STUDY

FLOW = ENSEMBLE["ensemble"]["members"]["flow"]


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ({"size": 0}, "greater than or equal to 2"),
        ({"size": 1}, "greater than or equal to 2"),
        ({}, "Expected either size or members of an ensemble, got neither"),
        (
            {"size": 2, "members": {"a": FLOW, "b": FLOW}},
            "Expected either size or members of an ensemble, got both",
        ),
        ({"members": {"a": FLOW}}, "at least 2 items"),
        ({"members": {"a/b": FLOW, "c": FLOW}}, "should match pattern"),
        ({"size": 2, "data_reuse": 1.5}, "less than or equal to 1"),
        ({"size": 2, "data_reuse": -0.1}, "greater than or equal to 0"),
        ({"size": 2, "data_reus": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_bad_ensembles_are_refused(ensemble: dict, message: str) -> None:
    """A size below two, both modes or none, a lone or misnamed member, data_reuse outside [0, 1] and unknown
    settings do not validate."""
    with pytest.raises(ValidationError, match=message):
        small_experiment({"ensemble": ensemble})


@pytest.mark.parametrize(
    ("compose", "message"),
    [
        ({"num_samples": 0}, "greater than 0"),
        ({"calibration_simulations": -1}, "greater than or equal to 0"),
        ({"noise": 2.0}, "less than or equal to 1"),
        ({"method": "calibratd"}, "should be 'calibrated', 'gauss', 'langevin' or 'plain'"),
        ({"likelihood": {"epochs": 0}}, "greater than 0"),
        ({"likelihood": {"iid": "sets"}}, "Extra inputs are not permitted"),
        ({"num_sample": 5}, "Extra inputs are not permitted"),
    ],
)
def test_bad_compositions_are_refused(compose: dict, message: str) -> None:
    """No draws, a negative number of simulations, a noise above 1, an unknown method and unknown settings do
    not validate."""
    with pytest.raises(ValidationError, match=message):
        small_experiment(COMPOSED | {"compose": compose})


def test_the_methods_of_a_composition_are_those_of_the_library() -> None:
    """The settings admit every method that composes."""
    assert set(get_args(Compose.model_fields["method"].annotation)) == set(METHODS)


def test_the_limits_of_a_diagnosis_are_those_of_the_library() -> None:
    """Fewer data sets or draws than a verdict needs are refused as settings."""
    assert (parameters.MIN_DATASETS, parameters.MIN_DRAWS) == (
        diagnostics.MIN_DATASETS,
        diagnostics.MIN_DRAWS,
    )


def _beside(**likelihood: object) -> dict:
    """A composition with a learned likelihood."""
    return COMPOSED | {"compose": {"likelihood": likelihood}}


def _members(**network: object) -> dict:
    return {"ensemble": {"members": {"a": FLOW, "b": {"inference_network": network}}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (_members(name="flow_matchin"), "Did you mean 'flow_matching'"),
        (_members(name="coupling_flow", arguments={"dept": 2}), "Did you mean 'depth'"),
        (
            _members(name="consistency_model"),
            "Expected members with a density to learn weights from, got none for 'b'",
        ),
        (
            _members(name="scoring_rules", arguments={"scoring_rules": {"mean": "mean"}}),
            "Expected members with posterior draws",
        ),
        ({"train": {"inference_network": {"name": "flow_matchin"}}}, "Did you mean 'flow_matching'"),
        ({"train": {"summary_network": None}}, "summary_network go together"),
        ({"compose": {}}, "Expected a DiffusionModel, whose scores can be composed, got FlowMatching"),
        (ENSEMBLE | {"compose": {}}, "Expected either compose or ensemble, got both"),
        (_beside(conditions=["y"]), r"compose\.likelihood\.conditions, got 'y'\. Known: x"),
        (_beside(conditions=["x"]), "Expected parameters and observables, got .*theta"),
        (_beside(network={"name": "consistency_model"}), "Expected a network with a density"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_work_starts(
    changes: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unknown, has no density or draws, or cannot be composed ends a run before there is a run, a
    store or a simulation."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        start_run(question_of(small_experiment(changes)))
    assert not list(tmp_path.iterdir())


class _KnowsNoPrior:
    """A study whose simulator has a prior without a density, and which gives no score."""

    simulator, parameter_names = STUDY.simulator, STUDY.parameter_names


def test_a_prior_that_nobody_knows_is_refused_before_work_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a prior score of the study the network has to learn the prior: a network that drops no
    conditions is refused."""
    arguments = {"widths": [16, 16], "drop_conditions": 0.0}
    known = small_experiment(
        COMPOSED | {"train": {"inference_network": {"name": "diffusion_model", "arguments": arguments}}}
    )
    assert workflow_of(question_of(known)).approximator.kind == "compositional"
    monkeypatch.setattr("sbi_models.pipeline.studies.michelson.STUDY", _KnowsNoPrior())
    with pytest.raises(ConfigurationError, match=r"Expected a prior to compose with.*method prior_score"):
        workflow_of(question_of(known))
    with pytest.raises(ConfigurationError, match=r"prior with a density.*got none for 'theta'.*method prior"):
        likelihood_workflow_of(question_of(small_experiment(_beside())))
    assert workflow_of(question_of(small_experiment(COMPOSED))).approximator.kind == "compositional"


def test_a_member_without_density_goes_with_equal_weights() -> None:
    """The cure that the message names works: with learn_weights=False, members may have draws only."""
    changes = _members(name="consistency_model")
    changes["ensemble"]["learn_weights"] = False
    assert list(workflow_of(question_of(small_experiment(changes))).approximator.members) == ["a", "b"]


def test_size_mode_clones_the_networks_of_train() -> None:
    """`size` members are named by number and have the networks of `train`, each its own."""
    experiment = small_experiment({"ensemble": {"size": 3}})
    members = workflow_of(question_of(experiment)).approximator.members
    assert list(members) == ["0", "1", "2"]
    assert {member.inference_network.registered_name for member in members.values()} == {
        experiment.train.inference_network.name
    }
    assert len({member.architecture for member in members.values()}) == 1
    assert len({id(member.summary_network) for member in members.values()}) == 3


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_of_the_package_fits_together(name: str) -> None:
    """Each registered experiment has the name that starts it, a model of its own, and settings that make a
    workflow."""
    experiment = load_experiment(name)
    assert experiment.name == experiment.register_as.name == name
    assert set(workflow_of(question_of(experiment)).approximator.members) == (set(experiment.members) or {""})
