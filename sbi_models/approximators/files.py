"""File format of saved approximators: one safetensors file of tensors with JSON settings inside.

Nothing in it is code, and nothing is unpickled. `loading.py` makes an approximator of it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save as serialize
from torch import Tensor

from sbi_models.approximators.file_schema import misfit_of_header
from sbi_models.atomic_files import replacing
from sbi_models.errors import ConfigurationError, ModelFileError

SCHEMA_VERSION = 1

_METADATA_KEY = "sbi_models"


def write(path: str | Path, kind: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write a file atomically: it is there whole or not at all. Returns its path."""
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"schema_version": SCHEMA_VERSION, "kind": kind, "settings": as_json(settings)}
    header["sha256"] = _digest(header, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(
            serialize(tensors, metadata={_METADATA_KEY: json.dumps(header, sort_keys=True)})
        )
    return path


def as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back; ConfigurationError for anything else, before a training."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(settings))
    except TypeError as error:
        raise ConfigurationError(
            "Expected arguments of networks and info that JSON can hold (numbers, strings, lists, dicts), "
            f"got something else: {error}. Convert NumPy numbers with int() or float()."
        ) from None
    return plain


def read(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Kind, settings and tensors of a file that `write` wrote, checked; errors as for `load_approximator`."""
    if not path.is_file():
        raise ModelFileError(
            f"No saved approximator at {path}: expected a file written by approximator.save(path), or "
            "models:/NAME@champion for a registered model."
        )
    header, tensors = _read(path)
    if isinstance(header, dict) and header.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise ModelFileError(
            f"{path.name} has schema version {header['schema_version']}, this version of sbi_models reads "
            f"{SCHEMA_VERSION}. Load it with the version that wrote it and train or save it again."
        )
    if misfit := misfit_of_header(header):
        raise ModelFileError(f"{path.name} is not a readable approximator: {misfit}. Get a fresh copy.")
    if header.pop("sha256") != _digest(header, tensors):
        raise ModelFileError(
            f"{path.name} was changed or damaged after it was written: its checksum does not "
            "match. Get a fresh copy."
        )
    return header["kind"], header["settings"], {present_name(name): value for name, value in tensors.items()}


def present_name(tensor: str) -> str:
    """Present name of a tensor of a saved file; files of version 0.1 spell `standardizer` with an s.

    >>> present_name("networks.0.standardiser.inference_variables_mean")
    'networks.0.standardizer.inference_variables_mean'
    """
    return ".".join("standardizer" if part == "standardiser" else part for part in tensor.split("."))


def _read(path: Path) -> tuple[Any, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        header = json.loads(metadata[_METADATA_KEY])
    except KeyError:
        raise ModelFileError(
            f"{path.name} is a safetensors file, but not one written by sbi_models."
        ) from None
    except (
        safetensors.SafetensorError,
        ValueError,
        TypeError,
        OSError,
        RuntimeError,
        MemoryError,
    ) as error:  # of headers nested too deeply, too
        raise ModelFileError(
            f"{path.name} is not a readable approximator: {error}. Expected a file written by "
            "approximator.save(path)."
        ) from None
    return header, tensors


def _digest(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
