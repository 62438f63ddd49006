"""Batches of data sets of different lengths: grouped by length, and cut to the longest of each batch."""

from collections.abc import Mapping

import torch
from torch import Tensor

_BATCHES_AT_ONCE = 16
"""Batches whose rows are sorted by length together; more have less padding, and are less random."""

_STEP_OF_LENGTHS = 8
"""On a GPU, lengths of batches are multiples of it, so that few shapes of steps are recorded as graphs."""


def row_lengths(prepared: Mapping[str, Tensor], masks: Mapping[str, str]) -> Tensor:
    """Length of each row, (n,) on the CPU: the place of the last element of any variable of any length.

    Args:
        prepared: name to (n, ...).
        masks: names of variables of any length, (n, length, ...), to those of their masks, (n, length).
    """
    lengths = []
    for mask in masks.values():
        there = prepared[mask].flatten(2).any(dim=2) if prepared[mask].ndim > 2 else prepared[mask]
        places = torch.arange(1, there.shape[1] + 1, device=there.device)
        lengths.append((there * places).amax(dim=1))
    return torch.stack(lengths).amax(dim=0).cpu()


def cut_to(prepared: dict[str, Tensor], masks: Mapping[str, str], length: int) -> dict[str, Tensor]:
    """Rows without the places after a length, at which nothing is."""
    device = next(iter(prepared.values())).device
    if device.type == "cuda":
        length = -(-length // _STEP_OF_LENGTHS) * _STEP_OF_LENGTHS
    cut = dict(prepared)
    for key, mask in masks.items():
        cut[key], cut[mask] = prepared[key][:, : max(length, 1)], prepared[mask][:, : max(length, 1)]
    return cut


def grouped(order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """An order of rows in which the rows of a batch have nearly one length, and batches come in random order.

    Rows are sorted by length among those of 16 batches of the order, and only there, so that the batches of
    each epoch are others.

    Args:
        order: positions of rows in random order, (n,).
        lengths: length of each row of the data.
        batch_size: rows of a batch; a shorter last one stays the last.
        generator: random numbers of the order of batches.
    """
    sorted_parts = [
        part[lengths[part].argsort(stable=True)] for part in torch.split(order, _BATCHES_AT_ONCE * batch_size)
    ]
    batches = list(torch.split(torch.cat(sorted_parts), batch_size))
    last = [batches.pop()] if len(batches[-1]) < batch_size else []
    shuffled = [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
    return torch.cat([*shuffled, *last])
