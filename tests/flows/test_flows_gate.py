"""The gate between challenger and champion: its decisions on real models in a real registry."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from small_run import small_experiment

from sbi_models import BasicWorkflow, seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import CouplingFlow, DeepSet
from sbi_models.pipeline.champions import promote
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.outcomes import Registered
from sbi_models.pipeline.steps.register import check_gate, judge_challenger
from sbi_models.pipeline.studies.michelson import STUDY
from sbi_models.tracking import Store, Tracker, alias_of, register

CALIBRATED = {"is_calibrated": True, "sentence": "Calibrated."}
PRIOR = {
    "label": "uninformative",
    "is_calibrated": False,
    "sentence": "Uninformative.",
    "parameters": {"mu": {"label": "uninformative"}},
}
PARTLY = {
    "label": "calibrated",
    "is_calibrated": True,
    "sentence": "Calibrated, but nothing is learnt about mu.",
    "parameters": {"mu": {"label": "uninformative"}, "log_variance": {"label": "calibrated"}},
}
BIASED = {"is_calibrated": False, "sentence": "Biased: mu is too high."}
TEST = STUDY.simulator.sample(100, seed=5)


Judge = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Approximators on Michelson's model: hardly trained, trained for a second, trained on, and one that
    infers something else."""
    folder = tmp_path_factory.mktemp("models")
    workflow = BasicWorkflow(
        STUDY.simulator,
        inference_variables="theta",
        summary_variables="x",
        standardize="all",
        inference_network=CouplingFlow(depth=2, widths=(16,)),
        summary_network=DeepSet(summary_dim=4, widths=(16,), head_widths=(16,)),
        initial_learning_rate=3e-3,
        seed=1,
        progress=False,
    )
    made = {}
    for name, batches in {"poor": 1, "fair": 60, "good": 60}.items():
        workflow.fit_online(epochs=1, num_batches_per_epoch=batches, batch_size=64)
        made[name] = workflow.approximator.save(folder / f"{name}.safetensors")
    roles = {"inference_variables": ["phi"], "summary_variables": ["x"]}
    networks = {"inference_network": CouplingFlow(), "summary_network": DeepSet()}
    other = ContinuousApproximator(
        adapter=default_adapter(roles), roles=roles, standardize=tuple(roles), **networks
    )
    other.build({"phi": TEST["theta"], "x": TEST["x"]}, seed=0)
    return made | {"other": other.save(folder / "other.safetensors")}


_names = (f"gated-{i}" for i in itertools.count())


@pytest.fixture
def judge(store: Store, files: dict[str, Path]) -> Judge:
    """Registers a file as the next version of a model of the test's own and lets the gate judge it;
    `judge.name` is the model."""
    name = next(_names)
    run_id = Tracker.attach(store, store.client.create_run(store.experiment("gate")).info.run_id).run_id

    def judge(file: str, verdict: Any = CALIBRATED, **settings: Any) -> dict[str, Any]:
        experiment = small_experiment(
            {"gate": {"calibrated": True} | settings, "register_as": {"name": name}}
        )
        version = register(store, name, files[file], run_id, aliases=("challenger",))
        registered = Registered(
            uri=version.uri, name=version.name, version=version.version, reused=version.reused
        )
        return judge_challenger(store, experiment, registered, verdict, TEST).model_dump()

    judge.name = name  # type: ignore[attr-defined]
    return judge


def _notes(store: Store, name: str, version: int) -> tuple[dict[str, str], str]:
    found = store.client.get_model_version(name, str(version))
    return found.tags, found.description


# Seconds: the models that tests of this file share are trained.
def test_the_first_calibrated_version_is_the_champion(store: Store, judge: Judge) -> None:
    """With nothing to compare with, the verdict decides; judged again, it stays champion, and its page stays
    as it was."""
    decision = judge("fair")
    assert decision == {
        "promoted": True,
        "champion": 1,
        "before": None,
        "reasons": decision["reasons"],
        "comparisons": [],
    }
    assert decision["reasons"] == ["verdict: Calibrated.", "there is no champion to compare with"]
    again = judge("fair")
    assert (again["promoted"], again["champion"], again["before"]) == (True, 1, 1)
    assert again["reasons"] == ["it is the champion already", "verdict: Calibrated."]
    assert alias_of(store, judge.name, "champion") == 1
    tags, description = _notes(store, judge.name, 1)
    assert tags["gate"] == "passed"
    assert description.startswith("**Champion**")
    assert "- there is no champion to compare with" in description


def test_an_uncalibrated_first_version_is_refused(store: Store, judge: Judge) -> None:
    """A verdict other than calibrated leaves the model without a champion, unless the settings do not ask for
    calibration."""
    decision = judge("fair", BIASED)
    assert (decision["promoted"], decision["champion"], decision["before"]) == (False, None, None)
    assert decision["reasons"] == ["verdict: Biased: mu is too high."]
    assert alias_of(store, judge.name, "champion") is None
    assert alias_of(store, judge.name, "challenger") == 1
    tags, description = _notes(store, judge.name, 1)
    assert (tags["gate"], tags["gate.reason"]) == ("refused", "verdict: Biased: mu is too high.")
    assert "there is none" in description
    assert judge("fair", BIASED, calibrated=False)["champion"] == 1


