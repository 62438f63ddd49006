"""What a training leaves behind: its losses by epoch."""

import math
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
    def monitored(self) -> list[float]:
        """The validation losses, if there are some, else the training losses."""
        return self.history.get("val_loss", self.history.get("loss", []))

    @property
    def best_epoch(self) -> int:
        """Number (from 1) of the first epoch with the lowest monitored loss; 0 before the first."""
        return self.monitored.index(min(self.monitored)) + 1 if self.monitored else 0

    @property
    def best_loss(self) -> float:
        """The lowest monitored loss; infinite before the first epoch."""
        return min(self.monitored, default=math.inf)
