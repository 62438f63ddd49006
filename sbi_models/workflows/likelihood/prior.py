"""Prior of a posterior from a learned likelihood: draws, densities, and the map to unbounded space."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.adapters.supports import steps_for
from sbi_models.adapters.transforms import Constrain
from sbi_models.errors import ConfigurationError
from sbi_models.simulators.priors import TorchPrior
from sbi_models.torch_defaults import in_double_precision
from sbi_models.workflows.other_prior import PriorLike, given_priors

_ROLE = "inference_variables"
_DRAWS_FOR_UNITS = 1_000


class Prior:
    """Independent torch distributions of parameters, and the map z from their support to all real numbers.

    Args:
        distributions: a distribution for each parameter, by raw name.
        widths: number of components of each parameter.

    Raises:
        ConfigurationError: for a discrete prior, or a support that no step of an adapter is for.
    """

    def __init__(self, distributions: Mapping[str, Distribution], widths: Mapping[str, int]) -> None:
        self.distributions = {name: in_double_precision(one) for name, one in distributions.items()}
        self.widths = dict(widths)
        for name, one in self.distributions.items():
            check_continuous(name, one)
            size = (one.batch_shape + one.event_shape).numel()
            if size != widths[name]:
                raise ConfigurationError(
                    f"Expected a prior of {name!r} with {widths[name]} components, as in the simulations, "
                    f"got shape {tuple(one.batch_shape + one.event_shape)}. Use for instance "
                    f"torch.distributions.Normal(0.0, 1.0).expand(({widths[name]},))."
                )
        self._prior = TorchPrior(self.distributions)
        adapter = Adapter()
        for name, one in self.distributions.items():
            adapter = adapter.constrain(name, prior=one)
        raw = self._drawn(_DRAWS_FOR_UNITS, 0)
        self.adapter = adapter.route({_ROLE: list(self.distributions)}).fitted(raw)
        self.width = self.adapter.forward(raw)[_ROLE].shape[1]

    def draw(self, number: int, seed: int) -> Tensor:
        """Draws (number, width) in unbounded space."""
        return self.adapter.forward(self._drawn(number, seed))[_ROLE]

    def _drawn(self, number: int, seed: int) -> dict[str, Tensor]:
        """Draws by name, (number, width), raw space."""
        drawn = self._prior(seeding.generator(seed, "prior"), (number,))
        return {name: torch.as_tensor(value).reshape(number, -1) for name, value in drawn.items()}

    def raw(self, z: Tensor) -> dict[str, Tensor]:
        """Parameters by name, (m, width) each, raw space, of z (m, width of z), with gradients."""
        raw = self.adapter.inverse({_ROLE: z})
        return {name: raw[name] for name in self.distributions}

    def log_volume(self, raw: Mapping[str, Tensor]) -> Tensor:
        """log |det dz / d raw| (m,), with gradients; infinite at an edge that a double cannot tell apart."""
        rows = dict(raw)
        slopes = {name: torch.zeros_like(value) for name, value in rows.items()}
        for step in self.adapter.transforms:  # `Adapter.log_abs_det` refuses what a chain merely rejects
            after = step.forward(rows)
            slopes, rows = step.carried(rows, slopes), after
        return slopes[_ROLE].sum(dim=1)

    def log_prob(self, raw: Mapping[str, Tensor]) -> Tensor:
        """Log density in nats (m,), raw space, with gradients; -inf outside of the support."""
        total = torch.zeros(len(next(iter(raw.values()))), dtype=torch.float64)
        for name, one in self.distributions.items():
            event = one.batch_shape + one.event_shape
            value = raw[name].reshape(-1, *event)
            support: Any = one.support
            inside = support.check(value.detach()).reshape(len(value), -1).all(dim=1)
            density = torch.full((len(value),), -torch.inf, dtype=torch.float64)
            rows = inside.nonzero().flatten()
            if len(rows):
                there = one.log_prob(value[rows]).reshape(len(rows), -1).sum(dim=1)
                density = density.index_put((rows,), there.to(torch.float64))
            total = total + density
        return total


def resolved_prior(
    prior: PriorLike | None,
    known: Mapping[str, Distribution],
    names: Sequence[str],
    widths: Mapping[str, int],
) -> Prior:
    """The prior of a call: what was passed, and for other parameters that of the simulations.

    Raises:
        ConfigurationError: for what is no prior of the parameters, or if the density of one is not known.
    """
    given = {**known, **given_priors(prior, names)}
    missing = [name for name in names if name not in given]
    if missing:
        raise ConfigurationError(
            f"Expected a prior with a density, got none for {missing[0]!r}: the simulator draws it by a "
            f"function. Pass prior={{{missing[0]!r}: torch.distributions...}}, or make the simulator with "
            "torch distributions in place of that function."
        )
    return Prior({name: given[name] for name in names}, widths)


def support_bounds(
    name: str, distribution: Distribution
) -> tuple[list[float | None], list[float | None]] | None:
    """Lower and upper bounds of a distribution's components, one for all or one each; None if it has none."""
    bounds = [step for step in steps_for(name, distribution) if isinstance(step, Constrain)]
    if not bounds:
        return None
    lower, upper = (ends if isinstance(ends, list) else [ends] for ends in (bounds[0].lower, bounds[0].upper))
    return lower, upper


def check_continuous(name: str, distribution: Distribution) -> None:
    support: Any = distribution.support
    if support.is_discrete:
        raise ConfigurationError(
            f"Expected a continuous prior of {name!r}, got {type(distribution).__name__}: posteriors of "
            "discrete parameters are not drawn by gradients. Sum over its values: fix it with "
            "log_likelihood for each of them, or infer it with BasicWorkflow and "
            'inference_network="autoregressive_mixture".'
        )
