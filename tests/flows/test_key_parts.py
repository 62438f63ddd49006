"""Each part of a cache key changes it, and equal parts give equal keys; that code counts is tested
elsewhere."""

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import ENSEMBLE, small_experiment

from sbi_models.pipeline import cache, import_closure
from sbi_models.pipeline.cache import content_key
from sbi_models.pipeline.experiment.composition_settings import Compose, ComposedLikelihood
from sbi_models.pipeline.experiment.question import Question, question_of
from sbi_models.pipeline.experiment.settings import Experiment, Sequential
from sbi_models.pipeline.experiment.training_settings import Network
from sbi_models.pipeline.steps import compose, diagnose, infer, likelihood, sequential, simulate, train

SMALL = small_experiment({})
TRAINING = {"key": "k", "sha256": "f" * 64}
CONTENT = {"training": "a", "validation": "v", "test": "t"}


@pytest.fixture(autouse=True)
def same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that never changes, and takes no time to read."""
    monkeypatch.setattr(cache, "code_fingerprint", lambda module: module)
    monkeypatch.setattr(cache, "sources_of", lambda things: {})


def _arguments(experiment: Experiment, **changed: Any) -> dict[str, Any]:
    """Arguments that the tasks of steps get, as far as keys look at them."""
    return {
        "question": question_of(experiment),
        "training": SimpleNamespace(**TRAINING | changed.get("training", {})),
        "learned": SimpleNamespace(sha256=changed.get("learned", "l")),
        "simulations": SimpleNamespace(content_hash=CONTENT | changed.get("content", {})),
    }


def _key_of_task(step: Any, arguments: dict[str, Any]) -> str:
    """The key under which Prefect keeps the outcome of a step."""
    return str(step.task.cache_key_fn(None, arguments))


COMPOSED, IN_ROUNDS = (
    SMALL.model_copy(update={"compose": Compose()}),
    SMALL.model_copy(update={"sequential": Sequential()}),
)
BESIDE = SMALL.model_copy(update={"compose": Compose(likelihood=ComposedLikelihood())})
ONE_OF_TWO = small_experiment(ENSEMBLE)


@pytest.mark.parametrize(
    ("step", "experiment", "inputs"),
    [
        (train.train, SMALL, ["training", "validation"]),
        (train.ensemble, ONE_OF_TWO, ["training", "validation"]),
        (sequential.sequential, IN_ROUNDS, ["sha256"]),
        (diagnose.diagnose, SMALL, ["key", "sha256", "test"]),
        (infer.infer, SMALL, ["sha256"]),
        (compose.compose, COMPOSED, ["sha256"]),
        (likelihood.likelihood, BESIDE, ["training", "validation"]),
        (simulate.simulate, SMALL, []),
    ],
    ids=["train", "ensemble", "sequential", "diagnose", "infer", "compose", "likelihood", "simulate"],
)
def test_a_step_is_kept_by_each_of_its_inputs(step: Any, experiment: Experiment, inputs: list[str]) -> None:
    """The key of the task changes with each file or data set that the step reads and with the seed, and with
    no other file."""
    base = _key_of_task(step, _arguments(experiment))
    assert base == _key_of_task(step, _arguments(experiment.model_copy(deep=True)))
    changes = {name: {"training": {name: "other"}} for name in TRAINING}
    changes |= {name: {"content": {name: "other"}} for name in CONTENT}
    keys = {name: _key_of_task(step, _arguments(experiment, **change)) for name, change in changes.items()}
    assert [name for name, key in keys.items() if key != base] == sorted(inputs, key=[*keys].index)
    assert len({keys[name] for name in inputs}) == len(inputs)
    assert _key_of_task(step, _arguments(experiment.model_copy(update={"seed": 12}))) != base


SETTINGS: list[tuple[str, Callable[[Question], str], Experiment, str, dict[str, Any]]] = [
    ("train", lambda q: train.train_key(q, CONTENT), SMALL, "train", {"epochs": 4, "batch_size": 128}),
    ("ensemble", lambda q: train.train_key(q, CONTENT), ONE_OF_TWO, "ensemble", {"data_reuse": 1.0}),
    ("sequential", lambda q: sequential.sequential_key(q, "f"), IN_ROUNDS, "sequential", {"widening": 4.0}),
    ("infer", lambda q: infer.infer_key(q, "f"), SMALL, "infer", {"num_samples": 7, "num_proposals": 99}),
    ("simulate", simulate.simulate_key, SMALL, "simulate", {"training": 9, "validation": 9, "test": 99}),
    (
        "compose",
        lambda q: compose.compose_key(q, "f"),
        COMPOSED,
        "compose",
        {"num_samples": 7, "method": "gauss", "calibration_simulations": 9, "noise": 0.5}
        | {"likelihood": ComposedLikelihood()},
    ),
    (
        "diagnose",
        lambda q: diagnose.diagnose_key(q, CONTENT, SimpleNamespace(**TRAINING)),  # type: ignore[arg-type]
        SMALL,
        "diagnose",
        {"num_samples": 70, "disagreement_samples": 7},
    ),
]


@pytest.mark.parametrize(
    ("key", "experiment", "section", "changes"),
    [row[1:] for row in SETTINGS],
    ids=[row[0] for row in SETTINGS],
)
def test_each_setting_of_a_step_changes_its_key(
    key: Callable[[Question], str], experiment: Experiment, section: str, changes: dict[str, Any]
) -> None:
    """Another value of one setting of the step's own section is another key; an equal section is the same."""
    own = getattr(experiment, section)
    others = [{}, *({name: value} for name, value in changes.items())]
    made = [
        key(question_of(experiment.model_copy(update={section: own.model_copy(update=update)})))
        for update in others
    ]
    assert len(set(made)) == len(made)
    assert made[0] == key(question_of(experiment))


