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
