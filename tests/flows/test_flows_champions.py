"""Histories of champions: who takes over from whom, who does not come back, what the registry says of each,
and the record of it."""

import itertools
import json
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_run import small_experiment

from sbi_models.cli.main import main
from sbi_models.errors import TrackingError
from sbi_models.pipeline import champions
from sbi_models.pipeline.champions import REFERENCE, promote
from sbi_models.pipeline.outcomes import Registered
from sbi_models.pipeline.steps import register as gate
from sbi_models.tracking import Store, alias_history, alias_of, annotate, set_alias
from sbi_models.types import Variables

CALIBRATED = {"is_calibrated": True, "sentence": "Calibrated."}


class Normal:
    """A posterior N(x + bias, scale²) of theta where N(x, 1) is right: bias costs bias² / 2 nats, a scale of
    1 + e about e²."""

    inference_names, condition_names = ("theta",), ("x",)
    members = {"": SimpleNamespace(has_density=True)}  # noqa: RUF012

    def __init__(self, bias: float, scale: float = 1.0) -> None:
        self.bias, self.scale = bias, scale

    def log_prob(self, data: Variables) -> Any:
        return -0.5 * ((data["theta"] - data["x"] - self.bias) / self.scale)[:, 0] ** 2 - np.log(self.scale)


def simulations(n: int) -> Variables:
    """The first n rows of a table of test simulations."""
    noise = np.random.default_rng(6).normal(size=(25_000, 2))[:n]
    return {"x": noise[:, :1], "theta": noise.sum(axis=1, keepdims=True)}


def costing(nats: float) -> Normal:
    """A model that is worse than the right one by so many nats."""
    return Normal(float(np.sqrt(2 * nats)))


_names = (f"line-{i}" for i in itertools.count())


class Line:
    """The versions of one model, each of which the gate judges on 200 test simulations and, where it may, on
    more."""

    def __init__(self, store: Store) -> None:
        self.store, self.name = store, next(_names)
        self.models: dict[str, Any] = {}
        self.asked: list[int] = []
        store.client.create_registered_model(self.name)

    def challenge(self, model: Any, *, most: int | None = None, **settings: Any) -> dict[str, Any]:
        """Register a model as the next version and let the gate judge it."""
        number = len(self.models) + 1
        self.models[f"models:/{self.name}/{number}"] = model
        self.store.client.create_model_version(self.name, f"file:///nowhere/{self.name}/{number}")
        return self.run_again(number, most=most, **settings)

    def run_again(self, number: int, *, most: int | None = None, **settings: Any) -> dict[str, Any]:
        """What a run of the experiment of a version does whose work is all cached."""
        limits = {
            "simulate": {"training": 20_000},
            "gate": {"calibrated": True} | ({} if most is None else {"simulations": most}) | settings,
        }
        uri = f"models:/{self.name}/{number}"
        registered = Registered(name=self.name, version=number, uri=uri, reused=False)
        return gate.judge_challenger(
            self.store, small_experiment(limits), registered, CALIBRATED, simulations(200), tests=self._more
        ).model_dump()

    def _more(self, n: int) -> Variables:
        self.asked.append(n)
        return simulations(n)

    @property
    def champion(self) -> int | None:
        return alias_of(self.store, self.name, "champion")

    def text(self, number: int) -> str:
        return str(self.store.client.get_model_version(self.name, str(number)).description)

    def heads(self) -> list[int]:
        """The versions whose description says that they are the champion."""
        return [
            number
            for number in range(1, len(self.models) + 1)
            if self.text(number).startswith("**Champion**")
        ]


@pytest.fixture
def line(store: Store, monkeypatch: pytest.MonkeyPatch) -> Line:
    made = Line(store)

    def load(address: str, store: Store, *, certify: bool) -> Any:
        if address not in made.models:
            raise TrackingError(f"There is no {address}.")
        return made.models[address]

    monkeypatch.setattr(gate, "load", load)
    return made


