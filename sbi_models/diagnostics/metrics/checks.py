"""Input validation of metrics: finite arrays of fitting shapes, and levels between 0 and 1."""

import numpy as np
from numpy.typing import NDArray

from sbi_models.errors import ConfigurationError, DataError
from sbi_models.numeric_input import real_array

Floats = NDArray[np.float64]


def check_samples(
    samples: object, truth: object, *, min_datasets: int = 1, min_draws: int = 1
) -> tuple[Floats, Floats]:
    """Draws and true values as finite float64 arrays of fitting shapes.

    Args:
        samples: posterior draws, shape (num_datasets, num_samples, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.
        min_datasets: number of data sets that the caller needs.
        min_draws: number of draws per data set that the caller needs.

    Raises:
        DataError: wrong number of axes, unequal data sets or dimensions, too few of either, or a value that
            is not finite.
    """
    draws, true = as_floats("samples", samples), as_floats("truth", truth)
    if draws.ndim != 3:
        raise DataError(
            f"Expected samples of shape (num_datasets, num_samples, dim), got shape {draws.shape}. "
            "Add the missing axis, for instance samples[..., None] for one parameter."
        )
    if true.ndim != 2:
        raise DataError(
            f"Expected truth of shape (num_datasets, dim), got shape {true.shape}. "
            "Add the missing axis, for instance truth[:, None] for one parameter."
        )
    if (draws.shape[0], draws.shape[2]) != true.shape:
        raise DataError(
            f"Expected truth of shape {(draws.shape[0], draws.shape[2])} to go with samples of shape "
            f"{draws.shape}, got {true.shape}. Pass the true values of the same data sets, in the same "
            "order, with the same parameters."
        )
    _check_sizes(draws.shape, min_datasets, min_draws)
    check_finite("samples", draws)
    check_finite("truth", true)
    return draws, true


def check_level(level: float) -> float:
    """The level as a float; raises ConfigurationError unless it lies strictly between 0 and 1."""
    if isinstance(level, (bool, str)) or not 0.0 < level < 1.0:
        raise ConfigurationError(
            f"Expected a level strictly between 0 and 1, got {level!r}. Pass for instance level=0.95."
        )
    return float(level)


def as_floats(name: str, values: object) -> Floats:
    """`values` as a float64 array; raises DataError if they are not numbers of one rectangular shape."""
    return real_array(values, name).astype(np.float64, copy=False)


def check_finite(name: str, values: Floats) -> None:
    """Raise DataError naming the data sets, rows of the first axis of `values`, with NaN or infinity."""
    finite = np.isfinite(values)
    if finite.all():
        return
    bad = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
    shown = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    raise DataError(
        f"Expected finite {name}, got NaN or infinity in {len(bad)} of {len(values)} data sets: {shown} "
        "(counted from 0). Look at these data sets, and leave them out or draw them again."
    )


def _check_sizes(shape: tuple[int, ...], min_datasets: int, min_draws: int) -> None:
    if shape[0] < min_datasets:
        raise DataError(
            f"Expected at least {min_datasets} data set(s), got {shape[0]}. Simulate more test "
            "data, 300 is a good number."
        )
    if shape[1] < min_draws:
        raise DataError(
            f"Expected at least {min_draws} posterior draw(s) a data set, got {shape[1]}. Sample "
            "more, 1000 is a good number."
        )
    if shape[2] < 1:
        raise DataError(
            "Expected at least one parameter, got samples whose last axis is empty. Pass shape "
            "(n, num_samples, dim)."
        )
