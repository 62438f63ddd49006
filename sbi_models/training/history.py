"""Training history: losses by epoch, and the best epochs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sbi_models.approximators.members import KINDS_OF_LOSSES, loss_name, mean_losses

OnEpochEnd = Callable[[int, dict[str, float]], None]
"""Called with the number of the finished epoch (from 1) and its losses by name."""


@dataclass
class History:
    """`history["loss"]` and `history["val_loss"]`: one mean loss an epoch.

    In an ensemble, these are means over the members, and `history["member/loss"]` and
    `history["member/val_loss"]` are those of each member, up to its last epoch; once it has stopped early,
    its loss in the mean is that of its best epoch.
    """

    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, losses: dict[str, float]) -> None:
        """Append the losses of one epoch."""
        for name, value in losses.items():
            self.history.setdefault(name, []).append(value)

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history.get("loss", ()))

    @property
    def monitored(self) -> list[float]:
        """The validation losses, if there are some, else the training losses."""
        return self.history.get("val_loss", self.history.get("loss", []))

    @property
    def best_epoch(self) -> int:
        """Number (from 1) of the first epoch with the lowest monitored loss; 0 before the first."""
        return self.best_epoch_of("")

    @property
    def best_loss(self) -> float:
        """The lowest monitored loss; infinite before the first epoch."""
        return min(self.monitored, default=math.inf)

    @property
    def best_epochs(self) -> dict[str, int]:
        """The best epoch of each member of an ensemble, by its own losses."""
        return {
            name.removesuffix("/loss"): self.best_epoch_of(name.removesuffix("/loss"))
            for name in self.history
            if name.endswith("/loss")
        }

    def best_epoch_of(self, member: str) -> int:
        """The best epoch of one member; that of "" is `best_epoch`."""
        losses = (
            self.history.get(f"{member}/val_loss", self.history.get(f"{member}/loss", []))
            if member
            else self.monitored
        )
        return losses.index(min(losses)) + 1 if losses else 0

    def epochs_of(self, member: str) -> int:
        """Number of epochs that one member has trained."""
        return len(self.history.get(loss_name(member, "loss"), ()))

    def best_losses_of(self, member: str) -> dict[str, float]:
        """The losses of a member in its best epoch, by "loss" and "val_loss"."""
        best = self.best_epoch_of(member) - 1
        values = {kind: self.history.get(loss_name(member, kind)) for kind in KINDS_OF_LOSSES}
        return {kind: losses[best] for kind, losses in values.items() if losses}

    @classmethod
    def merged(cls, parts: Sequence["History"], members: Sequence[str]) -> "History":
        """History of an ensemble, merged from the histories of members that have trained apart."""
        series = {name: values for part in parts for name, values in part.history.items()}
        names = [loss_name(member, kind) for kind in KINDS_OF_LOSSES for member in members]
        by_member = cls({name: series[name] for name in names if name in series})
        merged = cls()
        for epoch in range(max(map(by_member.epochs_of, members), default=0)):
            losses = {
                name: values[epoch] for name, values in by_member.history.items() if epoch < len(values)
            }
            stopped = {
                member: by_member.best_losses_of(member)
                for member in members
                if by_member.epochs_of(member) <= epoch
            }
            merged.add(mean_losses(losses, members, stopped) | losses)
        return merged
