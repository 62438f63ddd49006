"""Reading simulations from files: arrays by name, never code.

A pickle can run any program when it is read. Here it may hold NumPy arrays and plain containers, and everything else is refused.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from sbi_models.errors import DataError
from sbi_models.real_numbers import real_array
from sbi_models.torch_defaults import as_user
from sbi_models.types import Variables

LoadFunction = Callable[[Path], Mapping[str, Any]]
"""Reads one file of a format of the user's own: a dict of names to arrays."""

_ADMITTED = {
    ("_codecs", "encode"),
    ("builtins", "complex"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class _ArraysOnly(pickle.Unpickler):
    """Builds nothing but arrays, numbers, strings and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and only NumPy arrays and plain containers are read")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)  # NumPy 1 wrote the former


def read_file(path: Path, load_fn: LoadFunction | None = None) -> Variables:
    """The variables of one file, as they are in it: `.pkl`, `.npz`, `.safetensors`, or any other with `load_fn`.

    Raises:
        DataError: naming the file, if it cannot be read, holds anything but arrays by name, or has an unknown ending.
    """
    content = as_user(load_fn, path) if load_fn is not None else _read_known(path)
    if not isinstance(content, Mapping):
        raise DataError(f"Expected {path} to hold a dict of names to arrays, got {type(content).__name__}. Pass load_fn= to convert it.")
    try:
        return {str(name): real_array(value, f"variable {str(name)!r} of {path}") for name, value in content.items()}
    except DataError as error:
        raise DataError(f"{error} Or pass load_fn=, a function of the path that converts it or leaves it out.") from None


def _read_known(path: Path) -> Any:
    try:
        return _read(path)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files make unpicklers and decompressors raise anything
        cause = error if isinstance(error, pickle.UnpicklingError | ValueError | OSError) else f"{type(error).__name__}: {error}"
        raise DataError(f"{path} cannot be read: {cause}. Write it again, or pass load_fn=, a function that reads your format.") from None


def _read(path: Path) -> Any:
    if path.suffix in (".pkl", ".pickle"):
        return _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix == ".safetensors":
        return load_file(path)
    raise DataError(f"Expected files ending in .pkl, .npz or .safetensors, got {path}. Pass load_fn=, a function that reads your format.")
