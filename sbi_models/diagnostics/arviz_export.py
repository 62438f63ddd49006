"""Export of posterior draws to ArviZ's InferenceData."""

import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from sbi_models.arguments import known_arguments
from sbi_models.diagnostics.metrics.checks import Floats, as_floats
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.ragged import is_ragged, real_or_ragged, with_nan

DATA_SET = "data_set"
_BY_DRAW = ("posterior", "posterior_predictive", "sample_stats", "prior", "prior_predictive")


@known_arguments
def to_arviz(
    samples: Mapping[str, Any],
    *,
    observed_data: Mapping[str, Any] | None = None,
    posterior_predictive: Mapping[str, Any] | None = None,
    sample_stats: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    prior_predictive: Mapping[str, Any] | None = None,
    variable_names: Mapping[str, Sequence[str]] | None = None,
    data_set_names: Sequence[str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Draws as an `arviz.InferenceData`; needs the extra: pip install "sbi-models[arviz]".

    Draws of amortized posteriors are independent: they make one chain. Variables have the dimensions chain,
    draw, data_set and those of their own; of one data set: `data.sel(data_set="1")`.

    Args:
        samples: posterior draws, name to (num_datasets, num_samples, ...), raw space, as `sample` gives them.
        observed_data: name to (num_datasets, ...).
        posterior_predictive: data simulated from the draws, name to (num_datasets, num_samples, ...).
        sample_stats: one number a draw, name to (num_datasets, num_samples); `lp` is the log density.
        prior, prior_predictive: simulations, name to (num_simulations, ...).
        variable_names: a name for each component of variables of shape (..., width), as coordinates.
        data_set_names: coordinates of the data sets; "1", "2", ... by default.
        attrs: what else is to be known of the posterior, such as certificates.

    Raises:
        ConfigurationError: if ArviZ is not installed.
        DataError: for arrays whose numbers of data sets or draws differ, or names that do not fit.
    """
    arviz = _arviz()
    posterior = _leading("samples", samples, 2)
    sizes = {value.shape[:2] for value in posterior.values()}
    if len(sizes) != 1:
        raise DataError(
            "Expected samples of at least one variable, all with the same numbers of data sets "
            f"and draws, got {sorted(sizes)}."
        )
    ((n, s),) = sizes
    names = (
        [str(i + 1) for i in range(n)] if data_set_names is None else [str(name) for name in data_set_names]
    )
    if len(names) != n:
        raise DataError(f"Expected {n} data_set_names, one for each data set, got {len(names)}.")
    groups: dict[str, dict[str, Floats]] = {"posterior": posterior}
    for group, values, axes in (
        ("posterior_predictive", posterior_predictive, 2),
        ("sample_stats", sample_stats, 2),
        ("observed_data", observed_data, 1),
        ("prior", prior, 1),
        ("prior_predictive", prior_predictive, 1),
    ):
        if values is not None:
            groups[group] = _leading(group, values, axes)
            expected = {"observed_data": (n,), "prior": (), "prior_predictive": ()}.get(group, (n, s))
            for name, value in groups[group].items():
                if value.shape[: len(expected)] != expected:
                    raise DataError(
                        f"Expected {group} {name!r} of shape {(*expected, '...')}, as samples say, "
                        f"got {value.shape}."
                    )
    coordinates: dict[str, Any] = {DATA_SET: names}
    dimensions: dict[str, list[str]] = {}
    for group, variables in groups.items():
        axes = 1 if group in ("observed_data", "prior", "prior_predictive") else 2
        for name, value in variables.items():
            own = [f"{name}_dim_{i}" for i in range(value.ndim - axes)]
            if variable_names is not None and name in variable_names and own:
                if len(variable_names[name]) != value.shape[-1]:
                    raise DataError(
                        f"Expected {value.shape[-1]} names of the components of {name!r}, got "
                        f"{len(variable_names[name])}."
                    )
                coordinates[own[-1]] = list(variable_names[name])
            dimensions.setdefault(name, own)
    return _inference_data(arviz, groups, coordinates, dimensions, dict(attrs or {}))


def _inference_data(
    arviz: ModuleType,
    groups: Mapping[str, Mapping[str, Floats]],
    coordinates: Mapping[str, Any],
    dimensions: Mapping[str, list[str]],
    attrs: Mapping[str, Any],
) -> Any:
    """InferenceData of groups in ArviZ's order of axes: chain, draw, data_set, own axes of the variable."""
    made = {}
    for group, variables in groups.items():
        with_data_sets = group not in ("prior", "prior_predictive")
        dims = {name: ([DATA_SET] if with_data_sets else []) + dimensions[name] for name in variables}
        if group in _BY_DRAW:
            ordered = {
                name: (np.swapaxes(value, 0, 1) if with_data_sets else value)[None]
                for name, value in variables.items()
            }
        else:
            ordered = dict(variables)
        used = {name for own in dims.values() for name in own}
        made[group] = arviz.dict_to_dataset(
            ordered,
            dims=dims,
            coords={name: values for name, values in coordinates.items() if name in used},
            attrs={**(attrs if group == "posterior" else {}), "creation_library": "sbi_models"},
            **({} if group in _BY_DRAW else {"default_dims": []}),
        )
    return arviz.InferenceData(**made)


def _leading(group: str, values: Mapping[str, Any], axes: int) -> dict[str, Floats]:
    """Variables of a group as floats with at least `num_axes` axes."""
    if not isinstance(values, Mapping):
        raise DataError(f"Expected {group} as a dict of names to arrays, got {type(values).__name__}.")
    found = {str(name): _padded(f"{group} of {name!r}", value, axes) for name, value in values.items()}
    for name, value in found.items():
        if value.ndim < axes:
            leading = "(num_datasets, num_samples, ...)" if axes == 2 else "(n, ...)"
            raise DataError(
                f"Expected {group} of {name!r} of shape {leading}, got {value.shape}. Add the missing axis."
            )
    return found


def _padded(what: str, value: Any, axes: int) -> Floats:
    """A variable as floats, data sets of other lengths with NaN after their last element."""
    if is_ragged(value) and value.ndim == axes:
        rows = with_nan(real_or_ragged(value.reshape(-1), what))
        return rows.reshape(*value.shape, *rows.shape[1:])
    return as_floats(what, value)


def _arviz() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"\s*ArviZ is undergoing", FutureWarning
            )  # it says so once a day when it is imported
            import arviz  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigurationError(
            f"to_arviz needs ArviZ, which is not installed ({error}). Install it: pip install "
            '"sbi-models[arviz]".'
        ) from None
    if not hasattr(arviz, "InferenceData"):
        raise ConfigurationError(
            f"Expected ArviZ below version 1, got {arviz.__version__}. Install it: pip install "
            '"sbi-models[arviz]".'
        )
    module: ModuleType = arviz
    return module
