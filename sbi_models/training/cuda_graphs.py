"""Whole steps of training as CUDA graphs: one launch instead of hundreds.

The kernels of small networks are over before the next one is launched, so that a GPU waits for the processor.
A graph records the kernels of a step, from the losses to the weights, once, and launches them together. It
reads its inputs where they were when it was recorded, so each step copies its batch and its random numbers
there.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sbi_models.networks.base import Drawn
from sbi_models.training.batched_members import Rows

Inputs = Mapping[str, tuple[Rows, Drawn]]
"""The batch and the random numbers of each member that takes a step; members may share a batch."""

Step = Callable[[Inputs], dict[str, Tensor]]
"""A whole step on a GPU, which gives the sum of the losses of each member without waiting for them."""

_STEPS_BEFORE = 3
"""Number of steps of one shape before it is recorded; PyTorch sets up at first use what it needs."""


class GraphedSteps:
    """Takes steps, those of a shape that comes often as a graph.

    Args:
        step: function that takes a whole step, to be recorded.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._seen: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, tuple[Any, Inputs, dict[str, Tensor]] | None] = {}

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        """Take a step; the sums of losses are to be read before the next one."""
        kind = _kind(inputs)
        self._seen[kind] = self._seen.get(kind, 0) + 1
        if self._seen[kind] <= _STEPS_BEFORE:
            return self._aside(inputs)
        if kind not in self._graphs:
            self._graphs[kind] = self._recorded(inputs)
        entry = self._graphs[kind]
        if entry is None:
            return self._aside(inputs)
        graph, places, sums = entry
        torch._foreach_copy_(list(_tensors(places)), list(_tensors(inputs)))
        graph.replay()
        return sums

    def _aside(self, inputs: Inputs) -> dict[str, Tensor]:
        """A step without a graph, on a stream other than the main one, as one must be before a recording."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            sums = self._step(inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return sums

    def _recorded(self, inputs: Inputs) -> tuple[Any, Inputs, dict[str, Tensor]] | None:
        """Graph of a step like this, with the places of its inputs and results; None if there is none.

        A step that cannot be recorded is a warning.
        """
        places, graph = _copied(inputs), torch.cuda.CUDAGraph()
        try:
            # Other threads may prepare the next batches on the same GPU meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                sums = self._step(places)
        except RuntimeError as error:
            torch.cuda.synchronize()
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"This training goes on without CUDA graphs, and is slower for it: {reason}", stacklevel=2
            )
            return None
        return graph, places, sums


def _kind(inputs: Inputs) -> Hashable:
    """Who takes a step, who shares a batch, and all shapes."""
    batches = [id(rows) for rows, _ in inputs.values()]
    shapes = tuple(tensor.shape for tensor in _tensors(inputs))
    return tuple(inputs), tuple(map(batches.index, batches)), shapes


def _tensors(inputs: Inputs) -> Iterator[Tensor]:
    """All tensors, those of a batch that several share once."""
    met = set()
    for rows, drawn in inputs.values():
        if id(rows) not in met:
            met.add(id(rows))
            yield from rows.values()
        yield from drawn


def _copied(inputs: Inputs) -> Inputs:
    """Copies, shared where the inputs are."""
    batches = {id(rows): {key: value.clone() for key, value in rows.items()} for rows, _ in inputs.values()}
    return {
        name: (batches[id(rows)], tuple(value.clone() for value in drawn))
        for name, (rows, drawn) in inputs.items()
    }
