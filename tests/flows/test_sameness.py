"""Two runs compared by what they hold, and in words what else has changed."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from sbi_models import BasicWorkflow, load
from sbi_models.pipeline.run_comparison import (
    changes_since,
    compare_draws,
    compare_hashes,
    compare_models,
    compare_runs,
    training_code,
)
from sbi_models.tracking import RunRecord, Store, Tracker, open_store, provenance
from sbi_models.tracking.provenance import OWN_COMMIT, OWN_DIRTY, OWN_HASH
from sbi_models.tracking.run_environment import machine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small approximator in a file."""
    rng = np.random.default_rng(1)
    theta = rng.normal(size=(64, 1))
    data = {"theta": theta, "x": theta + rng.normal(size=(64, 1))}
    workflow = BasicWorkflow(inference_variables="theta", inference_conditions="x", seed=1, progress=False)
    workflow.fit_offline(data, epochs=1, batch_size=32)
    return workflow.approximator.save(tmp_path_factory.mktemp("models") / "then.safetensors")


def _changed(model: Path, file: Path, change: Any) -> Path:
    """The file with its tensors changed, and its header as it was."""
    tensors = load_file(model)
    save_file(
        change(tensors), file, metadata={"sbi_models": '{"kind": "continuous", "settings": {"info": {}}}'}
    )
    return file


def test_other_settings_beside_the_same_tensors_are_the_same(model: Path, tmp_path: Path) -> None:
    """A file whose hash is another one since its info is: every tensor is the same to the bit, and what is
    written otherwise is named; the key of the task that made it, which follows from code and versions, is
    not."""
    other = load(model, certify=False)
    other.info["trained_by"] = "train-0123"
    assert compare_models(model, other.save(tmp_path / "a.safetensors")) == (True, "the same")
    other.info["note"] = "mine"
    same, words = compare_models(model, other.save(tmp_path / "b.safetensors"))
    assert same
    assert words.startswith("the same in every tensor; the file says otherwise of ")
    assert words.endswith("info.note")
    assert model.read_bytes() != (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("scale", [1e-7, 0.25, np.inf])
def test_other_tensors_are_counted_with_their_distance(model: Path, tmp_path: Path, scale: float) -> None:
    """Of one tensor that is changed, how far it is from what it was, as a share of its largest number; NaN at
    one place is no change."""

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = next(
            name for name, value in tensors.items() if value.is_floating_point() and value.numel() > 8
        )
        moved = tensors[name].clone().reshape(-1)
        moved[0] += scale * float(moved.abs().max())
        return tensors | {name: moved.reshape(tensors[name].shape), "extra": torch.tensor([torch.nan, 1.0])}

    then = _changed(
        model,
        tmp_path / "then.safetensors",
        lambda tensors: tensors | {"extra": torch.tensor([torch.nan, 1.0])},
    )
    same, words = compare_models(then, _changed(model, tmp_path / "now.safetensors", change))
    assert not same
    number = len(load_file(then))
    if np.isinf(scale):
        assert words == f"not the same: 1 of {number} tensors differ, by not a number, or by infinity"
    else:
        found = re.fullmatch(
            rf"not the same: 1 of {number} tensors differ, by at most (\S+) of the largest number of each",
            words,
        )
        assert found is not None
        assert float(found[1]) == pytest.approx(scale, rel=0.5)


def test_other_shapes_and_names_of_tensors_are_told(model: Path, tmp_path: Path) -> None:
    """A tensor that one file alone has, and one of another shape or type, are named."""
    more = _changed(model, tmp_path / "more.safetensors", lambda tensors: tensors | {"extra": torch.zeros(2)})
    wider = _changed(
        model,
        tmp_path / "wider.safetensors",
        lambda tensors: tensors | {"extra": torch.zeros(3, dtype=torch.float64)},
    )
    assert compare_models(model, more) == (
        False,
        "not the same: 1 tensors are in one of them only, such as extra",
    )
    assert compare_models(more, wider)[1].endswith("such as extra, (2,) float32 then and (3,) float64 now")


def test_draws_are_compared_by_values() -> None:
    """Columns of another type with the same values are the same; a posterior that is moved by one sd is told
    so."""
    rng = np.random.default_rng(2)
    then = pd.DataFrame(
        {"data_set": ["1"] * 50 + ["2"] * 50, "draw": [*range(50)] * 2, "theta": rng.normal(size=100)}
    )
    now = then.assign(data_set=then["data_set"].astype("category"))
    assert compare_draws(then, now) == (True, "the same")
    one = then["data_set"] == "2"
    moved = then.assign(theta=np.where(one, then["theta"] + then.loc[one, "theta"].std(), then["theta"]))
    assert compare_draws(then, moved) == (False, "means differ by at most 1.000 sd, sds by 0.0 %")
    assert compare_draws(then, then.rename(columns={"theta": "phi"})) == (
        False,
        "of other data sets or parameters",
    )


def test_data_sets_are_compared_by_name() -> None:
    """The data sets whose content differs, or that one run alone has, are named."""
    assert compare_hashes({"training": "a", "test": "b"}, {"training": "a", "test": "b"}) == (
        True,
        "the same",
    )
    assert compare_hashes({"training": "a", "test": "b"}, {"training": "c", "more": "b"}) == (
        False,
        "not the same: more, test, training",
    )


def test_another_simulator_code_with_the_same_simulations_is_no_difference(tmp_path: Path) -> None:
    """The fingerprint of the simulator covers code and settings: where it is another one, the simulations
    decide."""

    def run(fingerprint: str, content: str) -> Any:
        return SimpleNamespace(
            tags={"simulator.fingerprint": fingerprint, "model.sha256": "m"},
            content_hashes={"training": content},
        )

    same = compare_runs(run("a", "1"), run("b", "1"), tmp_path)
    assert same["simulator"] == (True, "of other code, settings or data, which give the same simulations")
    other = compare_runs(run("a", "1"), run("b", "2"), tmp_path)
    assert (other["simulator"][0], other["simulations"][0]) == (False, False)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"version.torch": "1.0"}, [f"torch {torch.__version__} (was 1.0)"]),
        (
            {OWN_HASH: "0" * 64, OWN_COMMIT: "1" * 40},
            ["code of sbi_models: commit aaaaaaaaaaaa (was 111111111111)"],
        ),
        (
            {OWN_HASH: "0" * 64, OWN_DIRTY: "true"},
            ["code of sbi_models: as it was committed (was changed since its commit)"],
        ),
        ({OWN_HASH: "0" * 64}, ["code of sbi_models: SHA-256 bbbbbbbbbbbb (was 000000000000)"]),
    ],
)
def test_what_has_changed_is_said_in_words(
    changed: dict[str, str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions, commit, changes and hash of the library, and the machine, where a run has noted others than
    there are now."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(
        provenance, "own_tags", lambda: {OWN_HASH: "b" * 64, OWN_COMMIT: "a" * 40, OWN_DIRTY: "false"}
    )
    store: Store = open_store(tmp_path)
    with Tracker.start(store, "npe", "first", "key", folder=tmp_path) as tracker:
        tracker.log_json(
            machine() | ({"torch_threads": 99} if not changed else {}), "environment/machine.json"
        )
        tracker.set_tags(changed | {"code.fingerprint": "c"})
    record = RunRecord.read(store, tracker.run_id)
    assert changes_since(record) == (words or [f"torch threads {torch.get_num_threads()} (was 99)"])
    again: Any = SimpleNamespace(tags={"code.fingerprint": "d"})
    assert training_code(record, again) == "the code of the training has changed"
    assert training_code(record, record) == "the code of the training is the same"
