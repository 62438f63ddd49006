"""Discrete inference variables of an approximator: which are declared, which are found, who refuses them."""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from sbi_models.adapters import Adapter
from sbi_models.adapters.transforms import AsCategorical, AsCount, Discrete, Transform
from sbi_models.approximators.base import Approximator
from sbi_models.errors import ConfigurationError
from sbi_models.networks import InferenceNetwork
from sbi_models.networks.base import DiscreteColumns
from sbi_models.progress import tell
from sbi_models.types import Array, Variables

_logger = logging.getLogger(__name__)

_MOST_FOUND = 64
"""Largest number of distinct whole numbers that are found to be discrete."""

_FEWEST_ROWS, _FEWEST_OF_EACH = 100, 5
"""Rows to find anything in, and rows of each value of a category that is found."""

_FEWEST_COUNTS = 4
"""Distinct values of a count that is found; of fewer, a rare one may be a category as well."""

DiscreteVariables = dict[str, list[list[float] | None]]
"""Discrete inference variables by raw name: for each component the values of its categories, [] for a count,
and None for a continuous one."""


def check_takes_discrete(network: InferenceNetwork, adapter: Adapter, names: Sequence[str]) -> None:
    """Raise ConfigurationError if inferred variables are declared discrete, and the network takes none."""
    declared = [name for step in adapter.transforms if isinstance(step, Discrete) for name in step.names]
    if (refused := [name for name in declared if name in names]) and not network.takes_discrete:
        raise ConfigurationError(
            f"Expected continuous inference variables for {type(network).__name__}, got "
            f"{', '.join(map(repr, refused))}, declared discrete by the adapter or by its prior. Use "
            'inference_network="autoregressive_mixture" (AutoregressiveMixture) or "auto"; for probabilities '
            'of categories alone, a ScoringRuleNetwork with the rule "categorical".'
        )


def columns_of(adapter: Adapter, adapted: Mapping[str, Tensor]) -> DiscreteColumns:
    """Discrete columns of adapted inference variables (n, d), by a fitted adapter."""
    role = "inference_variables"
    if not any(isinstance(step, Discrete) for step in adapter.transforms) or role not in adapted:
        return ()
    return adapter.discrete(adapter.inverse({role: adapted[role][:1]}), role)


def without_discrete(adapter: Adapter, adapted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapted variables with 0 in the discrete columns, which no scale crushes."""
    columns = [column for column, *_ in columns_of(adapter, adapted)]
    if not columns:
        return dict(adapted)
    role = "inference_variables"
    values = adapted[role].clone()
    values[:, columns] = 0.0
    return {**adapted, role: values}


def discrete_variables(
    adapter: Adapter, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> DiscreteVariables:
    """The discrete ones among inferred variables, as far as a fitted adapter declares them."""
    found: DiscreteVariables = {}
    for step in adapter.transforms:
        if isinstance(step, AsCategorical | AsCount):
            for name in step.names:
                if name in names:
                    width = shapes[name][-1]
                    listed = found.setdefault(name, [None] * width)
                    for place, k in enumerate(range(width) if step.components is None else step.components):
                        listed[k] = list(step.table(name)[place]) if isinstance(step, AsCategorical) else []
    return found


def discrete_variables_of(approximator: Approximator) -> DiscreteVariables:
    """The discrete inference variables of an approximator or ensemble; none before it has seen data."""
    if not approximator.is_built:
        return {}
    member = next(iter(approximator.members.values()))
    return discrete_variables(member.adapter, member.inference_names, member.shapes)


def declared_components(adapter: Adapter, variables: Variables) -> set[tuple[str, int]]:
    """Raw variables (n, ..., d) and components that an adapter declares discrete."""
    return {
        (name, k)
        for step in adapter.transforms
        if isinstance(step, Discrete)
        for name in step.names
        if name in variables
        for k in (range(variables[name].shape[-1]) if step.components is None else step.components)
    }


# ---- found in simulations ---------------------------------------------------


def with_found(adapter: Adapter, inferred: Variables, tensors: Mapping[str, Tensor]) -> Adapter:
    """The adapter, after steps that declare those inferred variables (n, d) discrete that look it.

    What an adapter declares or changes is left alone. What is found is told on the screen. `tensors` are all
    raw variables.
    """
    declared = declared_components(adapter, inferred)
    looks = list(_looking_discrete(inferred, declared))
    found = []
    for step in looks:
        some = {name: value[:_FEWEST_ROWS] for name, value in tensors.items()}
        extended = Adapter((step, *adapter.transforms))
        if extended.keeps_discrete(some, "inference_variables"):
            found.append(step)
    if found:
        tell_found(found)
    return Adapter((*found, *adapter.transforms)) if found else adapter


def found_steps(variables: Variables, names: Sequence[str]) -> list[Transform]:
    """Steps that declare variables (n, d) discrete, with the values of the categories; not told."""
    return list(_looking_discrete({name: variables[name] for name in names}, set()))


def tell_found(found: Sequence[Transform]) -> None:
    """Tell on the screen what was found to be discrete, and how to say otherwise."""
    for step in found:
        assert isinstance(step, AsCategorical | AsCount)
        name, what = step.names[0], "categories" if isinstance(step, AsCategorical) else "counts"
        other = "as_count" if isinstance(step, AsCategorical) else "as_categorical"
        text = (
            f"{name!r} has few distinct values, whole numbers, in all simulations: they are taken as {what}, "
            f"with probabilities, as adapter.{step.kind}({name!r}) does. Say otherwise by "
            f"adapter.{other}({name!r}), or make them continuous in the simulator, + rng.uniform()."
        )
        _logger.info("%s", text)
        tell(text)


def _looking_discrete(variables: Variables, declared: set[tuple[str, int]]) -> Iterator[Transform]:
    for name, value in variables.items():
        if value.ndim != 2 or len(value) < _FEWEST_ROWS:
            continue
        laws = {k: _values_of(value[:, k]) for k in range(value.shape[1]) if (name, k) not in declared}
        classes = {k: values for k, values in laws.items() if values}
        counts = [k for k, values in laws.items() if values == []]
        every = value.shape[1]
        if classes:
            components = None if len(classes) == every else list(classes)
            yield AsCategorical(name, {name: list(classes.values())}, components)
        if counts:
            yield AsCount(name, None, None if len(counts) == every else counts)


def _values_of(column: Array) -> list[float] | None:
    """Values of the categories that a column (n,) looks to be of, [] if it looks a count, None if neither.

    Categories: few distinct whole numbers, none of them rare. Counts: from 0 up, with rare ones at the end.
    """
    values = np.asarray(column, dtype=float)
    if not (values == np.round(values)).all():
        return None
    distinct, numbers = np.unique(values, return_counts=True)
    if not 2 <= len(distinct) <= _MOST_FOUND:
        return None
    if numbers.min() >= _FEWEST_OF_EACH:
        return [float(one) for one in distinct]
    if distinct[0] == 0 and len(distinct) >= _FEWEST_COUNTS and numbers[0] >= _FEWEST_OF_EACH:
        return []
    return None
