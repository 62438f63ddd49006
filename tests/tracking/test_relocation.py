"""A project that was moved or copied keeps its runs and models where it lies, and leaves those of the
original alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sbi_models.errors import TrackingError
from sbi_models.tracking import Store, Tracker, load, open_store, register
from sbi_models.tracking.store import local_path, relocate_store


@pytest.fixture
def original(store: Store, fake_approximators: Callable[..., Path], tmp_path: Path) -> Path:
    """A project with one run and one model."""
    run = Tracker.start(store, "npe", "first", "key")
    run.log_file(fake_approximators(tmp_path / "a.safetensors", shift=1.0), "checkpoints")
    register(store, "normal", tmp_path / "a.safetensors", run.run_id, aliases=["champion"])
    project = tmp_path / "original project"
    project.mkdir()
    shutil.move(tmp_path / "mlruns", project / "mlruns")
    relocate_store(project)
    return project


def content(folder: Path) -> dict[str, bytes]:
    """Every file below the artifacts."""
    artifacts = folder / "mlruns" / "artifacts"
    return {
        str(path.relative_to(artifacts)): path.read_bytes()
        for path in sorted(artifacts.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_another_place_is_refused_until_it_is_relocated(original: Path, tmp_path: Path, how: str) -> None:
    """A copy and a moved project are refused with the command; after it, models load from the new place,
    without the old one."""
    before, new = content(original), tmp_path / "other place"
    (shutil.copytree if how == "copied" else shutil.move)(original, new)
    with pytest.raises(TrackingError, match=r"moved or copied.*sbi-models relocate"):
        open_store(new)
    done = relocate_store(new)
    assert done.before == ((original / "mlruns" / "artifacts").as_uri(),)
    assert done.copied == 0
    if how == "copied":
        assert content(original) == before
        shutil.rmtree(original)
    store = open_store(new)
    assert load("models:/normal@champion", store).shift[0] == 1.0  # type: ignore[attr-defined]
    assert relocate_store(new).before == ()
    assert not original.exists()


def test_what_a_copy_does_stays_in_the_copy(
    original: Path, tmp_path: Path, fake_approximators: Callable[..., Path]
) -> None:
    """New runs and models of a relocated copy are below it, and files and database of the original are as
    they were."""
    shutil.copytree(original, tmp_path / "copy")
    before = content(original)
    relocate_store(tmp_path / "copy")
    store = open_store(tmp_path / "copy")
    run = Tracker.start(store, "npe", "second", "other key")
    register(
        store,
        "normal",
        fake_approximators(tmp_path / "b.safetensors", shift=2.0),
        run.run_id,
        aliases=["champion"],
    )
    place = local_path(store.client.get_run(run.run_id).info.artifact_uri)
    assert place is not None
    assert place.is_relative_to(tmp_path / "copy")
    assert content(original) == before
    assert load("models:/normal@champion", open_store(original)).shift[0] == 1.0  # type: ignore[attr-defined]
    assert load("models:/normal@champion", store).shift[0] == 2.0  # type: ignore[attr-defined]


def test_files_that_are_in_the_old_place_alone_are_copied(original: Path, tmp_path: Path) -> None:
    """A copy whose models were written into the original gets them, so that it does not need the original any
    more."""
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    shutil.rmtree(copy / "mlruns" / "artifacts")
    (copy / "mlruns" / "artifacts").mkdir()
    assert relocate_store(copy).copied == 2  # of the run, and of the model
    shutil.rmtree(original)
    assert load("models:/normal@champion", open_store(copy)).shift[0] == 1.0  # type: ignore[attr-defined]


def test_other_places_of_files_are_nobodys_business(original: Path, tmp_path: Path) -> None:
    """An experiment whose files are in a bucket, or in a folder that was chosen by hand, moves nowhere and is
    no reason to refuse."""
    store = open_store(original)
    store.client.create_experiment("bucket", artifact_location="s3://bucket/artifacts")
    store.client.create_experiment("by hand", artifact_location=(tmp_path / "elsewhere").as_uri())
    open_store(original)
    shutil.move(original, tmp_path / "moved")
    relocate_store(tmp_path / "moved")
    found = {
        name: open_store(tmp_path / "moved").client.get_experiment_by_name(name)
        for name in ("bucket", "by hand")
    }
    assert [found[name].artifact_location for name in found] == [
        "s3://bucket/artifacts",
        (tmp_path / "elsewhere").as_uri(),
    ]


def test_a_server_is_not_relocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLFLOW_TRACKING_URI names a server, and where nothing was tracked, that is told."""
    with pytest.raises(TrackingError, match="Expected a tracking database"):
        relocate_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(TrackingError, match="Expected a local store to relocate"):
        relocate_store(tmp_path)
