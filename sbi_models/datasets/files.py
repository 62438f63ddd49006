"""Reading simulation files: arrays by name, never code, with memory limited by the file's size.

What a file says of itself is compared with its size before anything is made of it.
"""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from safetensors.numpy import load_file

from sbi_models.datasets.flat_arrays import from_arrays
from sbi_models.datasets.pickled import read_pickle
from sbi_models.errors import DataError
from sbi_models.ragged import real_or_ragged
from sbi_models.torch_defaults import as_user
from sbi_models.types import Array, Variables

LoadFunction = Callable[[Path], Mapping[str, Any]]
"""Reader of a user's file format: path to a dict of names to arrays."""

_SMALL = 2**28
"""Bytes that any file may occupy in memory."""

_TIMES = 100
"""Ratio of bytes in memory to file size for larger files.

Compression shrinks simulations tenfold, and masks of zeros a thousandfold.
"""

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_file(path: Path, load_fn: LoadFunction | None = None) -> Variables:
    """Variables of one file: `.pkl`, `.npz`, `.safetensors`, or any other format with `load_fn`.

    Data sets of different lengths, a ragged variable, are lists of arrays in a pickle or what `load_fn`
    gives, and in all formats the elements and offsets that `to_arrays` makes of them.

    Raises:
        DataError: naming the file, if it cannot be read, holds anything but arrays by name, comes to more
            than 256 MB and 100 times its size in memory, or has an unknown ending.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/one.npz", theta=np.zeros((4, 2)))
    ...     read_file(Path(folder, "one.npz"))["theta"].shape
    (4, 2)
    """
    content = as_user(load_fn, path) if load_fn is not None else _read_known(path)
    if not isinstance(content, Mapping):
        raise DataError(
            f"Expected {path} to hold a dict of names to arrays, got {type(content).__name__}. "
            "Pass load_fn= to convert it."
        )
    try:
        arrays = {
            str(name): real_or_ragged(value, f"variable {str(name)!r} of {path}")
            for name, value in content.items()
        }
        return from_arrays(arrays, f" of {path}")
    except DataError as error:
        raise DataError(
            f"{error} Or pass load_fn=, a function of the path that converts it or leaves it out."
        ) from None


def _read_known(path: Path) -> Any:
    try:
        return _read(path)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files make unpicklers and decompressors raise anything
        cause = (
            error
            if isinstance(error, pickle.UnpicklingError | ValueError | OSError)
            else f"{type(error).__name__}: {error}"
        )
        raise DataError(
            f"{path} cannot be read: {cause}. Write it again, or pass load_fn=, a function that "
            "reads your format."
        ) from None


def _read(path: Path) -> Any:
    if path.suffix not in (".pkl", ".pickle", ".npz", ".safetensors"):
        raise DataError(
            f"Expected files ending in .pkl, .npz or .safetensors, got {path}. Pass load_fn=, a "
            "function that reads your format."
        )
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    if path.suffix == ".npz":
        return _read_npz(path)
    most = _most(path)
    content = read_pickle(path.read_bytes()) if path.suffix != ".safetensors" else load_file(path)
    if isinstance(content, dict):
        known: dict[int, int] = {}
        for name, value in content.items():
            if not isinstance(name, str):
                raise ValueError(f"it has a {type(name).__name__} as the name of a variable")
            if isinstance(value, np.ndarray) and value.dtype != object:
                _refuse_long_axes(name, value.shape, most)
            elif _numbers(value, known) * 8 > most:
                raise ValueError(
                    f"the lists of {name!r} share parts, and hold {_numbers(value, known):.2g} numbers"
                )
    return content


def _read_npz(path: Path) -> Variables:
    """Arrays of an archive, after checks of the sizes of its files and the shapes of its arrays."""
    with zipfile.ZipFile(path) as archive:
        most, files = _most(path), archive.infolist()
        total = sum(file.file_size for file in files)
        if total > most:
            raise ValueError(
                f"it says that it comes to {total:.2g} bytes in memory, more than {most:.2g} for a "
                "file of its size"
            )
        if len({file.filename for file in files}) < len(files):
            raise ValueError("it has two arrays of one name")
        return {file.filename.removesuffix(".npy"): _read_npy(archive, file, most) for file in files}


def _read_npy(archive: zipfile.ZipFile, file: zipfile.ZipInfo, most: int) -> Array:
    with archive.open(file) as stream:
        shape, size = _header(stream)
        left = file.file_size - stream.tell()
        if size != left:
            raise ValueError(
                f"{file.filename} says that it has shape {shape}, of {size} bytes, and has {left}"
            )
        _refuse_long_axes(file.filename, shape, most)
    with archive.open(file) as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
    return array


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """Shape and number of bytes of an array in NumPy's format."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"it has an array of version {version} of NumPy's format")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and only arrays of numbers are read")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"it has an array of shape {shape}")
    return shape, prod(shape) * dtype.itemsize


def _most(path: Path) -> int:
    return max(_SMALL, _TIMES * path.stat().st_size)


def _refuse_long_axes(name: str, shape: tuple[int, ...], most: int) -> None:
    """Raise DataError for an array without numbers whose shape claims a long axis."""
    if max(shape, default=0) > most:
        raise ValueError(f"{name!r} has shape {shape}")


def _numbers(value: Any, known: dict[int, int]) -> int:
    """Upper bound of the numbers in an array made of lists; shared parts are counted once."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.size
    if not isinstance(value, list | tuple | np.ndarray):
        return 1
    if id(value) not in known:
        known[id(value)] = sum(_numbers(item, known) for item in value)
    return known[id(value)]
