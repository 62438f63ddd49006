"""Check whether several devices can share a batch, with the result that one device has.

As in `batch_compatibility.py`, a rule and a trial decide before training: losses take their random
numbers as an argument, there is no dropout, and the losses of a made-up batch are those of its rows in two
parts.
"""

from collections.abc import Collection
from copy import deepcopy

import torch

from sbi_models.approximators.base import ALONE, Approximator, Member
from sbi_models.errors import ConfigurationError
from sbi_models.training.batch_compatibility import (
    close,
    copied,
    draws_in_layers,
    made_up,
    takes_random_numbers,
)

_TOLERANCE = 1e-3


def check_splittable(approximator: Approximator, members: Collection[str] | None = None) -> bool:
    """Raise ConfigurationError if devices cannot share the batches of a built approximator.

    `members` are the names of the members that train; None is all.

    Returns:
        Whether the loss of every step depends on every parameter; not in an ensemble, whose members may stop,
        or sit a step out.
    """
    every = True
    for name, member in approximator.members.items():
        if members is not None and name not in members:
            continue
        reason, depends_on_all = _why_not(member)
        every = every and depends_on_all
        if reason is not None:
            whose = "" if name == ALONE else f" of member {name!r}"
            raise ConfigurationError(
                f"Expected networks{whose} whose batches several devices can share, got some that "
                f"cannot: {reason}. Train with devices=1."
            )
    return every and ALONE in approximator.members


def _why_not(member: Member) -> tuple[str | None, bool]:
    """A reason, if there is one, and whether the loss depends on every parameter."""
    for part in (member, member.inference_network):
        if not takes_random_numbers(type(part)):
            return f"{type(part).__name__} has a loss of its own, not draw and loss_given", False
    if draws_in_layers(member):
        return "layers with dropout draw random numbers of their own", False
    with torch.random.fork_rng([]):
        copy = copied(member, torch.device("cpu"), 0)
        try:
            reason = _trial(copy)
        except Exception as error:  # noqa: BLE001 - whatever a network raises: it is the answer
            return f"{type(error).__name__}: {error}".rstrip("."), False
        return reason, all(
            parameter.grad is not None for parameter in copy.parameters() if parameter.requires_grad
        )


def _trial(member: Member) -> str | None:
    """Why devices cannot share a made-up batch; leaves the gradients of its losses."""
    rows = made_up(member, 0)
    before = deepcopy(dict(member.named_buffers()))
    drawn = member.draw(rows, torch.Generator().manual_seed(0))
    n = len(rows["inference_variables"])
    if any(len(value) != n for value in drawn):
        return "random numbers of the loss do not come row by row"
    whole = member.loss_given(rows, drawn)
    parts = [
        member.loss_given(
            {key: value[part] for key, value in rows.items()}, tuple(value[part] for value in drawn)
        )
        for part in (slice(0, 1), slice(1, n))
    ]
    torch.autograd.backward(whole.sum())
    if not close(torch.cat(parts), whole, _TOLERANCE):
        return "the loss of a row depends on the other rows of its batch"
    if not all(torch.equal(value, before[name]) for name, value in member.named_buffers()):
        return "buffers change while it trains, as those of batch normalization do"
    return None