@pytest.mark.nightly
def test_a_history_of_worse_equal_and_better_challengers(line: Line) -> None:
    """A challenger that is worse by 0.04 nats is refused; one that is equal takes over as "equal to", one
    that is better as "better than"; old ones do not come back when their experiments run again; one
    description at a time says champion, the former ones until when."""
    assert line.challenge(costing(0.03))["champion"] == 1
    worse = line.challenge(Normal(-np.sqrt(2 * 0.07)))
    assert (worse["promoted"], worse["champion"], line.champion) == (False, 1, 1)
    assert worse["reasons"][0].startswith(f"worse than models:/{line.name}/1: log density -0.0")
    assert worse["comparisons"][0]["difference"] == pytest.approx(-0.04, abs=0.01)
    assert line.asked[-1] > 1000
    equal = line.challenge(Normal(np.sqrt(0.06), 1.004))
    assert (equal["promoted"], line.champion) == (True, 3)
    assert equal["reasons"][-1].startswith(f"equal to models:/{line.name}/1 within 0.02 nats: log density ")
    better = line.challenge(costing(0.0))
    assert (better["promoted"], line.champion) == (True, 4)
    assert better["reasons"][-2].startswith(f"better than models:/{line.name}/3: log density +0.0")
    assert line.heads() == [4]
    for number in (1, 3):
        again = line.run_again(number)
        assert (again["promoted"], again["champion"], line.champion) == (False, 4, 4)
        assert again["reasons"][0].startswith("it was champion before: only `sbi-models promote")
    assert not line.run_again(2)["promoted"]
    assert line.run_again(4)["reasons"][0] == "it is the champion already"
    assert line.heads() == [4]
    moves = alias_history(line.store, line.name, "champion")
    assert [(move.before, move.after) for move in moves] == [(None, 1), (1, 3), (3, 4)]
    assert [move.why.partition("models:")[0] for move in moves] == [
        "by the gate: there is no champion to compare with",
        "by the gate: equal to ",
        "by the gate: better than ",
    ]
    assert all("@" in move.by for move in moves)


def test_a_history_of_small_steps_down_and_a_way_back(line: Line) -> None:
    """Challengers that are worse than the one before by 0.012 nats, which is within the margin: only the
    first takes over, since the next is also compared with the version that this one is equal to. By hand the
    old one comes back, and is the measure again."""
    line.challenge(costing(0.0))
    assert line.challenge(costing(0.012))["champion"] == 2
    second = line.challenge(costing(0.024))
    assert (second["promoted"], line.champion) == (False, 2)
    assert [found["version"] for found in second["comparisons"]] == [2, 1]
    assert any(f"models:/{line.name}/1" in reason for reason in second["reasons"])
    assert line.store.client.get_model_version(line.name, "2").tags[REFERENCE] == "1"
    assert promote(line.store, line.name, 3, why="it is smaller") == 2
    assert REFERENCE not in line.store.client.get_model_version(line.name, "3").tags
    assert line.challenge(costing(0.03))["champion"] == 4
    assert promote(line.store, line.name, 1) == 4
    assert line.heads() == [1]
    assert "took over" in line.text(4)
    (by_hand,) = [move for move in alias_history(line.store, line.name, "champion") if move.after == 3]
    assert (by_hand.before, by_hand.why) == (2, "promoted by hand: it is smaller")


def test_a_champion_is_measured_by_the_oldest_of_those_that_it_is_equal_to(line: Line) -> None:
    """Versions 2 and 3 are equal within the margin: both have version 1 for their measure."""
    for nats in (0.0, 0.01, 0.01):
        assert line.challenge(costing(nats))["promoted"]
    tags = [line.store.client.get_model_version(line.name, str(number)).tags for number in (1, 2, 3)]
    assert [tag.get(REFERENCE) for tag in tags] == [None, "1", "1"]


def test_what_is_not_known_is_refused_with_the_number_that_would_tell(line: Line) -> None:
    """200 simulations do not tell 0.04 nats: without more of them the challenger is refused as "not known",
    and told what would tell."""
    line.challenge(costing(0.0))
    decision = line.challenge(costing(0.04), most=0)
    assert (decision["promoted"], line.asked) == (False, [])
    (reason,) = decision["reasons"]
    assert reason.startswith(
        f"not known whether it is worse than models:/{line.name}/1 by more than 0.02 nats: "
    )
    wanted = int(re.findall(r"gate: \{simulations: (\d+)\}", reason)[0])
    assert 2000 < wanted < 10_000
    assert line.run_again(2, most=wanted)["comparisons"][0]["word"] == "worse"
    assert line.run_again(2, margin=0.2, most=0)["promoted"]


