import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sbi_models.errors import ModelFileError, TrackingError
from sbi_models.tracking import (
    Store,
    Tracker,
    alias_history,
    is_model_uri,
    list_models,
    load,
    register,
    set_alias,
)

X = np.linspace(0, 1, 60).reshape(3, 20, 1)
CHAMPION = ("champion",)


@pytest.fixture
def run_id(store: Store) -> str:
    return Tracker.start(store, "npe", "first", "key").run_id


@pytest.fixture
def saved(fake_approximators: Callable[..., Path], tmp_path: Path) -> Path:
    return fake_approximators(tmp_path / "any_name.safetensors", shift=1.0)


def test_registering_the_same_file_twice_makes_one_version(store: Store, run_id: str, saved: Path) -> None:
    """The second registration of equal content returns the first version, moves the alias and updates the
    tags."""
    first = register(store, "normal", saved, run_id, aliases=CHAMPION, tags={"nrmse": 0.1})
    second = register(store, "normal", saved, run_id, aliases=["candidate"], tags={"nrmse": 0.2})
    assert (first.version, first.uri, first.aliases, first.reused) == (
        1,
        "models:/normal/1",
        ("champion",),
        False,
    )
    assert (second.version, second.uri, second.aliases, second.reused) == (
        1,
        "models:/normal/1",
        ("candidate",),
        True,
    )
    version = store.client.get_model_version("normal", "1")
    assert version.tags["nrmse"] == "0.2"
    assert len(version.tags["sbi_models.sha256"]) == 64
    assert version.run_id == run_id
    (listing,) = list_models(store)
    assert (listing.name, listing.versions, listing.aliases) == (
        "normal",
        (1,),
        {"champion": 1, "candidate": 1},
    )


def test_new_content_is_a_new_version_and_old_content_takes_the_alias_back(
    store: Store, run_id: str, saved: Path, fake_approximators: Callable[..., Path], tmp_path: Path
) -> None:
    """Another file is version 2 and gets the alias; registering the first again moves the alias back to
    version 1."""
    other = fake_approximators(tmp_path / "other.safetensors", shift=2.0)
    register(store, "normal", saved, run_id, aliases=CHAMPION)
    assert register(store, "normal", other, run_id, aliases=CHAMPION).version == 2
    assert load("models:/normal@champion", store).shift[0] == 2.0  # type: ignore[attr-defined]
    assert register(store, "normal", saved, run_id, aliases=CHAMPION).version == 1
    assert load("models:/normal@champion", store).shift[0] == 1.0  # type: ignore[attr-defined]
    assert load("models:/normal/latest", store).shift[0] == 2.0  # type: ignore[attr-defined]
    assert list_models(store)[0].versions == (1, 2)


def test_loading_gives_back_the_same_approximator(store: Store, run_id: str, saved: Path) -> None:
    """By path, alias, version, run and model name, or file of a run, equal seeds give equal draws."""
    register(store, "normal", saved, run_id, aliases=CHAMPION)
    Tracker.attach(store, run_id).log_file(saved, "checkpoints")
    addresses = [
        saved,
        str(saved),
        "models:/normal@champion",
        "models:/normal/1",
        f"runs:/{run_id}/normal",
        f"runs:/{run_id}/checkpoints/any_name.safetensors",
    ]
    assert [is_model_uri(address) for address in addresses] == [False, False, True, True, True, True]
    draws = [
        load(address, store).sample(num_samples=5, conditions={"x": X}, seed=1)["theta"]
        for address in addresses
    ]
    assert draws[0].shape == (3, 5, 2)
    for other in draws[1:]:
        np.testing.assert_array_equal(other, draws[0])


