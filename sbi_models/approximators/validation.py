"""Input validation: user data to float64 arrays of shape (n, ...), or an error with a cure."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from sbi_models.errors import DataError, data_sets_in_words, distrust, suggest
from sbi_models.ragged import (
    as_float64,
    as_ragged,
    axes_of_any_length,
    fine_rows,
    is_ragged,
    leaves,
    real_or_ragged,
)
from sbi_models.types import Array, Variables, VariablesLike

_ABSURD = 1e9
"""Standardized parameters beyond it have the log density -inf, unless the network gives a number."""


def as_variables(
    data: VariablesLike, names: Iterable[str], *, what: str = "data", may_miss: Collection[str] = ()
) -> Variables:
    """Named variables of `data` as finite float64 arrays of shape (n, ...); others are left aside.

    Arrays, lists and torch tensors are accepted; shape (n,) becomes (n, 1). Data sets of different lengths,
    (N_i, d), become an array (n,) of objects; see `ragged`. Variables in `may_miss` may hold NaN, but not
    inf.

    Raises:
        DataError: for anything that is not a mapping, a missing name, no numbers, unequal lengths, no rows,
            NaN or inf.
    """
    if not isinstance(data, Mapping):
        raise DataError(f"Expected the {what} as a dict of names to arrays, got {type(data).__name__}.")
    variables: Variables = {}
    for name in names:
        if name not in data:
            raise DataError(f"Variable {name!r} is missing in the {what}. {suggest(name, data, 'Got')}")
        variables[name] = _as_array(name, data[name], what)
    lengths = {name: len(value) for name, value in variables.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {n}" for name, n in lengths.items())
        raise DataError(f"Expected the same number of rows in every variable of the {what}, got {listed}.")
    for name, value in variables.items():
        _check_finite(name, value, what, nan_too=name not in may_miss)
    return variables


def check_strays(data: VariablesLike, names: Iterable[str], what: str = "data") -> None:
    """Raise DataError if an array without a role has another number of rows than the named variables.

    It may be a sign that rows are not what one takes them for. Single numbers and text are let be.
    """
    names = tuple(names)
    rows = np.shape(data[names[0]])[0]
    for name, value in data.items():
        if (
            name not in names
            and isinstance(value, np.ndarray | torch.Tensor | list | tuple)
            and np.ndim(value)
            and len(value) != rows
        ):
            raise DataError(
                f"Expected {rows} rows in every variable of the {what}, as in {names[0]!r}, got "
                f"{len(value)} in {name!r}, which has no role. If it is not data of the simulations, leave "
                f"it out: data.pop({name!r})."
            )


def check_shapes(
    variables: Variables,
    shapes: Mapping[str, tuple[int, ...]],
    what: str = "data",
    *,
    any_length: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Raise DataError unless each variable has shape (n, *shapes[name]).

    Of those in `any_length`, name to a number of axes, so many axes after the rows may have any length.
    """
    for name, value in variables.items():
        expected = shapes[name]
        if name in any_length:
            _check_elements(name, value, expected[any_length[name] :], any_length[name], what)
            continue
        if is_ragged(value):
            raise DataError(
                f"Expected {name!r} in the {what} of shape ({', '.join(map(str, ('n', *expected)))}), as in "
                "training, got data sets of different lengths. Train with data sets that differ in length."
            )
        if value.shape[1:] != expected:
            wanted = ", ".join(map(str, ("n", *expected)))
            is_column = (
                value.shape[1:] == (1,) and value.shape[:1] == expected
            )  # (d,) has become (d, 1), or was so
            got = f"{expected} or {value.shape}" if is_column else f"{value.shape}"
            cure = (
                f" A single data set needs a leading axis: {name}.reshape(1, "
                f"{', '.join(map(str, expected))})."
            )
            single = is_column or value.shape == expected
            raise DataError(
                f"Expected {name!r} in the {what} of shape ({wanted}), as in training, got "
                f"{got}.{cure if single else ''}"
            )


