"""Conversion of named variables to the two arrays of metrics and plots, with a name for every column."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_samples
from sbi_models.errors import DataError, suggest


class Flat(NamedTuple):
    """Draws (num_datasets, num_samples, dim) and truth (num_datasets, dim), raw space, with dim names."""

    samples: Floats
    truth: Floats
    names: list[str]


def flatten_variables(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
) -> Flat:
    """Join the parameters of all variables along one axis, validate draws and truth, and name each parameter.

    A variable `theta` of one value gives the name `theta`; of several, `theta_0`, `theta_1`, ...; of a
    matrix, `theta_0_0`, ...

    Args:
        samples: posterior draws by variable, each of shape (num_datasets, num_samples, ...), raw space. An
            array of shape (num_datasets, num_samples, dim) stands for one variable `theta`.
        truth: true values by variable, each of shape (num_datasets, ...), raw space; variables that have no
            draws (data, context) are left aside, so whole test data will do. An array of shape (num_datasets,
            dim) goes with an array of samples.
        variable_keys: names of the variables to use, in order; by default all in `samples`.
        variable_names: names for all parameters, in order, in place of the above.

    Raises:
        DataError: an unknown variable, arrays that do not fit, or names that are too many, too few, or not
            distinct strings.

    >>> import numpy as np
    >>> samples = {"mu": np.zeros((4, 9, 2)), "tau": np.zeros((4, 9, 1))}
    >>> flatten_variables(samples, {"mu": np.zeros((4, 2)), "tau": np.zeros(4)}).names
    ['mu_0', 'mu_1', 'tau']
    """
    draws_by_key, truth_by_key = _as_mappings(samples, truth)
    blocks = [
        _block(key, draws_by_key, truth_by_key) for key in _chosen(draws_by_key, truth_by_key, variable_keys)
    ]
    _check_same_datasets(blocks)
    draws, true = check_samples(
        _join([block.samples for block in blocks], axis=2),
        _join([block.truth for block in blocks], axis=1),
    )
    names = [name for block in blocks for name in block.names]
    return Flat(draws, true, _checked_names(names, variable_names))


Discrete = Mapping[str, Sequence[Sequence[float] | None]]
"""Of each discrete variable: for each component the values of its categories, an empty list for a count, or
None for a continuous one; such as `approximator.discrete_variables`."""


def categories_of(
    flat: Flat,
    samples: object,
    discrete: Discrete | None,
    variable_keys: str | Sequence[str] | None = None,
) -> dict[int, list[float]]:
    """The categorical columns of flat variables, with the values of their categories.

    Args:
        flat: result of `flatten_variables` of the samples and keys.
        samples, variable_keys: its arguments.
        discrete: values of the categories by variable; None takes every column as categorical, with all
            values of draws and truth.

    Raises:
        DataError: no column is categorical.
    """
    found = columns_with_categories(flat, samples, discrete, variable_keys)
    if not found:
        raise DataError(
            f"Expected a categorical parameter among {', '.join(flat.names)}, got none. Declare one by "
            "adapter.as_categorical(name), or pass discrete={name: [values]}."
        )
    return found


def columns_with_categories(
    flat: Flat,
    samples: object,
    discrete: Discrete | None,
    variable_keys: str | Sequence[str] | None = None,
) -> dict[int, list[float]]:
    """`categories_of`, which may be none."""
    if discrete is None:
        every = [np.union1d(flat.samples[..., j], flat.truth[:, j]) for j in range(flat.truth.shape[1])]
        return {j: [float(value) for value in values] for j, values in enumerate(every)}
    draws: Mapping[str, Any] = samples if isinstance(samples, Mapping) else {"theta": samples}
    found, start = {}, 0
    for key in [variable_keys] if isinstance(variable_keys, str) else list(variable_keys or draws):
        width = int(np.prod(np.shape(draws[key])[2:]))
        for k, values in enumerate(discrete.get(key, ())):
            if values is not None and len(values) and k < width:
                found[start + k] = [float(value) for value in values]
        start += width
    return found


def _as_mappings(samples: object, truth: object) -> tuple[Mapping[str, object], Mapping[str, object]]:
    if isinstance(samples, Mapping) != isinstance(truth, Mapping):
        raise DataError(
            "Expected samples and truth both as mappings of variables or both as arrays, got "
            f"{type(samples).__name__} and {type(truth).__name__}. Pass for instance {{'theta': samples}} "
            "and {'theta': truth}."
        )
    if isinstance(samples, Mapping) and isinstance(truth, Mapping):
        return samples, truth
    draws, true = check_samples(samples, truth)
    return {"theta": draws}, {"theta": true}


def _chosen(
    samples: Mapping[str, object], truth: Mapping[str, object], variable_keys: str | Sequence[str] | None
) -> list[str]:
    keys = (
        [variable_keys]
        if isinstance(variable_keys, str)
        else list(samples if variable_keys is None else variable_keys)
    )
    if not keys:
        raise DataError(
            "Expected at least one variable with posterior draws, got none. Pass for instance "
            "{'theta': samples}."
        )
    for key in keys:
        if key not in samples:
            raise DataError(
                f"Expected posterior draws of variable {key!r}, got none. "
                f"{suggest(str(key), map(str, samples))}"
            )
        if key not in truth:
            raise DataError(
                f"Expected true values of variable {key!r}, which has draws, got none. "
                f"{suggest(key, map(str, truth))}"
            )
    return keys


def _block(key: str, samples: Mapping[str, object], truth: Mapping[str, object]) -> Flat:
    draws, true = as_floats(f"samples of {key!r}", samples[key]), as_floats(f"truth of {key!r}", truth[key])
    if draws.ndim < 2 or true.ndim < 1:
        raise DataError(
            f"Expected samples of {key!r} of shape (num_datasets, num_samples, ...) and truth of shape "
            f"(num_datasets, ...), got {draws.shape} and {true.shape}. Add the missing axes."
        )
    event, true_event = (
        (1,) if shape in ((), (1,)) else shape for shape in (draws.shape[2:], true.shape[1:])
    )
    if event != true_event or len(draws) != len(true):
        raise DataError(
            f"Expected truth of {key!r} of shape {(len(draws), *draws.shape[2:])} to go with samples of "
            f"shape {draws.shape}, got {true.shape}. Pass the true values of the same data sets, in the "
            "same order."
        )
    dim = int(np.prod(event))
    names = [key] if dim == 1 else ["_".join([key, *map(str, index)]) for index in np.ndindex(*event)]
    return Flat(draws.reshape(*draws.shape[:2], dim), true.reshape(len(true), dim), names)


def _check_same_datasets(blocks: list[Flat]) -> None:
    sizes = {block.samples.shape[:2] for block in blocks}
    if len(sizes) > 1:
        got = ", ".join(
            f"{block.names[0] if block.names else '?'}: {block.samples.shape[:2]}" for block in blocks
        )
        raise DataError(
            f"Expected the same (num_datasets, num_samples) for all variables, got {got}. Draw all "
            "variables in one call of sample()."
        )


def _join(parts: list[Floats], axis: int) -> Floats:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _checked_names(names: list[str], given: Sequence[str] | None) -> list[str]:
    if given is not None:
        if isinstance(given, str) or not all(isinstance(name, str) and name for name in given):
            raise DataError(
                f"Expected variable_names as a list of non-empty strings, got {given!r}. Pass for "
                f"instance {names!r}."
            )
        if len(given) != len(names):
            raise DataError(
                f"Expected {len(names)} variable_names, one for each of {', '.join(names)}, got "
                f"{len(given)}: {', '.join(given)}. Name every parameter, in that order."
            )
        names = list(given)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"Expected distinct names of parameters, got {', '.join(repeated)} more than once. "
            "Pass distinct variable_names."
        )
    return names
