"""What a training leaves behind: its losses by epoch."""

import math
from dataclasses import dataclass, field


@dataclass
class History:
    """`history["loss"]` and `history["val_loss"]`: one mean loss an epoch.

    In an ensemble, these are means over the members, and `history["member/loss"]` and `history["member/val_loss"]` are those of each
    member, up to its last epoch; once it has stopped early, its loss in the mean is that of its best epoch.
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
            name.removesuffix("/loss"): self.best_epoch_of(name.removesuffix("/loss")) for name in self.history if name.endswith("/loss")
        }

    def best_epoch_of(self, member: str) -> int:
        """The best epoch of one member; that of "" is `best_epoch`."""
        losses = self.history.get(f"{member}/val_loss", self.history.get(f"{member}/loss", [])) if member else self.monitored
        return losses.index(min(losses)) + 1 if losses else 0

    def epochs_of(self, member: str) -> int:
        """Number of epochs that one member has trained."""
        return len(self.history.get(f"{member}/loss" if member else "loss", ()))