def test_loading_unpickles_nothing_and_runs_no_code_of_the_model(
    store: Store, run_id: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registered model has no pickle file, loads with unpickling forbidden, and its own code file may be
    broken."""
    register(store, "normal", saved, run_id, aliases=CHAMPION)
    assert store.artifact_location is not None
    written = [path for path in (store.root / "mlruns" / "artifacts").rglob("*") if path.is_file()]
    assert not [
        path
        for path in written
        if path.suffix in {".pkl", ".pickle", ".pt", ".pth"} or "__pycache__" in path.parts
    ]
    (code,) = [path for path in written if path.suffix == ".py"]
    code.write_text("raise RuntimeError('executed')")

    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    assert load("models:/normal@champion", store).shift[0] == 1.0  # type: ignore[attr-defined]


def test_a_file_that_was_changed_after_registration_is_refused(
    store: Store, run_id: str, saved: Path, fake_approximators: Callable[..., Path]
) -> None:
    """Replacing the stored file by another valid one is noticed by its hash; removing it is a
    TrackingError."""
    register(store, "normal", saved, run_id, aliases=CHAMPION)
    (stored,) = (store.root / "mlruns" / "artifacts").rglob("approximator.safetensors")
    fake_approximators(stored, shift=9.0)
    with pytest.raises(ModelFileError, match="changed since"):
        load("models:/normal/1", store)
    stored.unlink()
    with pytest.raises(TrackingError, match="Expected an approximator file"):
        load("models:/normal/1", store)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "models:/norml@champion",
            "There is no registered model 'norml'. Did you mean 'normal'? Known: normal, other.",
        ),
        (
            "models:/normal@champio",
            "Model 'normal' has no alias 'champio'. Did you mean 'champion'? Known: champion.",
        ),
        ("models:/normal/7", "Model 'normal' has no version '7'. Known: 1."),
        ("models:/normal", "Expected models:/NAME@ALIAS"),
        ("runs:/nothing/normal", "Could not find the run 'nothing'"),
    ],
)
def test_unknown_names_are_answered_with_what_there_is(
    store: Store, run_id: str, saved: Path, address: str, message: str
) -> None:
    """An unknown model, alias, version or run is one clear line with the nearest known name."""
    register(store, "normal", saved, run_id, aliases=CHAMPION)
    store.client.create_registered_model("other")
    with pytest.raises(TrackingError) as caught:
        load(address, store)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_that_model_says_which_it_has(store: Store, run_id: str, saved: Path) -> None:
    """runs:/ID/NAME with an unknown NAME lists the models of the run."""
    register(store, "normal", saved, run_id, aliases=CHAMPION)
    with pytest.raises(TrackingError, match="Did you mean 'normal'"):
        load(f"runs:/{run_id}/norml", store)


def test_a_registry_that_does_not_exist_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading models:/... in a folder without a tracking database is a TrackingError and leaves the folder
    empty."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match="Expected a tracking database"):
        load("models:/normal@champion")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_registered_leaves_no_version(
    store: Store, run_id: str, saved: Path, tmp_path: Path
) -> None:
    """A damaged file, an unknown run and a name that MLflow forbids are errors, and no version appears."""
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelFileError):
        register(store, "normal", tmp_path / "damaged.safetensors", run_id)
    with pytest.raises(TrackingError, match="register the model 'normal'"):
        register(store, "normal", saved, "no-such-run")
    with pytest.raises(TrackingError, match="register the model 'a/b'"):
        register(store, "a/b", saved, run_id)
    assert not [listing for listing in list_models(store) if listing.versions]


def test_a_run_that_uses_a_model_again_shows_it(store: Store, run_id: str, saved: Path) -> None:
    """MLflow's page of a run lists the registered versions of the models that it has made or used: the second
    run has the first one's, once, and finds its file by its own address; the run that has made it has no
    input."""
    first = register(store, "normal", saved, run_id)
    again = Tracker.start(store, "npe", "second", "key-2").run_id
    for run in (again, again, run_id):
        assert register(store, "normal", saved, run).version == first.version
    (made,) = store.client.get_run(run_id).outputs.model_outputs
    (used,) = store.client.get_run(again).inputs.model_inputs
    assert used.model_id == made.model_id
    assert not store.client.get_run(run_id).inputs.model_inputs
    (shown,) = json.loads(store.client.get_logged_model(used.model_id).tags["mlflow.modelVersions"])
    assert (shown["name"], int(shown["version"])) == ("normal", 1)
    assert load(f"runs:/{again}/normal", store).shift[0] == 1.0  # type: ignore[attr-defined]


def test_models_have_descriptions_and_metrics(store: Store, run_id: str, saved: Path) -> None:
    """A registered model says what it infers from what, unless somebody has written something else; MLflow's
    record of the model has the metrics of its first registration that has some, without NaN, which MLflow
    would show as 0."""
    register(store, "normal", saved, run_id)
    assert store.client.get_registered_model("normal").description.startswith(
        "Amortized posterior of `theta` given `x`"
    )
    store.client.update_registered_model("normal", "mine")
    register(store, "normal", saved, run_id, metrics={"log_score": -1.5, "nrmse.theta": np.nan})
    register(store, "normal", saved, run_id, metrics={"log_score": -2.5})
    assert store.client.get_registered_model("normal").description == "mine"
    (output,) = store.client.get_run(run_id).outputs.model_outputs
    made = store.client.get_logged_model(output.model_id)
    assert {metric.key: metric.value for metric in made.metrics} == {"log_score": -1.5}


def test_every_change_of_an_alias_is_kept(
    store: Store, run_id: str, saved: Path, fake_approximators: Callable[..., Path]
) -> None:
    """Registrations that move an alias are in its history with user and run, those that leave it where it is
    are not."""
    other = fake_approximators(saved.with_name("other.safetensors"), shift=2.0)
    for file in (saved, saved, other, saved):
        register(store, "normal", file, run_id, aliases=CHAMPION)
    set_alias(store, "normal", "champion", 2, why="by hand, with password=abc")
    assert set_alias(store, "normal", "champion", 1, expected=1) == 2
    moves = alias_history(store, "normal", "champion")
    assert [(move.before, move.after) for move in moves] == [(None, 1), (1, 2), (2, 1), (1, 2)]
    assert [move.why for move in moves] == [f"registered by run {run_id}"] * 3 + [
        "by hand, with password=***"
    ]
    assert all(move.by.count("@") == 1 and move.time.endswith("+00:00") for move in moves)
    assert alias_history(store, "normal", "challenger") == []
