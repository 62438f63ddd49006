"""Input validation of numbers: real arrays of one shape pass; conversions that lose information do not."""

import sys
from typing import Any

import numpy as np

from sbi_models.errors import DataError
from sbi_models.types import Array

_CURES = {
    "c": "Pass real and imaginary part as components: np.stack([x.real, x.imag], axis=-1).",
    "M": "Subtract a date and divide by a unit: (x - x.min()) / np.timedelta64(1, 'D').",
    "m": "Divide by a unit: x / np.timedelta64(1, 's').",
    "U": "Convert text that means numbers: np.asarray(x, dtype=float); give categories numbers.",
    "S": "Convert text that means numbers: np.asarray(x, dtype=float); give categories numbers.",
    "O": "Fill in what is missing, and convert numbers of other kinds: np.asarray(x, dtype=float).",
    "V": "Convert it to float32 or float64, and columns of a structured array one by one.",
}
_MASKED = (
    "Fill the values in and pass a mask as a variable of its own, or leave the rows out: "
    "x[~x.mask.any(axis=-1)]."
)


def real_array(value: Any, what: str, *, copy: bool = False) -> Array:
    """A value as an array of bool, integers or floats, of its own type and shape.

    Args:
        value: an array, a torch tensor, a number, or lists of these; a masked array if nothing of it is
            masked.
        what: name for messages, such as "'x' of the data".
        copy: whether the array shall share no memory with the value.

    Raises:
        DataError: for complex numbers, masked values, bfloat16, sparse tensors, dates, text, objects and
            ragged lists.

    >>> real_array([1, 2], "'x'")
    array([1, 2])
    >>> real_array(1j, "'x'")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sbi_models.errors.DataError: Expected real numbers in 'x', got complex128. Pass real and imaginary ...
    """
    if type(value) is np.ndarray and value.dtype.kind in "fiub":
        return value.copy() if copy else value
    _refuse_masked(value, what)
    value = _from_torch(value, what)
    try:
        array: Array = np.array(value) if copy else np.asarray(value)
    except (ValueError, TypeError):
        raise DataError(
            f"Expected numbers of one shape in {what}, got ragged lists. Pad them, and pass a mask "
            "beside them."
        ) from None
    kind = array.dtype.kind
    if kind not in "fiub":
        if hasattr(value, "toarray"):  # SciPy's sparse matrices
            raise DataError(
                f"Expected a dense array in {what}, got a sparse {type(value).__name__}. Pass x.toarray()."
            )
        held = "" if kind != "O" or not array.size else f" of {type(array.reshape(-1)[0]).__name__}"
        raise DataError(
            f"Expected real numbers in {what}, got {array.dtype}{held}. {_CURES.get(kind, _CURES['O'])}"
        )
    return array


def _refuse_masked(value: Any, what: str) -> None:
    if isinstance(value, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(value).sum())
        if masked:
            raise DataError(
                f"Expected numbers in {what}, got a masked array with {masked} of {value.size} "
                f"values masked. {_MASKED}"
            )
    elif isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, list | tuple | np.ma.MaskedArray):
                _refuse_masked(item, what)


def _from_torch(value: Any, what: str) -> Any:
    """Torch tensors, or lists of them, as NumPy arrays; anything else unchanged."""
    torch = sys.modules.get("torch")
    if torch is None:
        return value
    if isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value):
        return [_from_torch(item, what) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    if value.layout != torch.strided:
        raise DataError(f"Expected a dense tensor in {what}, got {value.layout}. Pass x.to_dense().")
    try:
        return value.detach().cpu().resolve_conj().resolve_neg().numpy()
    except TypeError:
        raise DataError(
            f"Expected a tensor of a type that NumPy has in {what}, got {value.dtype}. Pass x.float()."
        ) from None
