"""Adapter steps that map the support of a torch distribution to the whole real line."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
    constraints,
)
from torch.distributions.transforms import ComposeTransform, IndependentTransform
from torch.distributions.transforms import Transform as Map

from sbi_models.adapters.discrete import discrete_steps
from sbi_models.adapters.transforms import Constrain, Names, Simplex, Transform
from sbi_models.errors import ConfigurationError
from sbi_models.torch_defaults import in_double_precision

_BOUNDED = (
    constraints.greater_than,
    constraints.greater_than_eq,
    constraints.less_than,
    constraints.interval,
)
_HALF_OPEN = constraints.half_open_interval


class _Box(NamedTuple):
    """Bounds of each component, float64, that broadcast against a draw; infinite where there is none."""

    lower: Tensor
    upper: Tensor


_Support = _Box | None
"""A box, or None for the simplex."""


def steps_for(names: Names, distribution: Any) -> list[Transform]:
    """The steps, one or none, that take draws of a distribution to all real numbers.

    Bounds are read from `distribution.support`, those of mixtures and of componentwise monotone transforms
    from their parts, because torch itself says of 2 + 3 u, u uniform, that it is any real number. A discrete
    one gives a step that declares categories or counts.

    Raises:
        ConfigurationError: if it is no torch distribution, or its support is of a kind that no step is for.
    """
    if not isinstance(distribution, Distribution):
        raise ConfigurationError(
            f"Expected the prior of {names!r} as a torch distribution, such as "
            f"torch.distributions.Uniform(0.0, 1.0), got {distribution!r}."
        )
    try:
        if (discrete := discrete_steps(names, distribution)) is not None:
            return discrete
        support = _of_distribution(in_double_precision(distribution))
    except (_NoStepError, NotImplementedError) as error:
        raise ConfigurationError(
            f"Expected a prior of {names!r} with a support of intervals, half-lines, a simplex, or whole "
            f"numbers, got {type(distribution).__name__}: {error}. Transform the variable in the simulator, "
            "or leave out prior=."
        ) from None
    if support is None:
        return [Simplex(names)]
    lower, upper = (_listed(names, bounds) for bounds in support)
    if not any(bounds.isfinite().any() for bounds in support):
        return []
    return [Constrain(names, lower, upper, "probit")]


class _NoStepError(Exception):
    """A support that no step is for; the text says which."""


def _of_distribution(distribution: Distribution) -> _Support:
    if isinstance(distribution, Independent):
        return _of_distribution(distribution.base_dist)
    if isinstance(distribution, MixtureSameFamily):
        return _hull(distribution.component_distribution)
    if (
        isinstance(distribution, TransformedDistribution)
        and type(distribution).support is TransformedDistribution.support
    ):
        support = _of_distribution(distribution.base_dist)
        for step in distribution.transforms:
            support = _image(step, support)
        return support
    return _of_constraint(distribution.support)


def _hull(components: Distribution) -> _Support:
    """The smallest box that holds all components of a mixture."""
    support = _of_distribution(components)
    if support is None:
        return None
    shape, axis = components.batch_shape + components.event_shape, -1 - len(components.event_shape)
    return _Box(support.lower.expand(shape).amin(dim=axis), support.upper.expand(shape).amax(dim=axis))


def _image(step: Map, support: _Support) -> _Support:
    """Image of a support under a torch transform.

    Monotone transforms take bounds to bounds, and an end of their domain to one of their codomain.
    """
    if isinstance(step, ComposeTransform):
        for part in step.parts:
            support = _image(part, support)
        return support
    if isinstance(step, IndependentTransform):
        return _image(step.base_transform, support)
    codomain = _of_constraint(step.codomain)
    if (
        support is None
        or codomain is None
        or step.domain.event_dim
        or step.codomain.event_dim
        or not step.bijective
    ):
        return codomain
    domain = _of_constraint(step.domain)
    assert domain is not None
    try:
        increases = torch.as_tensor(step.sign) > 0
    except NotImplementedError:
        return codomain
    first = torch.where(increases, codomain.lower, codomain.upper)
    last = torch.where(increases, codomain.upper, codomain.lower)
    first = torch.where(support.lower > domain.lower, step(support.lower), first)
    last = torch.where(support.upper < domain.upper, step(support.upper), last)
    return _Box(torch.where(increases, first, last), torch.where(increases, last, first))


def _of_constraint(constraint: Any) -> _Support:
    if constraint.is_discrete:
        raise _NoStepError(f"{constraint} is discrete")
    if isinstance(constraint, constraints.independent):
        return _of_constraint(constraint.base_constraint)
    if isinstance(constraint, type(constraints.simplex)):
        return None
    if isinstance(constraint, type(constraints.real)):
        return _Box(_bound(-torch.inf), _bound(torch.inf))
    if isinstance(constraint, (*_BOUNDED, _HALF_OPEN)):
        return _Box(
            _bound(getattr(constraint, "lower_bound", -torch.inf)),
            _bound(getattr(constraint, "upper_bound", torch.inf)),
        )
    if isinstance(constraint, constraints.stack | constraints.cat):
        return _side_by_side(constraint)
    raise _NoStepError(f"there is no step for {constraint}")


def _side_by_side(constraint: Any) -> _Box:
    """Supports of the components of one axis, put together as torch puts the components together."""
    boxes = [_of_constraint(part) for part in constraint.cseq]
    lengths = getattr(constraint, "lengths", None)
    ends = []
    for parts in zip(*(box for box in boxes if box is not None), strict=True):
        if len(parts) < len(boxes):
            raise _NoStepError("a simplex beside other components; give them names of their own")
        if lengths is None:
            widest = max(parts, key=lambda part: part.ndim)
            ends.append(torch.stack([part.expand_as(widest) for part in parts], dim=constraint.dim))
        else:
            ends.append(torch.cat([part.expand(length) for part, length in zip(parts, lengths, strict=True)]))
    return _Box(*ends)


def _bound(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu()


def _listed(names: Names, bounds: Tensor) -> float | list[float]:
    """A number, or one for each component of the last axis."""
    if bounds.ndim == 0:
        return float(bounds)
    rows = bounds.reshape(-1, bounds.shape[-1])
    if not bool((rows == rows[0]).all()):
        raise ConfigurationError(
            f"Expected bounds of {names!r} that differ along the last axis only, got bounds of shape "
            f"{tuple(bounds.shape)}. Give the parts names of their own in the simulator."
        )
    return [float(bound) for bound in rows[0]]
