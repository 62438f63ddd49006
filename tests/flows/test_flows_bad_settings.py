"""Settings that do not fit are errors before anything is simulated or tracked."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from small_run import ENSEMBLE, small_experiment

from flows.cli import EXPERIMENTS
from flows.parameters import load_object
from flows.pipeline import start_run
from flows.training import workflow_of
from sbi_models.errors import ConfigurationError

FLOW = ENSEMBLE["ensemble"]["members"]["flow"]


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ({"size": 0}, "greater than or equal to 2"),
        ({"size": 1}, "greater than or equal to 2"),
        ({}, "Expected either size or members of an ensemble, got neither"),
        ({"size": 2, "members": {"a": FLOW, "b": FLOW}}, "Expected either size or members of an ensemble, got both"),
        ({"members": {"a": FLOW}}, "at least 2 items"),
        ({"members": {"a/b": FLOW, "c": FLOW}}, "should match pattern"),
        ({"size": 2, "data_reuse": 1.5}, "less than or equal to 1"),
        ({"size": 2, "data_reuse": -0.1}, "greater than or equal to 0"),
        ({"size": 2, "data_reus": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_bad_ensembles_are_refused(ensemble: dict, message: str) -> None:
    """A size below two, both modes or none, a lone or misnamed member, data_reuse outside [0, 1] and unknown settings do not validate."""
    with pytest.raises(ValidationError, match=message):
        small_experiment({"ensemble": ensemble})


def _members(**network: object) -> dict:
    return {"ensemble": {"members": {"a": FLOW, "b": {"inference_network": network}}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (_members(name="flow_matchin"), "Did you mean 'flow_matching'"),
        (_members(name="coupling_flow", arguments={"dept": 2}), "Did you mean 'depth'"),
        (_members(name="consistency_model"), "Expected members with a density to learn weights from, got none for 'b'"),
        (_members(name="scoring_rules", arguments={"scoring_rules": {"mean": "mean"}}), "Expected members with posterior draws"),
        ({"train": {"inference_network": {"name": "flow_matchin"}}}, "Did you mean 'flow_matching'"),
        ({"train": {"summary_network": None}}, "summary_network go together"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_work_starts(
    changes: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown networks and arguments, and members without density or draws, end a run before there is a run, a store or a simulation."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        start_run(small_experiment(changes))
    assert not list(tmp_path.iterdir())


def test_a_member_without_density_goes_with_equal_weights() -> None:
    """The cure that the message names works: with learn_weights=False, members may have draws only."""
    changes = _members(name="consistency_model")
    changes["ensemble"]["learn_weights"] = False
    assert list(workflow_of(small_experiment(changes)).approximator.members) == ["a", "b"]


def test_size_mode_clones_the_networks_of_train() -> None:
    """`size` members are named by number and have the networks of `train`, each its own."""
    experiment = small_experiment({"ensemble": {"size": 3}})
    members = workflow_of(experiment).approximator.members
    assert list(members) == ["0", "1", "2"]
    assert {member.inference_network.registered_name for member in members.values()} == {experiment.train.inference_network.name}
    assert len({member.architecture for member in members.values()}) == 1
    assert len({id(member.summary_network) for member in members.values()}) == 3


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_of_the_command_line_fits_together(name: str) -> None:
    """Each registered experiment has the name that starts it, a model of its own, and settings that make a workflow."""
    experiment = load_object(EXPERIMENTS[name])
    assert experiment.name == experiment.register_as.name == name
    assert set(workflow_of(experiment).approximator.members) == (set(experiment.members) or {""})
