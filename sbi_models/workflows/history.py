"""What a training leaves behind: its losses by epoch."""

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
    def best_epoch(self) -> int:
        """Number (from 1) of the latest epoch with the lowest loss, validation if there is one; 0 before the first."""
        return self._best("")

    @property
    def best_epochs(self) -> dict[str, int]:
        """The best epoch of each member of an ensemble, by its own losses."""
        return {
            name.removesuffix("/loss"): self.best_epoch_of(name.removesuffix("/loss")) for name in self.history if name.endswith("/loss")
        }

    def best_epoch_of(self, member: str) -> int:
        """The best epoch of one member; that of "" is `best_epoch`."""
        return self._best(f"{member}/" if member else "")

    def epochs_of(self, member: str) -> int:
        """Number of epochs that one member has trained."""
        return len(self.history.get(f"{member}/loss" if member else "loss", ()))

    def _best(self, prefix: str) -> int:
        losses = self.history.get(f"{prefix}val_loss", self.history.get(f"{prefix}loss", []))
        return max((epoch for epoch, loss in enumerate(losses, start=1) if loss == min(losses)), default=0)