def test_a_composition_is_kept_by_the_file_of_its_likelihood() -> None:
    """Another learned likelihood, and none, are other keys."""
    question = question_of(BESIDE)
    assert len({compose.compose_key(question, "f", sha256) for sha256 in ("l", "m", None)}) == 3
    assert _key_of_task(compose.compose, _arguments(BESIDE)) != _key_of_task(
        compose.compose, _arguments(BESIDE, learned="m")
    )


def test_each_setting_of_a_likelihood_changes_its_key_and_no_other_setting_of_the_composition() -> None:
    """Network, conditions, number of simulations and training; not the number of draws."""
    assert BESIDE.compose is not None
    changes: list[dict[str, Any]] = [
        {},
        {"network": Network(name="coupling_flow")},
        {"conditions": ["x"]},
        {"simulations": 9},
        {"epochs": 2},
        {"batch_size": 7},
    ]
    made = [
        likelihood.likelihood_key(
            question_of(BESIDE.model_copy(update={"compose": Compose(likelihood=ComposedLikelihood(**one))})),
            CONTENT,
        )
        for one in changes
    ]
    assert len(set(made)) == len(made)
    other = BESIDE.compose.model_copy(update={"num_samples": 7, "noise": 0.5})
    assert made[0] == likelihood.likelihood_key(
        question_of(BESIDE.model_copy(update={"compose": other})), CONTENT
    )


def test_a_composition_and_the_name_of_a_member_are_in_the_key_of_a_training() -> None:
    """A training that will compose is another one; so is an ensemble whose member has another name, by which
    its file, weight and diagnoses go."""
    assert train.train_key(question_of(SMALL), CONTENT) != train.train_key(question_of(COMPOSED), CONTENT)
    assert ONE_OF_TWO.ensemble is not None
    members = {f"{name} again": member for name, member in ONE_OF_TWO.members.items()}
    renamed = ONE_OF_TWO.model_copy(
        update={"ensemble": ONE_OF_TWO.ensemble.model_copy(update={"members": members})}
    )
    assert [*renamed.members.values()] == [*ONE_OF_TWO.members.values()]
    assert train.train_key(question_of(renamed), CONTENT) != train.train_key(question_of(ONE_OF_TWO), CONTENT)


def test_the_order_of_a_mapping_does_not_count_and_the_type_of_its_keys_does() -> None:
    """Mappings that are equal have equal keys, also where their own keys are numbers and texts; what 1 and
    "1" are mapped to can be told apart."""
    one, again = {1: [2], "1": {"a": None}}, {"1": {"a": None}, 1: [2]}
    assert content_key("s", "m", one) == content_key("s", "m", again)
    assert content_key("s", "m", one) != content_key("s", "m", {"1": [2], 1: {"a": None}})
    assert content_key("s", "m", {1: 2}) != content_key("s", "m", {"1": 2})
    assert content_key("s", "m", {"b": 1, "a": 2}) == content_key("s", "m", {"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("name", "level", "package", "absolute"),
    [
        ("x", 0, "p.q", "x"),
        ("x", 1, "p.q", "p.q.x"),
        ("x.y", 2, "p.q", "p.x.y"),
        ("", 1, "p.q", "p.q"),
        ("x", 3, "p.q.r", "p.x"),
        ("x", 7, "p.q", "x"),
    ],
)
def test_relative_imports_are_those_of_python(name: str, level: int, package: str, absolute: str) -> None:
    """As importlib resolves them; one that leads out of the package is looked for at the top."""
    assert import_closure._absolute(name, level, package) == absolute
    if 0 < level <= len(package.split(".")):
        assert absolute == importlib.util.resolve_name("." * level + name, package).removesuffix(".")


def test_the_parents_of_a_name_end_where_a_part_is_missing() -> None:
    """A module comes after the packages that it is in."""
    assert import_closure._parents("p.q.r") == ["p", "p.q", "p.q.r"]
    assert import_closure._parents("p.") == ["p"]
