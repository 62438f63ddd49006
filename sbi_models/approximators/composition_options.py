"""Options and conditions of a composition: their types, checks and defaults."""

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import numpy as np

from sbi_models.approximators.composition.prior_scores import PriorScoreLike
from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.networks import DiffusionModel
from sbi_models.numeric_input import real_array
from sbi_models.ragged import as_float64, differs_in_length, joined, real_or_ragged
from sbi_models.types import Array, Variables, VariablesLike

Simulate = Callable[[Variables, int], tuple[Variables, Array]]
"""Function of raw parameters (k, ...) and a seed: successful simulations, and their row numbers (r,)."""

_FEWEST, _PER_ITEM, _MOST = 20_000, 400, 500_000
"""Number of simulations of a calibration: at least, per item, and at most.

The noise of a calibration is about sqrt(2 n / simulations) posterior sds.
"""


class CompositionOptions(TypedDict, total=False):
    """Options of a composition, all of them with a default.

    Attributes:
        compute_prior_score: function of (data, t=None), where data are raw variables, name to (m, width),
            that returns d log p(theta) / d theta of each, of the same shape; or the torch distribution of the
            prior, or a dict of them. None takes the score that the network has learned from dropped
            conditions.
        method: "calibrated", right without choices; "gauss" (precision-weighted diffusion), "langevin"
            (annealed Langevin) and "plain" (the sum of diffused scores, which is biased), for comparison.
        noise: noise at which scores are composed, in sds of the standardized parameters; None is 0.02, and
            0.05 for networks without Gaussian preconditioning.
        calibration_simulations: simulated items of the last calibration; 0 composes without the simulator,
            None is 400 an item, between 20 000 and 500 000.
        split: each component of a variable as a variable of its own.
        seed: seed of everything random; None takes one from NumPy's global state.
    """

    compute_prior_score: PriorScoreLike | None
    method: str
    noise: float | None
    calibration_simulations: int | None
    split: bool
    seed: int | None


def composed_conditions(
    conditions: VariablesLike, shapes: Mapping[str, tuple[int, ...]], any_length: Mapping[str, int]
) -> tuple[Variables, list[int]]:
    """Raw conditions of all items with one leading axis, and the number of items of each data set.

    They are in order of the data sets.

    Args:
        conditions: name to arrays (num_datasets, n_compositional, ...), or to lists of data sets with other
            numbers of items each.
        shapes: name to the shape of one item.
        any_length: number of axes of an item that may have any length, by name.
    """
    if not isinstance(conditions, Mapping):
        raise DataError(f"Expected conditions as a dict of names to arrays, got {type(conditions).__name__}.")
    flat, numbers = {}, {}
    for name, shape in shapes.items():
        if name not in conditions:
            raise DataError(
                f"Expected {name!r} among the conditions, got "
                f"{', '.join(map(repr, conditions))}. {suggest(name, conditions)}"
            )
        value, what = conditions[name], f"variable {name!r} of the conditions"
        if differs_in_length(value):
            parts = [
                as_float64(real_or_ragged(part, f"{what}, data set {n}")) for n, part in enumerate(value)
            ]
            axes = {1 + len(shape), *((1,) if name in any_length else ())}
        else:
            array = real_array(value, what).astype(np.float64)
            array = array[..., None] if shape == (1,) and array.ndim == 2 else array
            parts = list(array) if array.ndim else []
            axes = {1 + len(shape)}
        if not parts or any(part.ndim not in axes or not len(part) for part in parts):
            wanted = ", ".join(map(str, ("num_datasets", "n_compositional", *shape)))
            got = "a list of other data sets" if differs_in_length(value) else np.shape(value)
            raise DataError(
                f"Expected {name!r} of shape ({wanted}), with the items of each data set along the "
                f"second axis, got {got}. For one data set: {name}[None]."
            )
        numbers[name] = [len(part) for part in parts]
        flat[name] = joined(parts)
    first = next(iter(numbers.values()))
    if any(number != first for number in numbers.values()):
        listed = ", ".join(f"{(len(n), *sorted(set(n)))} of {name!r}" for name, n in numbers.items())
        raise DataError(f"Expected the same numbers of data sets and items in every condition, got {listed}.")
    return flat, first


def noise_level(noise: float | None, default: float) -> float:
    """Noise at which scores are composed; ConfigurationError unless it is None, the default, or a number."""
    if noise is None:
        return default
    if isinstance(noise, bool) or not isinstance(noise, int | float | np.floating) or not 0.001 <= noise <= 1:
        raise ConfigurationError(
            f"Expected noise, in sds of the standardized parameters, from 0.001 to 1, got {noise!r}."
        )
    return float(noise)


def check_composable(network: Any) -> None:
    """Raise ConfigurationError for a network whose posteriors cannot be composed."""
    if not isinstance(network, DiffusionModel):
        raise ConfigurationError(
            f"Expected a DiffusionModel, whose scores can be composed, got {type(network).__name__}. "
            "Pass inference_network='diffusion_model'."
        )


def num_calibration_simulations(number: int | None, num_items: int) -> int:
    """Number of simulated items of a calibration, from an option: 0 is none, None goes by the items."""
    if number is None:
        return min(max(_FEWEST, _PER_ITEM * num_items), _MOST)
    if number == 0 and not isinstance(number, bool):
        return 0
    return positive_int(number, "calibration_simulations (0 for none)")