def check_representable(prepared: Mapping[str, torch.Tensor], what: str) -> None:
    """Raise DataError unless standardized tensors (n, ...) are finite in float32."""
    for key, value in prepared.items():
        if not bool(value.isfinite().all()):
            rows = (~value.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
            raise DataError(
                f"Expected {key} of the {what} near those of the training data, got values too large for "
                f"float32 in {data_sets_in_words(rows, len(value))}. Leave them out, or train on data like "
                "them."
            )


def check_overflow(draws: Variables) -> None:
    """Raise DataError if raw draws (n, S, width) are not finite, and warn of the largest double."""
    for name, value in draws.items():
        if not np.isfinite(value).all():
            raise DataError(
                f"Expected draws of {name!r} that a double can hold, got {np.mean(~np.isfinite(value)):.2%} "
                f"that are too large. Measure {name!r} in a larger unit, or infer its logarithm."
            )
        cut = np.abs(value) >= np.finfo(np.float64).max
        if cut.any():
            distrust(
                f"{np.mean(cut):.2%} of the draws of {name!r} are too large for a double, and stand at its "
                f"largest number, {np.finfo(np.float64).max:.3g}. Infer its logarithm, or constrain it."
            )


def _as_array(name: str, value: Any, what: str) -> Array:
    # torch takes neither negative strides nor read-only memory; only such arrays are copied
    array = as_float64(real_or_ragged(value, f"variable {name!r} of the {what}"))
    if is_ragged(array) and any(leaf.ndim == 1 for leaf in leaves(array)):
        array = _with_last_axis(array)
    if array.ndim == 0 or not len(array):
        raise DataError(
            f"Expected variable {name!r} of shape (n, ...) with at least one row, got shape {array.shape}."
        )
    return array[:, None] if array.ndim == 1 and not is_ragged(array) else array


def _with_last_axis(value: Array) -> Array:
    """A ragged variable whose elements are numbers, (N_i,), as one of vectors of width 1, (N_i, 1)."""
    return as_ragged([_with_last_axis(part) if is_ragged(part) else part[..., None] for part in value])


def _check_elements(name: str, value: Array, shape: tuple[int, ...], axes: int, what: str) -> None:
    """Raise DataError unless the elements of each data set, below so many axes, have a shape."""
    if is_ragged(value):
        found = {leaf.shape[1:] for leaf in leaves(value) if leaf.size}
        fits, got = found <= {shape} and axes_of_any_length(value) <= axes, "data sets of other elements"
    else:
        numbers = value.shape[1 + axes :] == () and shape == (1,)
        fits, got = value.ndim > axes and (value.shape[1 + axes :] == shape or numbers), str(value.shape)
    if not fits:
        wanted = ", ".join(map(str, ("groups", "N")[2 - axes :] + shape))
        raise DataError(
            f"Expected {name!r} in the {what} of shape (n, {wanted}) for any N, as in training, or as a list "
            f"of n data sets of shape ({wanted}), got {got}."
        )


def _check_finite(name: str, value: Array, what: str, *, nan_too: bool) -> None:
    fine = fine_rows(value, np.isfinite if nan_too else lambda part: ~np.isinf(part))
    if fine.all():
        return
    rows = np.flatnonzero(~fine)
    listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    cure = (
        f"if values of a condition may be missing, say so before training: missing={{{name!r}: "
        f"{name + '_there'!r}}} in a workflow, missing: {{{name}: {name}_there}} in an experiment, with such "
        "gaps in the simulations."
        if nan_too
        else "if values are missing, put NaN in their place."
    )
    raise DataError(
        f"Expected finite numbers, got {'NaN or inf' if nan_too else 'inf'} in {len(rows)} of {len(value)} "
        f"rows of variable {name!r} of the {what} (rows {listed}). Drop those rows; {cure}"
    )


def check_network_output(fine: torch.Tensor, what: str) -> None:
    """Raise DataError unless what the networks gave is fine in each row (n,)."""
    if not bool(fine.all()):
        rows = (~fine).nonzero().flatten().tolist()
        raise DataError(
            f"The {what} of {len(rows)} of {len(fine)} data sets are no finite numbers (rows "
            f"{', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}). Expected conditions and "
            "parameters near those of the training data."
        )


def checked_densities(log_prob: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Log densities (n,) of standardized parameters theta (n, d), -inf where the network overflows.

    That is far out alone; no number anywhere else is an error.

    Raises:
        DataError: for no number anywhere else.
    """
    fine = log_prob.isfinite() | log_prob.isneginf()
    check_network_output(fine | (theta.abs().amax(dim=1) > _ABSURD), "log densities")
    return torch.where(fine, log_prob, -torch.inf)


def check_vectors(adapted: Mapping[str, torch.Tensor], roles: Mapping[str, Iterable[str]]) -> None:
    """Raise DataError unless direct inputs of the inference network have shape (n, width) when adapted."""
    for role in ("inference_variables", "inference_conditions"):
        if role in adapted and adapted[role].ndim != 2:
            raise DataError(
                f"Expected {role} of shape (n, width) after the adapter, got {tuple(adapted[role].shape)}. "
                f"Flatten {', '.join(roles.get(role, ()))} to one axis a row"
                + (", or make them summary_variables." if role == "inference_conditions" else ".")
            )