@pytest.mark.parametrize("verdict", [PRIOR, PARTLY])
def test_a_posterior_that_is_the_prior_is_no_champion(
    store: Store, judge: Judge, verdict: dict[str, Any]
) -> None:
    """Of one parameter or of all: the first version is refused, the reason names the parameter and the cure;
    the setting allows it."""
    decision = judge("fair", verdict)
    assert (decision["promoted"], decision["champion"]) == (False, None)
    assert alias_of(store, judge.name, "champion") is None
    (reason,) = decision["reasons"]
    assert reason.startswith(f"verdict: {verdict['sentence']} The posterior of mu may be the prior")
    assert "gate: {uninformative: [mu]}" in reason
    assert not judge("fair", verdict, uninformative=["log_variance"])["promoted"]
    assert judge("fair", verdict, uninformative=["mu"])["champion"] == 1


def test_parameters_of_the_gate_are_those_of_the_study() -> None:
    """A misspelt parameter that may be uninformative is an error, before anything is simulated."""
    with pytest.raises(ConfigurationError, match=r"Expected parameters in gate\.uninformative, got 'my'"):
        check_gate(question_of(small_experiment({"gate": {"uninformative": ["my"]}})))


def test_an_under_trained_challenger_is_refused_and_a_better_one_promoted(store: Store, judge: Judge) -> None:
    """The champion stays against a network that is hardly trained, with the reason in nats on its page; one
    trained longer takes over."""
    judge("fair")
    decision = judge("poor")
    assert (decision["promoted"], decision["champion"], decision["before"]) == (False, 1, 1)
    assert alias_of(store, judge.name, "champion") == 1
    assert alias_of(store, judge.name, "challenger") == 2
    (reason,) = decision["reasons"]
    assert reason.startswith(f"worse than models:/{judge.name}/1: log density -")
    assert reason.endswith("on 100 test simulations; the margin is 0.02")
    assert decision["comparisons"][0]["word"] == "worse"
    tags, description = _notes(store, judge.name, 2)
    assert (tags["gate"], tags["gate.reason"]) == ("refused", reason)
    assert description == f"**Refused** as champion; version 1 stays.\n\n- {reason}"

    decision = judge("good")
    assert (decision["promoted"], decision["champion"], decision["before"]) == (True, 3, 1)
    assert alias_of(store, judge.name, "champion") == 3
    tags, description = _notes(store, judge.name, 3)
    assert tags["gate"] == "passed"
    assert f"better than models:/{judge.name}/1" in description


def test_all_reasons_of_a_refusal_are_told(judge: Judge) -> None:
    """A challenger that is neither calibrated nor as good has both reasons; without `not_worse`, nothing is
    compared."""
    judge("fair")
    assert len(judge("poor", BIASED)["reasons"]) == 2
    assert judge("poor", not_worse=False)["promoted"]


def test_a_model_of_other_variables_is_refused(store: Store, judge: Judge) -> None:
    """What infers another parameter under the same name does not replace the champion, and is told to take a
    name of its own."""
    judge("fair")
    decision = judge("other")
    assert alias_of(store, judge.name, "champion") == 1
    assert decision["reasons"] == [
        f"it infers phi from x, but models:/{judge.name}/1 infers theta from x: register it under "
        "another name"
    ]


def test_what_cannot_be_compared_is_refused(
    store: Store, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the comparison, and a champion whose file is damaged, are reasons and no crash; draws have
    the experiment's seed."""
    judge("fair")
    seeds = []

    def fail(new: object, old: object, test: object, seed: int, **settings: float) -> None:
        seeds.append(seed)
        raise DataError("Expected 20 speeds.")

    with monkeypatch.context() as patch:
        patch.setattr("sbi_models.pipeline.steps.register.compare", fail)
        (reason,) = judge("good")["reasons"]
        assert reason.startswith(f"it cannot be compared with models:/{judge.name}/1: Expected 20 speeds.")
        assert reason.endswith(f"sbi-models promote models:/{judge.name}/2.")
    assert seeds == [seeding.derive(small_experiment({}).seed, "gate")]
    (file,) = Path(url2pathname(urlsplit(store.client.get_model_version(judge.name, "1").source).path)).rglob(
        "*.safetensors"
    )
    file.write_bytes(b"damaged")
    (reason,) = judge("good")["reasons"]
    assert reason.startswith(f"it cannot be compared with models:/{judge.name}/1: ")


def test_a_version_that_was_rolled_back_is_not_promoted_by_the_gate(store: Store, judge: Judge) -> None:
    """`promote` returns the champion before, which the gate then refuses until it is promoted by hand, as it
    does every former champion."""
    judge("fair")
    judge("good")
    assert promote(store, judge.name, 1, why="a wrong prior") == 2
    assert alias_of(store, judge.name, "champion") == 1
    assert _notes(store, judge.name, 1)[0]["gate.reason"] == "promoted by hand: a wrong prior"
    assert _notes(store, judge.name, 2)[1].startswith("Was champion until")

    decision = judge("good")
    assert (decision["promoted"], decision["champion"]) == (False, 1)
    assert decision["reasons"][0].startswith(
        f"it was champion before: only `sbi-models promote models:/{judge.name}/2`"
    )
    assert alias_of(store, judge.name, "champion") == 1

    assert promote(store, judge.name, 2) == 1
    assert judge("good")["champion"] == 2
    assert not judge("fair")["promoted"]


def test_a_champion_by_hand_stays_one(store: Store, judge: Judge) -> None:
    """A version that the gate refused and that was promoted by hand is not called refused when its experiment
    runs again."""
    judge("fair", BIASED)
    promote(store, judge.name, 1)
    decision = judge("fair", BIASED)
    assert (decision["promoted"], decision["champion"]) == (True, 1)
    assert decision["reasons"] == ["it is the champion already", "verdict: Biased: mu is too high."]
    assert _notes(store, judge.name, 1)[0]["gate"] == "passed"
