"""Simulations on disk: a folder of shards and a manifest, with a hash of the content.

    folder/
      manifest.json            seed, fingerprint of the simulator, number of simulations, shape of each variable, sha256 of each shard
      shard-00000.safetensors  rows 0 .. rows_per_shard - 1 of the table of simulations

Shards are written atomically, the manifest last, so that a folder with a manifest is whole.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file, save

from sbi_models.errors import DataError
from sbi_models.progress import progress_bar
from sbi_models.types import Variables

SCHEMA_VERSION = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class SimulationStore:
    """A finished store; make one with `create`, find one with `open`."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def num_simulations(self) -> int:
        """Rows of the store."""
        return int(self.manifest["num_simulations"])

    @property
    def content_hash(self) -> str:
        """sha256 over the values of all shards: equal exactly if shard size and simulations are equal to the bit, whatever their origin."""
        return str(self.manifest["content_hash"])

    def load(self) -> Variables:
        """All simulations, raw space: name to array of shape (num_simulations, ...). Raises DataError if a shard is damaged."""
        parts = []
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            if not path.is_file() or _sha256(path.read_bytes()) != shard["sha256"]:
                raise DataError(
                    f"Shard {path} is missing or damaged: delete the folder {self.folder} and simulate again with the same seed."
                )
            parts.append(load_file(path))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def is_intact(self) -> bool:
        """True if every shard is there with the content that the manifest promises."""
        shards = [(self.folder / shard["file"], shard["sha256"]) for shard in self.manifest["shards"]]
        return all(path.is_file() and _sha256(path.read_bytes()) == sha256 for path, sha256 in shards)

    @classmethod
    def open(cls, folder: str | Path) -> "SimulationStore":
        """A store that was made before; raises DataError if there is none."""
        folder = Path(folder)
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
        except FileNotFoundError:
            raise DataError(f"No simulation store at {folder}: expected a folder with a {_MANIFEST}.") from None
        except ValueError as error:
            raise DataError(f"{folder / _MANIFEST} is not readable: {error}. Delete the folder and simulate again.") from None
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise DataError(f"The store {folder} has schema {manifest.get('schema_version')}; this version reads {SCHEMA_VERSION}.")
        return cls(folder, manifest)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        rows: Callable[[int, int], Variables],
        num_simulations: int,
        *,
        seed: int,
        fingerprint: str,
        rows_per_shard: int = 32_768,
        description: str = "simulate",
    ) -> "SimulationStore":
        """Compute rows 0..num_simulations and write them; shards that are there already, whole and of the same origin, are kept.

        Args:
            folder: where to write; made if missing.
            rows: computes rows start..stop of the table of simulations, raw space.
            num_simulations: how many.
            seed: recorded.
            fingerprint: what identifies the simulator; recorded.
            rows_per_shard: rows of a file.
            description: of the progress bar.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        origin: dict[str, Any] = {"seed": str(seed), "fingerprint": fingerprint}
        shards: list[dict[str, Any]] = []
        shapes: dict[str, list[int]] = {}
        with progress_bar(description, num_simulations) as advance:
            for index, start in enumerate(range(0, num_simulations, rows_per_shard)):
                stop = min(start + rows_per_shard, num_simulations)
                path = folder / f"shard-{index:05d}.safetensors"
                here = origin | {"rows": [start, stop]}
                if not _holds(path, here):
                    variables = _contiguous(rows(start, stop))
                    _write(path, save(variables, metadata=_label(here, variables)))
                written = load_file(path)
                shard = {"file": path.name, "rows": [start, stop], "sha256": _sha256(path.read_bytes()), "values": _digest(written)}
                shards.append(shard)
                shapes = shapes or {name: list(value.shape[1:]) for name, value in written.items()}
                advance(stop - start)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            **origin,
            "num_simulations": num_simulations,
            "shapes": shapes,
            "shards": shards,
            "content_hash": _sha256("".join(str(shard["values"]) for shard in shards).encode()),
        }
        _write(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
        return cls(folder, manifest)


def _contiguous(variables: Variables) -> Variables:
    return {name: np.ascontiguousarray(value) for name, value in sorted(variables.items())}


def _label(origin: dict[str, Any], variables: Variables) -> dict[str, str]:
    """Metadata of a shard, in one entry: safetensors writes several in an order that differs from call to call, and with it the hash."""
    return {"origin": json.dumps(origin | {"values": _digest(variables)}, sort_keys=True)}


def _holds(path: Path, origin: dict[str, Any]) -> bool:
    """True if a whole shard of this origin is there, its values as they were written."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        return metadata == _label(origin, load_file(path))
    except (FileNotFoundError, safetensors.SafetensorError):
        return False


def _digest(variables: Variables) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(variables.items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
