"""Restricted unpickler for NumPy arrays, numbers, text and plain containers.

A pickle is a program: it calls what it names with any arguments, and NumPy trusts those. `numpy.ndarray`
makes arrays of any size over memory that is not there. Here nothing of NumPy is called on behalf of a file:
an array is what has as many bytes as its shape says, all of them in the file.
"""

import io
import pickle
import re
from collections.abc import Callable
from math import prod
from pickle import UnpicklingError
from typing import Any, Never

import numpy as np

from sbi_models.ragged import as_ragged
from sbi_models.types import Array

_CORES = ("core", "_core")
"""Names of a package of NumPy, in versions 1 and 2."""

_BUILTINS = ("builtins", "__builtin__")

_PLAIN_TYPE = re.compile(r"[<>=|]?[biufcOSUVmM]\d{0,6}")

_OPEN = object()
"""Marker of a container whose items are being replaced."""


class _Kind:
    """`numpy.dtype(code)` and the byte order that follows."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _PLAIN_TYPE.fullmatch(code):
            raise UnpicklingError(f"it holds an array of {str(code)[:40]!r}, and only plain types are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise UnpicklingError("it holds an array with fields, and only plain types are read")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Held:
    """An array, or the place of one whose content follows."""

    __slots__ = ("array",)

    def __init__(self, array: Array | None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        if self.array is not None or not isinstance(state, tuple) or len(state) != 5:
            raise UnpicklingError("it holds an array without shape, type and content")
        _, shape, kind, is_fortran, content = state
        self.array = _array(content, kind, shape, "F" if is_fortran else "C")


class _Named:
    """A function that pickles of arrays call, or name as an argument."""

    __slots__ = ("function", "name")

    def __init__(self, name: str, function: Callable[..., Any] | None) -> None:
        self.name, self.function = name, function

    def __call__(self, *arguments: Any) -> Any:
        if self.function is None:
            raise UnpicklingError(f"it calls {self.name}, which makes arrays of any size out of nothing")
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> Never:
        raise UnpicklingError(f"it changes {self.name}")


def _array(content: Any, kind: Any, shape: Any, order: Any) -> Array:
    if (
        not isinstance(kind, _Kind)
        or not isinstance(shape, tuple)
        or not all(type(n) is int and n >= 0 for n in shape)
    ):
        raise UnpicklingError("it holds an array without type and shape")
    dtype = kind.dtype
    if dtype.hasobject:
        if not isinstance(content, list) or len(content) != prod(shape):
            raise UnpicklingError(f"it holds an array of objects whose number is not that of shape {shape}")
        array = np.empty(len(content), dtype=object)
        array[:] = content
    else:
        content = content.encode("latin1") if isinstance(content, str) else content
        got = len(content) if isinstance(content, bytes | bytearray) else 0
        if got != prod(shape) * dtype.itemsize or not dtype.itemsize:
            raise UnpicklingError(
                f"it holds an array of {dtype} and shape {shape}, which is "
                f"{prod(shape) * dtype.itemsize} bytes, with {got}"
            )
        array = np.frombuffer(bytearray(content), dtype=dtype)
    result: Array = array.reshape(shape, order="F" if order == "F" else "C")
    return result


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes as protocols 0 to 2 write them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnpicklingError("it encodes what is no text")
    return text.encode("latin1")


_CALLS: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("_codecs", "encode"): _encoded,
    **{
        (builtins, "complex"): lambda real, imaginary: complex(float(real), float(imaginary))
        for builtins in _BUILTINS
    },
    **{(builtins, "bytes"): lambda: b"" for builtins in _BUILTINS},  # how protocols 0 to 2 write none
    ("collections", "OrderedDict"): lambda items=(): dict(map(tuple, items)),
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Kind,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Held(None) for core in _CORES},
    **{
        (f"numpy.{core}.multiarray", "scalar"): lambda kind, content: _Held(_array(content, kind, (), "C"))
        for core in _CORES
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): lambda *arguments: _Held(_array(*arguments))
        for core in _CORES
    },
}


class _ArraysOnly(pickle._Unpickler):  # in Python: that in C takes memory for any memo a file names
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _CALLS:
            raise UnpicklingError(
                f"it holds {module}.{name}, and only NumPy arrays and plain containers are read"
            )
        return _Named(f"{module}.{name}", _CALLS[module, name])


def read_pickle(content: bytes) -> Any:
    """Content of a pickle; raises DataError for anything but arrays, numbers, text and containers.

    Raises:
        UnpicklingError: anything but NumPy arrays, numbers, text and plain containers.
        Exception: any other, for what is no pickle.

    >>> read_pickle(pickle.dumps({"x": np.arange(3)}))
    {'x': array([0, 1, 2])}
    """
    return _plain(_ArraysOnly(io.BytesIO(content)).load(), {})


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Replace placeholders by arrays; shared parts stay shared, and circles are refused."""
    if isinstance(value, _Held) and value.array is not None:
        value = value.array
    if isinstance(value, _Held | _Kind | _Named):
        raise UnpicklingError("it holds an array without content, a type or a function")
    is_objects = isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1
    if not isinstance(value, dict | list | tuple) and not is_objects:
        return value
    if id(value) not in done:
        done[id(value)] = _OPEN
        if is_objects:
            done[id(value)] = as_ragged([_plain(item, done) for item in value])
        elif isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_plain(item, done) for item in value)
    if done[id(value)] is _OPEN:
        raise UnpicklingError("it holds a container that contains itself")
    return done[id(value)]
