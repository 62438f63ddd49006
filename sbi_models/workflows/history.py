"""What a training leaves behind: its losses by epoch."""

from dataclasses import dataclass, field


@dataclass
class History:
    """`history["loss"]` and `history["val_loss"]`: one mean loss an epoch."""

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
        losses = self.history.get("val_loss", self.history.get("loss", []))
        return max((epoch for epoch, loss in enumerate(losses, start=1) if loss == min(losses)), default=0)
