"""Torch distributions as JSON, so that a saved likelihood knows the prior of its simulations."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributions import Distribution, Independent, MultivariateNormal

from sbi_models.errors import ModelFileError
from sbi_models.torch_defaults import in_double_precision

_ARGUMENTS = {MultivariateNormal: ("loc", "scale_tril")}
"""Arguments of classes that take one of several."""


def distribution_to_json(distribution: Distribution) -> dict[str, Any] | None:
    """A distribution of `torch.distributions` by name and arguments; None for one of another kind.

    >>> distribution_to_json(torch.distributions.Normal(0.0, 1.0))
    {'name': 'Normal', 'arguments': {'loc': 0.0, 'scale': 1.0}}
    """
    kind, one = type(distribution), in_double_precision(distribution)
    if kind is Independent:
        base = distribution_to_json(one.base_dist)
        axes = one.reinterpreted_batch_ndims
        return None if base is None else {"name": kind.__name__, "base": base, "axes": axes}
    if getattr(torch.distributions, kind.__name__, None) is not kind:
        return None
    names = _ARGUMENTS.get(kind) or tuple(one.arg_constraints)
    values = {name: getattr(one, name, None) for name in names}
    tensors = {name: value.tolist() for name, value in values.items() if isinstance(value, torch.Tensor)}
    if not tensors or len(tensors) < len(values):
        return None
    content = {"name": kind.__name__, "arguments": tensors}
    return content if _is_same(one, content) else None


def distribution_from_json(content: Mapping[str, Any]) -> Distribution:
    """The distribution in float64, after `distribution_to_json`.

    Raises:
        ModelFileError: for what is no such content.
    """
    try:
        if content["name"] == Independent.__name__:
            return Independent(distribution_from_json(content["base"]), int(content["axes"]))
        kind: Any = getattr(torch.distributions, content["name"])
        if not isinstance(kind, type) or Distribution not in kind.__mro__:
            raise TypeError(f"no distribution: {content['name']}")
        arguments = {
            name: torch.tensor(value, dtype=torch.float64) for name, value in content["arguments"].items()
        }
        made: Distribution = kind(**arguments, validate_args=True)
        return made
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"Expected a torch distribution, got {content!r:.200}: {error}.") from None


def _is_same(one: Distribution, content: Mapping[str, Any]) -> bool:
    """Whether a distribution has the density of the one that its content gives."""
    try:
        again = distribution_from_json(content)
    except ModelFileError:  # of a class with other arguments
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        draws = one.sample(torch.Size([8]))
        return again.batch_shape == one.batch_shape and torch.allclose(
            again.log_prob(draws), one.log_prob(draws), rtol=1e-9, atol=1e-9
        )
