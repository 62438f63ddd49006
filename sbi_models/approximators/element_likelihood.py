"""Log likelihood of data sets of any number of elements, as a differentiable function of the parameters.

Elements are independent given the parameters, so that log p(x_1 ... x_N | theta) is the sum of the log
densities of single elements, which the networks learned. The sum is in float64, and in chunks. Elements that
are equal, as those of discrete observables often are, are evaluated once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sbi_models.approximators.base import Approximator
from sbi_models.approximators.elements import elements_of
from sbi_models.approximators.ensemble import EnsembleApproximator
from sbi_models.approximators.likelihood import LikelihoodApproximator
from sbi_models.approximators.rows import as_tensors
from sbi_models.approximators.validation import check_shapes
from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import RatioNetwork
from sbi_models.types import FloatArray, Variables, VariablesLike

_ROWS = 1024
"""Elements whose features are computed at once."""

_NUMBERS_AT_ONCE = 2**16
"""Components of elements in one call of a network, which bounds memory to some 200 MB with gradients."""


class ElementLikelihood:
    """Log likelihood of data sets as a function of parameters.

    Each member of an ensemble counts within the support of its own simulations, so that the support of their
    mixture is the union; its reach is what all of those that count have reached.

    Args:
        approximator: a trained `LikelihoodApproximator`, or an ensemble of some.
        data: observables and conditions of elements of n data sets, raw space; see
            `LikelihoodWorkflow.log_likelihood`.
    """

    def __init__(self, approximator: Approximator, data: VariablesLike) -> None:
        approximator._check_built()
        approximator.eval()
        self.members = likelihood_members(approximator)
        self.first = next(iter(self.members))[1]
        elements = elements_of(self.first, data)
        (values,) = elements.values
        taken = [self._as_taken(member, values) for _, member in self.members]
        self.elements = elements._replace(values=tuple(own for own, _ in taken))
        self._log_factors = [
            log_weight + each for (log_weight, _), (_, each) in zip(self.members, taken, strict=True)
        ]
        self.number, self.longest = self.elements.weights.shape
        self.sizes = (self.elements.weights > 0).sum(dim=1)
        self._one_support = all(member.support == self.first.support for _, member in self.members)
        self.width = max(value.shape[2] for value in self.elements.values)

    def __call__(self, parameters: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Log likelihood in nats (m,), float64, with gradients: of data set `rows[i]` at the i-th parameters.

        Args:
            parameters: name to (m, width), float64, raw space.
            rows: numbers of data sets (m,).
        """
        inside = self.inside(parameters)
        chosen = inside.nonzero().flatten()
        total = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
        if not len(chosen):
            return total
        whole = torch.zeros_like(rows), self.sizes[rows]
        parts, chunks = [], self._chunks(chosen, whole)
        for which in chunks:
            given = {name: value[which] for name, value in parameters.items()}
            span = whole[0][which], whole[1][which]
            parts.append(
                self._summed(given, rows[which], span)
                if len(chunks) == 1 or not torch.is_grad_enabled()
                else checkpoint(self._summed, given, rows[which], span, use_reentrant=False)
            )
        return total.index_put((torch.cat(chunks),), torch.cat(parts))

    def of_a_part(
        self,
        parameters: Mapping[str, Tensor],
        rows: Tensor,
        span: tuple[Tensor, Tensor],
        *,
        with_gradient: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Log likelihood (m,) of some elements, and its gradient (m, width of all parameters), float64.

        Args:
            parameters: name to (m, width), float64, raw space.
            rows: numbers of data sets (m,).
            span: first element, and the one after the last, (m,) each. The volume of a data set counts with
                its first element.
            with_gradient: False for a gradient of zeros, which is faster.
        """
        widths = [value.shape[1] for value in parameters.values()]
        inside = self.inside(parameters).nonzero().flatten()
        total = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
        gradient = torch.zeros(len(rows), sum(widths), dtype=torch.float64)
        joined = torch.cat([value.detach() for value in parameters.values()], dim=1)
        for which in self._chunks(inside, span):
            theta = joined[which].requires_grad_(with_gradient)
            with torch.set_grad_enabled(with_gradient):
                split = torch.split(theta, widths, dim=1)
                given = dict(zip(parameters, split, strict=True))
                value = self._summed(given, rows[which], (span[0][which], span[1][which]))
            fine = value.isfinite()
            total[which] = torch.where(fine, value.detach(), -torch.inf)
            if with_gradient:
                (slope,) = torch.autograd.grad(torch.where(fine, value, 0.0).sum(), theta)
                gradient[which] = torch.where(slope.isfinite(), slope, 0.0)
        return total, gradient

    def inside(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Booleans (m,): which parameters lie inside the support."""
        with torch.no_grad():
            given = {name: value.detach() for name, value in parameters.items()}
            fine = torch.stack([value.isfinite().all(dim=1) for value in given.values()]).all(dim=0)
            fine &= self._supported(given).any(dim=0)
            safe = {name: value[fine] for name, value in given.items()}
            if bool(fine.any()):
                fine[fine.clone()] &= self.first.adapter.inside(self._with_conditions(safe))
            return fine

    def _supported(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Booleans (members, m): which parameters lie inside the support of each member's simulations."""
        members = self.members[:1] if self._one_support else self.members
        return torch.stack([member.supports(parameters) for _, member in members])

    def _with_conditions(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters (m, width), with the conditions of one element, which steps may join them with."""
        m = len(next(iter(parameters.values())))
        one = {name: value[0, :1].expand(m, -1) for name, value in self.elements.conditions.items()}
        return {**parameters, **one}

    def outside_reach(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Booleans (m,): which parameters lie outside of the range of those that were simulated."""
        inside = self.inside(parameters)
        beyond = ~inside
        if bool(inside.any()):
            there = {name: value[inside] for name, value in parameters.items()}
            adapted = self.first.adapter.forward(self._with_conditions(there))["inference_conditions"]
            supported = self._supported(there).expand(len(self.members), -1)
            for (_, member), counts in zip(self.members, supported, strict=True):
                outside = member.beyond_reach(adapted)
                if self.elements.conditions and len(adapted) > 1:  # those of conditions are constant
                    outside &= adapted.amin(dim=0) < adapted.amax(dim=0)
                beyond[inside] |= counts & outside.any(dim=1)
        return beyond

    def conditions_beyond(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Share of the elements of each data set whose conditions lie outside of the simulated range, (n,).

        Args:
            parameters: different ones, name to (m, width), which tell what depends on the conditions alone.
        """
        share = torch.zeros(self.number, dtype=torch.float64)
        inside = self.inside(parameters)
        if not self.elements.conditions or int(inside.sum()) < 2:
            return share
        there = {name: value[inside] for name, value in parameters.items()}
        adapted = self.first.adapter.forward(self._with_conditions(there))["inference_conditions"]
        own = adapted.amin(dim=0) == adapted.amax(dim=0)
        n, number = self.elements.weights.shape
        each = {name: value[:1].expand(n * number, -1) for name, value in there.items()}
        each |= {name: value.flatten(0, 1) for name, value in self.elements.conditions.items()}
        adapted = self.first.adapter.forward(each)["inference_conditions"]
        outside = torch.zeros(n * number, dtype=torch.bool)
        for _, member in self.members:
            outside |= (member.beyond_reach(adapted) & own).any(dim=1)
        counted = self.elements.weights > 0
        found = (outside.reshape(n, number) & counted).sum(dim=1)
        return found / counted.sum(dim=1).clamp(min=1)

    def _chunks(self, positions: Tensor, span: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Positions (m,) of parameters in parts that a network takes at once, by number of elements."""
        sizes = (span[1] - span[0])[positions].clamp(min=1)
        classes = sizes.to(torch.float64).log2().ceil()
        parts: list[Tensor] = []
        for one in sorted(set(classes.tolist())):
            alike = positions[classes == one]
            step = max(1, _NUMBERS_AT_ONCE // (2 ** int(one) * self.width))
            parts += torch.split(alike, step)
        return parts

    def _summed(self, parameters: Mapping[str, Tensor], rows: Tensor, span: tuple[Tensor, Tensor]) -> Tensor:
        """Log likelihood (m,), of the elements of a span, of parameters inside the support."""
        nothing = torch.stack([value.sum(dim=1) for value in parameters.values()]).sum(dim=0) * 0.0
        start, end = span
        volume = torch.where(start == 0, self.elements.log_volume[rows], 0.0)
        total = volume + nothing  # data sets without elements have gradients, too
        for positions in self._elements_at_once(int((end - start).max())):
            place = start[:, None] + positions
            there, index = place < end[:, None], (rows[:, None], place.clamp(max=self.longest - 1))
            weights = torch.where(there, self.elements.weights[index], 0.0)
            conditions = {name: value[index] for name, value in self.elements.conditions.items()}
            values = [value[index] for value in self.elements.values]
            logs = self._mixed(parameters, values, conditions).to(torch.float64)
            total = total + torch.where(weights > 0, logs * weights, 0.0).sum(dim=1)
        return total

    def _elements_at_once(self, number: int) -> Iterator[Tensor]:
        step = max(1, _NUMBERS_AT_ONCE // self.width)
        return iter(torch.split(torch.arange(number), step) if number else ())

    def _mixed(
        self, parameters: Mapping[str, Tensor], values: Sequence[Tensor], conditions: Mapping[str, Tensor]
    ) -> Tensor:
        """Log densities (m, N) of elements, as each member takes them, of the mixture of all members."""
        m, number, _ = values[0].shape
        raw = dict(parameters)
        if conditions:
            raw = {name: value.repeat_interleave(number, dim=0) for name, value in parameters.items()}
            raw |= {name: value.flatten(0, 1) for name, value in conditions.items()}
        logs = []
        factors = self._factors(parameters)
        for (_, member), own, log_factor in zip(self.members, values, factors, strict=True):
            device, network = member.device, member.inference_network
            moved = {name: value.to(device) for name, value in raw.items()}
            adapted = member.adapter.forward(moved)["inference_conditions"]
            given = member.standardizer("inference_conditions", adapted).to(torch.float32)
            of_each = (
                network.log_ratio_of_each if isinstance(network, RatioNetwork) else network.log_prob_of_each
            )
            if conditions:
                each = of_each(own.flatten(0, 1)[:, None].to(device), given).reshape(m, number)
            else:
                each = of_each(own.to(device), given)
            logs.append(each.cpu() + log_factor)
        return logs[0] if len(logs) == 1 else torch.stack(logs).logsumexp(dim=0)

    @torch.no_grad()
    def _factors(self, parameters: Mapping[str, Tensor]) -> Sequence[Any]:
        """Logs of what each member's densities are multiplied by, (m, 1) where members differ in support."""
        if self._one_support:
            return self._log_factors
        weights = torch.tensor([[weight] for weight, _ in self.members], dtype=torch.float32)
        shares = torch.where(self._supported(parameters), weights, -torch.inf)
        more = shares - shares.logsumexp(dim=0) - weights + torch.tensor(self._log_factors)[:, None]
        return list(more[:, :, None])

    @torch.no_grad()
    def _as_taken(self, member: LikelihoodApproximator, values: Tensor) -> tuple[Tensor, float]:
        """Elements (n, N, d) as a member takes them, and the log of what its densities are multiplied by."""
        own, log_factor = self._standardized_by(member, values)
        network = member.inference_network
        if not isinstance(network, RatioNetwork):
            return own, log_factor
        flat = own.flatten(0, 1).to(member.device)
        features = torch.cat([network.embed(part).cpu() for part in torch.split(flat, _ROWS)])
        return features.reshape(*own.shape[:2], -1), 0.0  # a ratio has no volume

    def _standardized_by(self, member: LikelihoodApproximator, values: Tensor) -> tuple[Tensor, float]:
        """Elements as a member standardizes them, and log |det| of the step from the first member's, in nats.

        Members that were trained one by one have moments of their own.
        """
        role, (first, own) = "inference_variables", (self.first.standardizer, member.standardizer)
        moments, others = first.state_dict(), own.state_dict()
        if all(torch.equal(value.cpu(), others[key].cpu()) for key, value in moments.items() if role in key):
            return values, 0.0
        adapted = first.inverse(role, values.to(self.first.device, torch.float64))
        factor = float(own.log_abs_det(role)) - float(first.log_abs_det(role))
        return own(role, adapted.to(member.device)).to("cpu", torch.float32), factor


def likelihood_members(approximator: Approximator) -> list[tuple[float, LikelihoodApproximator]]:
    """Members of a learned likelihood with their log weights; those without weight are left out.

    Raises:
        ConfigurationError: for an approximator that is no likelihood, or members of different kinds of data.
    """
    every = approximator.members
    learned = approximator.weights if isinstance(approximator, EnsembleApproximator) else None
    weights = learned or dict.fromkeys(every, 1 / len(every))
    if not all(isinstance(member, LikelihoodApproximator) for member in every.values()):
        raise ConfigurationError(
            f"Expected a learned likelihood, got an approximator of kind {approximator.kind!r}. Train one "
            "with LikelihoodWorkflow."
        )
    kinds = {(member.iid, member.element_conditions) for member in every.values()}
    if len(kinds) > 1:
        got = " and ".join(sorted(map(str, kinds)))
        raise ConfigurationError(
            f"Expected members of one iid and the same conditions of elements, got {got}."
        )
    return [
        (float(np.log(weights[name])), member)  # type: ignore[misc]
        for name, member in every.items()
        if weights[name] > 0
    ]


def element_log_likelihood(
    approximator: Approximator, data: VariablesLike, *, batch_size: int | None = None
) -> FloatArray:
    """Log likelihood in nats (n,) of data sets, each at its parameters; see `LikelihoodWorkflow`."""
    likelihood = ElementLikelihood(approximator, data)
    parameters = checked_parameters(likelihood.first, data, likelihood.number)
    step = likelihood.number if batch_size is None else positive_int(batch_size, "batch_size")
    rows, parts = torch.arange(likelihood.number), []
    with torch.no_grad():
        for start in range(0, likelihood.number, step):
            part = slice(start, start + step)
            parts.append(likelihood({name: value[part] for name, value in parameters.items()}, rows[part]))
    return np.asarray(torch.cat(parts).numpy())


def likelihood_function(likelihood: ElementLikelihood) -> Callable[[Tensor], Tensor]:
    """The log likelihood of one data set as a function of a tensor (n, d): all parameters side by side.

    Raises:
        ConfigurationError: for several data sets, and by the function for another shape.
    """
    if likelihood.number != 1:
        raise ConfigurationError(
            f"Expected one data set, with a leading axis of 1, got {likelihood.number}. Make one function of "
            "each."
        )
    names = likelihood.first.parameter_names
    widths = [likelihood.first.shapes[name][0] for name in names]

    def log_likelihood(theta: Tensor) -> Tensor:
        theta = torch.as_tensor(theta)
        if theta.ndim != 2 or theta.shape[1] != sum(widths):
            raise ConfigurationError(
                f"Expected parameters of shape (n, {sum(widths)}), got {tuple(theta.shape)}."
            )
        parts = torch.split(theta.to(torch.float64), widths, dim=1)
        return likelihood(dict(zip(names, parts, strict=True)), torch.zeros(len(theta), dtype=torch.long))

    return log_likelihood


def checked_parameters(
    approximator: LikelihoodApproximator, data: VariablesLike, number: int
) -> dict[str, Tensor]:
    """Parameters of n data sets as tensors (n, width), float64, raw space."""
    names = approximator.parameter_names
    variables = {name: np.asarray(data[name], dtype=float) for name in names if name in data}
    for name in names:
        if name not in variables:
            raise ConfigurationError(
                f"Expected the parameters {', '.join(map(repr, names))} beside the data, got no {name!r}."
            )
    shaped: Variables = {
        name: value[:, None] if value.ndim == 1 else value for name, value in variables.items()
    }
    for name, value in shaped.items():
        if bad := int(np.isnan(value).sum()):
            raise DataError(f"Expected parameters {name!r} that are numbers, got NaN at {bad} places.")
    check_shapes(shaped, approximator.shapes, "parameters")
    found = {name: len(value) for name, value in shaped.items()}
    if set(found.values()) != {number}:
        raise ConfigurationError(f"Expected parameters for each of {number} data sets, got rows: {found}.")
    return as_tensors(shaped)
