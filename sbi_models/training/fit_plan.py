"""The plan of one fit: which members train, and how they share the data."""

from collections.abc import Sequence
from dataclasses import dataclass

from sbi_models.datasets import Sharing
from sbi_models.training.member_parts import Part


@dataclass(frozen=True)
class FitPlan:
    """Which members of an approximator one fit trains, and how they share the data.

    Attributes:
        sharing: shares of the data that the members have.
        members: names of the members that train, the others keep their weights; None is all.
        parts: parts of all members, to be put together instead of training.
        batched: whether members train as one batched module; None does it on a GPU where it can be done.
    """

    sharing: Sharing
    members: Sequence[str] | None = None
    parts: Sequence[Part] = ()
    batched: bool | None = None
