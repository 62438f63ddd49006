"""A store for each test, copied from one that is built once, and the fakes that it may hold."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import load_fake, write_approximator
from quick_mlflow import keep_what_does_not_change

import sbi_models.approximators
from sbi_models.tracking import Store, loading, open_store, registry

keep_what_does_not_change()


@pytest.fixture
def fake_approximators(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes `load_approximator` read the files of `write_approximator`, which is handed out."""
    for module in (sbi_models.approximators, loading, registry):
        monkeypatch.setattr(module, "load_approximator", load_fake)
    return write_approximator


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A fresh local store below tmp_path; fails a test that leaves something in the current folder, as
    MLflow's defaults would."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    yield open_store(tmp_path)
    assert not list(current.iterdir())
