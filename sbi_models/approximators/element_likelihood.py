"""Log likelihood of data sets of any number of elements, as a differentiable function of the parameters.

Elements are independent given the parameters, so that log p(x_1 ... x_N | theta) is the sum of the log
densities of single elements, which the networks learned. The sum is in float64, and in chunks. Elements that
are equal, as those of discrete observables often are, are evaluated once.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sbi_models import seeding
from sbi_models.approximators.base import Approximator
from sbi_models.approximators.ensemble import EnsembleApproximator
from sbi_models.approximators.likelihood import LikelihoodApproximator
from sbi_models.approximators.rows import as_tensors
from sbi_models.approximators.validation import as_variables, check_representable, check_shapes
from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError
from sbi_models.types import Array, FloatArray, Variables, VariablesLike

_NUMBERS_AT_ONCE = 2**16
"""Components of elements in one call of a network, which bounds memory to some 200 MB with gradients."""


class Elements(NamedTuple):
    """Elements of n data sets, padded to the largest number N.

    Attributes:
        values: standardized observables (n, N, d), float32.
        weights: how often each element is there, (n, N), float64, 0 for padding.
        conditions: conditions of elements by name, (n, N, c), raw space.
        log_volume: log |det d standardized / d raw| of all elements of a data set, (n,), -inf where an
            element lies outside of the support of the observables.
    """

    values: Tensor
    weights: Tensor
    conditions: dict[str, Tensor]
    log_volume: Tensor

    def in_random_order(self, seed: int) -> "Elements":
        """The same, with the elements of each data set in another order, which is that of its number of
        elements and the seed alone."""
        order = torch.arange(self.values.shape[1]).repeat(len(self.values), 1)
        for row, size in enumerate((self.weights > 0).sum(dim=1).tolist()):
            shuffled = seeding.generator(seed, "order of elements", size).permutation(size)
            order[row, :size] = torch.as_tensor(shuffled)

        def taken(values: Tensor) -> Tensor:
            return values.gather(1, order.reshape(*order.shape, *[1] * (values.ndim - 2)).expand_as(values))

        conditions = {name: taken(value) for name, value in self.conditions.items()}
        return Elements(taken(self.values), taken(self.weights), conditions, self.log_volume)


class ElementLikelihood:
    """Log likelihood of data sets as a function of parameters.

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
        self.elements = _elements(self.first, data)
        self.number = len(self.elements.values)
        self.sizes = (self.elements.weights > 0).sum(dim=1)
        self.longest = self.elements.values.shape[1]

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
            for name, (lower, upper) in self.first.support.items():
                ends = [
                    torch.tensor(
                        [sign * torch.inf if end is None else end for end in bounds], dtype=torch.float64
                    )
                    for sign, bounds in ((-1, lower), (1, upper))
                ]
                fine &= ((given[name] >= ends[0]) & (given[name] <= ends[1])).all(dim=1)
            safe = {name: value[fine] for name, value in given.items()}
            if bool(fine.any()):
                fine[fine.clone()] &= self.first.adapter.inside(self._with_conditions(safe))
            return fine

    def _with_conditions(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters (m, width), with the conditions of one element, which steps may join them with."""
        m = len(next(iter(parameters.values())))
        one = {name: value[0, :1].expand(m, -1) for name, value in self.elements.conditions.items()}
        return {**parameters, **one}

    def outside_reach(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Booleans (m,): which parameters lie outside of the range of those that were simulated."""
        ends, inside = self.first.reach.ends, self.inside(parameters)
        if ends is None:
            return ~inside
        ends, beyond = ends.cpu(), torch.ones_like(inside)
        if bool(inside.any()):
            given = self._with_conditions({name: value[inside] for name, value in parameters.items()})
            adapted = self.first.adapter.forward(given)["inference_conditions"]
            outside = (adapted < ends[0]) | (adapted > ends[1])
            if self.elements.conditions and len(adapted) > 1:  # those of conditions are constant
                outside &= adapted.amin(dim=0) < adapted.amax(dim=0)
            beyond[inside] = outside.any(dim=1)
        return beyond

    def _chunks(self, positions: Tensor, span: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Positions (m,) of parameters in parts that a network takes at once, by number of elements."""
        sizes = (span[1] - span[0])[positions].clamp(min=1)
        classes = sizes.to(torch.float64).log2().ceil()
        parts: list[Tensor] = []
        for one in sorted(set(classes.tolist())):
            alike = positions[classes == one]
            step = max(1, _NUMBERS_AT_ONCE // (2 ** int(one) * self.elements.values.shape[2]))
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
            logs = self._mixed(parameters, self.elements.values[index], conditions).to(torch.float64)
            total = total + torch.where(weights > 0, logs * weights, 0.0).sum(dim=1)
        return total

    def _elements_at_once(self, number: int) -> Iterator[Tensor]:
        step = max(1, _NUMBERS_AT_ONCE // self.elements.values.shape[2])
        return iter(torch.split(torch.arange(number), step) if number else ())

    def _mixed(
        self, parameters: Mapping[str, Tensor], values: Tensor, conditions: Mapping[str, Tensor]
    ) -> Tensor:
        """Log densities (m, N) of elements (m, N, d), standardized space, of the mixture of all members."""
        m, number, _ = values.shape
        raw = dict(parameters)
        if conditions:
            raw = {name: value.repeat_interleave(number, dim=0) for name, value in parameters.items()}
            raw |= {name: value.flatten(0, 1) for name, value in conditions.items()}
        logs = []
        for log_weight, member in self.members:
            device, network = member.device, member.inference_network
            moved = {name: value.to(device) for name, value in raw.items()}
            adapted = member.adapter.forward(moved)["inference_conditions"]
            given = member.standardizer("inference_conditions", adapted).to(torch.float32)
            own, log_factor = self._standardized_by(member, values)
            if conditions:
                each = network.log_prob(own.flatten(0, 1).to(device), given).reshape(m, number)
            else:
                each = network.log_prob_of_each(own.to(device), given)
            logs.append(each.cpu() + (log_weight + log_factor))
        return logs[0] if len(logs) == 1 else torch.stack(logs).logsumexp(dim=0)

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
        ConfigurationError: for an approximator that is no likelihood.
    """
    every = approximator.members
    learned = approximator.weights if isinstance(approximator, EnsembleApproximator) else None
    weights = learned or dict.fromkeys(every, 1 / len(every))
    if not all(isinstance(member, LikelihoodApproximator) for member in every.values()):
        raise ConfigurationError(
            f"Expected a learned likelihood, got an approximator of kind {approximator.kind!r}. Train one "
            "with LikelihoodWorkflow."
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
    check_shapes(shaped, approximator.shapes, "parameters")
    found = {name: len(value) for name, value in shaped.items()}
    if set(found.values()) != {number}:
        raise ConfigurationError(f"Expected parameters for each of {number} data sets, got rows: {found}.")
    return as_tensors(shaped)


# ---- elements ---------------------------------------------------------------


def _elements(first: LikelihoodApproximator, data: VariablesLike) -> Elements:
    as_variables(data, (), what="data")  # refuses what is no mapping
    flat, counts = first.elements(
        {name: data[name] for name in data if name not in first.parameter_names},
        "data",
        of_simulations=False,
    )
    check_shapes(flat, {name: first.shapes[name] for name in flat}, "data")
    raw = as_tensors(flat)
    observed = {name: raw[name] for name in first.inference_names}
    inside = first.adapter.inside(observed, first.inference_names)
    values = torch.zeros(len(inside), first.standardizer.widths["inference_variables"], dtype=torch.float32)
    volume = torch.full((len(inside),), -torch.inf, dtype=torch.float64)
    if bool(inside.any()):
        there = {name: value[inside] for name, value in observed.items()}
        adapted = first.adapter.forward(there)["inference_variables"]
        standardized = first.standardizer("inference_variables", adapted.to(first.device))
        standardized = standardized.to("cpu", torch.float32)
        check_representable({"observables": standardized}, "data")
        values[inside] = standardized
        volume[inside] = first.adapter.log_abs_det(there, "inference_variables") + float(
            first.standardizer.log_abs_det("inference_variables")
        )
    conditions = {name: raw[name] for name in first.element_conditions}
    owner = np.repeat(np.arange(len(counts)), counts)
    total = torch.zeros(len(counts), dtype=torch.float64).index_add(0, torch.as_tensor(owner), volume)
    weights: Array = np.ones(len(owner))
    all_discrete = len(first.inference_network.discrete) == values.shape[1]
    if all_discrete and not conditions and first.iid is not None:
        keys = np.concatenate([owner[:, None], values.numpy()], axis=1)
        distinct, numbers = np.unique(keys, axis=0, return_counts=True)
        owner, values = distinct[:, 0].astype(int), torch.as_tensor(distinct[:, 1:], dtype=torch.float32)
        weights, counts = numbers.astype(float), np.bincount(owner, minlength=len(counts))
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Elements(
        _padded(values, owner, place, counts),
        _padded(torch.as_tensor(weights)[:, None], owner, place, counts, fill=0.0)[..., 0],
        {name: _padded(value, owner, place, counts) for name, value in conditions.items()},
        total,
    )


def _padded(value: Tensor, owner: Array, place: Array, counts: Array, fill: float | None = None) -> Tensor:
    """Elements (total, w) as (n, N, w), padded by the first of all elements, or by a number."""
    shape = (len(counts), max(1, int(counts.max())), value.shape[1])
    padded = value[:1].expand(shape).clone() if fill is None else value.new_full(shape, fill)
    padded[torch.as_tensor(owner), torch.as_tensor(place)] = value
    return padded
