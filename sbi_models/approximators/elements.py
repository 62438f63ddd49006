"""Elements of data sets as the networks of a learned likelihood take them: standardized, padded, weighted."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.likelihood import LikelihoodApproximator
from sbi_models.approximators.rows import as_tensors
from sbi_models.approximators.validation import as_variables, check_representable, check_shapes
from sbi_models.networks import RatioNetwork
from sbi_models.types import Array, VariablesLike


class Elements(NamedTuple):
    """Elements of n data sets, padded to the largest number N.

    Attributes:
        values: standardized observables (n, N, d), float32, as each member takes them; for a ratio, their
            features.
        weights: how often each element is there, (n, N), float64, 0 for padding.
        conditions: conditions of elements by name, (n, N, c), raw space.
        log_volume: log |det d standardized / d raw| of all elements of a data set, (n,), -inf where an
            element lies outside of the support of the observables.
    """

    values: tuple[Tensor, ...]
    weights: Tensor
    conditions: dict[str, Tensor]
    log_volume: Tensor

    def in_random_order(self, seed: int) -> "Elements":
        """The same, with the elements of each data set in another order, which is that of its number of
        elements and the seed alone."""
        order = torch.arange(self.weights.shape[1]).repeat(len(self.weights), 1)
        for row, size in enumerate((self.weights > 0).sum(dim=1).tolist()):
            shuffled = seeding.generator(seed, "order of elements", size).permutation(size)
            order[row, :size] = torch.as_tensor(shuffled)

        def taken(values: Tensor) -> Tensor:
            return values.gather(1, order.reshape(*order.shape, *[1] * (values.ndim - 2)).expand_as(values))

        conditions = {name: taken(value) for name, value in self.conditions.items()}
        values = tuple(taken(value) for value in self.values)
        return Elements(values, taken(self.weights), conditions, self.log_volume)


def elements_of(first: LikelihoodApproximator, data: VariablesLike) -> Elements:
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
        volume[inside] = 0.0
        if not isinstance(first.inference_network, RatioNetwork):
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
        (_padded(values, owner, place, counts),),
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
