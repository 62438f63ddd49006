"""Batched module of ensemble members of one architecture, with stacked weights.

Every step stacks the weights anew, so that the gradient comes back to the members' own. Optimizer, clipping,
averages, early stops and files therefore know nothing of it, and a member that has stopped, or sits a step
out, is just not in the stack.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from sbi_models.approximators.base import Member
from sbi_models.networks.base import Drawn

Rows = dict[str, Tensor]
"""A prepared batch of one member."""


class BatchedMembers:
    """Computes the losses of members of one architecture at once.

    Args:
        members: members of one architecture, by name, on the device where they are trained; see
            `batchable_members` for which may be here.
    """

    def __init__(self, members: Mapping[str, Member]) -> None:
        self.members = dict(members)
        self._loss = _Loss(next(iter(members.values())))
        parts = [_Loss(member) for member in members.values()]
        self._parameters = dict(zip(members, (dict(part.named_parameters()) for part in parts), strict=True))
        buffers = [dict(part.named_buffers()) for part in parts]
        differ = [
            key
            for key, value in buffers[0].items()
            if not all(torch.equal(value, part[key]) for part in buffers[1:])
        ]
        self._buffers = {
            name: {key: part[key] for key in differ} for name, part in zip(members, buffers, strict=True)
        }

    def at_once(self, batches: Mapping[str, Rows]) -> list[list[str]]:
        """The members with batches of one shape, for each shape that several have."""
        by_shape: dict[tuple[tuple[str, torch.Size], ...], list[str]] = {}
        for name in self.members:
            if name in batches:
                by_shape.setdefault(
                    tuple((key, value.shape) for key, value in batches[name].items()), []
                ).append(name)
        return [names for names in by_shape.values() if len(names) > 1]

    def losses(self, batches: Mapping[str, Rows], drawn: Mapping[str, Drawn]) -> dict[str, Tensor]:
        """Training losses (n,) of the rows of these members, by name; their batches have one shape.

        The random numbers of a member are those that it draws alone; see `draw`.
        """
        rows, *others = batches.values()
        common = all(other is rows for other in others)
        given = (
            rows if common else {key: torch.stack([part[key] for part in batches.values()]) for key in rows}
        )
        numbers: Drawn = tuple(
            torch.stack(values) for values in zip(*(drawn[name] for name in batches), strict=True)
        )
        batched = torch.vmap(self._loss_of, in_dims=(0, None if common else 0, 0), randomness="error")
        # Attention by its formula: PyTorch cannot batch its kernels on a CPU, and those of a GPU fail for
        # some shapes.
        with sdpa_kernel(SDPBackend.MATH):
            losses: Tensor = batched(self._stacked(list(batches)), given, numbers)
        return dict(zip(batches, losses.unbind(), strict=True))

    def _stacked(self, names: list[str]) -> Rows:
        """Weights, and buffers that differ, of members side by side, (members, ...)."""
        members = [self._parameters[name] | self._buffers[name] for name in names]
        return {key: torch.stack([tensors[key] for tensors in members]) for key in members[0]}

    def _loss_of(self, tensors: Rows, rows: Rows, drawn: Drawn) -> Tensor:
        losses: Tensor = functional_call(self._loss, tensors, (rows, drawn))
        return losses


class _Loss(nn.Module):
    """The loss of a member as a module, for `functional_call`."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member

    def forward(self, rows: Rows, drawn: Drawn) -> Tensor:
        """Losses (n,) of a prepared batch."""
        return self.member.loss_given(rows, drawn)