def test_an_older_version_takes_over_only_if_it_is_better(line: Line) -> None:
    """A version that was refused for its verdict and is equal to a newer champion stays where it is when its
    experiment runs again."""
    line.models[f"models:/{line.name}/1"] = costing(0.01)
    line.store.client.create_model_version(line.name, "file:///nowhere")
    line.challenge(costing(0.01))
    decision = line.run_again(1)
    assert (decision["promoted"], line.champion) == (False, 2)
    assert decision["reasons"][0].endswith("It is older: only a better one would take over")
    line.models[f"models:/{line.name}/1"] = costing(0.0)
    line.models[f"models:/{line.name}/2"] = costing(0.1)
    assert line.run_again(1)["champion"] == 1


def test_another_champion_that_comes_meanwhile_is_judged_against(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a challenger is compared with version 1, another run makes version 2 champion: it must pass that
    one, too."""
    line.challenge(costing(0.1))
    line.models[f"models:/{line.name}/2"] = costing(0.0)
    line.store.client.create_model_version(line.name, "file:///nowhere")
    judged: list[Any] = []
    compare: Callable[..., Any] = gate.compare

    def meanwhile(new: Any, old: Any, *more: Any, **settings: float) -> Any:
        if not judged:
            promote(line.store, line.name, 2)
        judged.append(old)
        return compare(new, old, *more, **settings)

    monkeypatch.setattr(gate, "compare", meanwhile)
    decision = line.challenge(costing(0.05))
    assert (decision["promoted"], decision["before"], line.champion) == (False, 2, 2)
    assert decision["reasons"][0].startswith(f"worse than models:/{line.name}/2")


def test_descriptions_follow_an_alias_that_others_move(line: Line) -> None:
    """After another program has moved the alias, or where an earlier release has left several champions in
    words, the next run puts the descriptions right, keeps their reasons, and notes the move; a former
    champion of an earlier release does not come back."""
    for _ in range(3):
        line.challenge(costing(0.0), calibrated=False, not_worse=False)
    for number in (1, 2, 3):
        annotate(
            line.store,
            line.name,
            number,
            tags={"gate": "passed"},
            description=f"**Champion**: version {number}.\n\n- reason {number}",
        )
    for tag in [
        tag for tag in line.store.client.get_registered_model(line.name).tags if tag.startswith("moved.")
    ]:
        line.store.client.delete_registered_model_tag(line.name, tag)
    line.store.client.set_registered_model_alias(line.name, "champion", "2")
    assert line.run_again(2)["promoted"]
    assert line.heads() == [2]
    assert line.text(1) == "Was champion, until when is not known; version 2 is now.\n\n- reason 1"
    assert not line.run_again(1, not_worse=False)["promoted"]
    assert [(move.before, move.after) for move in alias_history(line.store, line.name, "champion")] == [
        (None, 2)
    ]
    line.store.client.set_registered_model_alias(line.name, "champion", "3")
    line.run_again(3)
    assert line.heads() == [3]
    assert line.text(2).splitlines()[0].endswith("when version 3 took over.")


def test_the_history_is_shown(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sbi-models champions` lists each change with time, versions, user and reason, in words and as JSON,
    and says if there are gaps."""
    line.challenge(costing(0.1))
    line.challenge(costing(0.0))
    monkeypatch.chdir(line.store.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COLUMNS", "400")

    def shown(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sbi-models", "champions", line.name, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr().out

    words = shown()
    assert re.search(
        r"\d{4}-\d\d-\d\d \d\d:\d\d UTC +2 +1 +\S+@\S+ +by the gate: better than models:/", words
    )
    assert f"{line.name}: version 2 is the champion" in words
    assert "gaps" not in words
    told = json.loads(shown("--json"))
    assert (told["champion"], told["history_is_complete"]) == (2, True)
    assert [(move["from"], move["to"]) for move in told["history"]] == [(None, 1), (1, 2)]
    set_alias(line.store, line.name, "champion", 1, why="in Python")
    assert "in Python" in shown()
    line.store.client.set_registered_model_alias(line.name, "champion", "2")
    assert "The history has gaps" in shown()


def test_a_change_that_was_edited_is_told(line: Line) -> None:
    """A tag with a change that somebody has edited is an error with its name."""
    line.challenge(costing(0.0))
    (tag,) = [
        tag
        for tag in line.store.client.get_registered_model(line.name).tags
        if tag.startswith("moved.champion.")
    ]
    line.store.client.set_registered_model_tag(line.name, tag, "{")
    with pytest.raises(TrackingError, match=f"in the tag {re.escape(tag)}"):
        champions.was_champion(line.store, line.name, 1)
