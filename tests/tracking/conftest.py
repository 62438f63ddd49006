"""A store for each test, copied from one that is built once, and an approximator small enough to check by
hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sbi_models.approximators
from sbi_models.approximators import Certificate
from sbi_models.errors import DataError, ModelFileError
from sbi_models.tracking import Store, loading, open_store, registry
from sbi_models.types import Array


class Shift:
    """A posterior of unit normals around mean(x) + shift: theta of width 2 given x of shape (num_datasets,
    n_obs, 1)."""

    shapes = {"theta": (2,), "x": (20, 1)}  # noqa: RUF012 - as the real thing has it
    inference_names = ("theta",)
    condition_names = ("x",)
    may_miss: frozenset[str] = frozenset()
    any_length: dict[str, int] = {}  # noqa: RUF012
    info: dict[str, object] = {}  # noqa: RUF012
    has_draws = True

    def __init__(self, path: Path | str) -> None:
        try:
            self.shift = load_file(path)["shift"]
        except Exception as error:
            raise ModelFileError(f"{path} is damaged") from error

    def sample(self, *, num_samples: int, conditions: dict[str, Array], seed: int | None) -> dict[str, Array]:
        x = conditions["x"]
        if x.ndim != 3 or x.shape[1:] != (20, 1):
            raise DataError(f"Expected x of shape (num_datasets, 20, 1), got {x.shape}.")
        noise = np.random.default_rng(seed).normal(size=(len(x), num_samples, 2))
        return {"theta": (x.mean(axis=(1, 2))[:, None, None] + self.shift + noise).astype(np.float32)}

    def log_prob(self, data: dict[str, Array]) -> Array:
        """Needs one observation for each row of theta (n, 2)."""
        assert data["theta"].shape == (len(data["x"]), 2)
        error = data["theta"] - data["x"].mean(axis=(1, 2))[:, None] - self.shift
        return (-0.5 * error**2 - 0.5 * np.log(2 * np.pi)).sum(axis=1).astype(np.float64)

    def certify(self, conditions: dict[str, Array], *, seed: int | None) -> list[Certificate]:
        """Data sets with a number above 100 fail."""
        x = np.asarray(conditions["x"])
        return [Certificate(novelty=0.001 if row.max() > 100 else 0.5, unusual=("x is high",)) for row in x]


class TwoByTwo(Shift):
    """Two variables given two conditions: {"a": (1,), "b": (2,)} given {"x": (20, 1), "z": (3,)}."""

    shapes = {"a": (1,), "b": (2,), "x": (20, 1), "z": (3,)}  # noqa: RUF012
    inference_names = ("a", "b")
    condition_names = ("x", "z")

    def sample(self, *, num_samples: int, conditions: dict[str, Array], seed: int | None) -> dict[str, Array]:
        theta = super().sample(num_samples=num_samples, conditions={"x": conditions["x"]}, seed=seed)["theta"]
        return {"a": theta[..., :1], "b": theta + conditions["z"].sum()}


def write_approximator(path: Path, shift: float = 0.0, kind: str = "shift") -> Path:
    save_file({"shift": np.full(2, shift, dtype=np.float32)}, path, metadata={"kind": kind})
    return path


def load_fake(path: Path | str) -> Shift:
    return TwoByTwo(path) if b'"two_by_two"' in Path(path).read_bytes() else Shift(path)


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
