"""The one LightningModule: a thin layer between an approximator and the trainer.

Noise of step k is drawn from a generator seeded by (seed, k), and so is the global state that dropout uses. A resumed training therefore
needs no random state: weights, optimiser and the number of the step are enough to go on to the bit.
"""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sbi_models import seeding
from sbi_models.approximators.continuous import ContinuousApproximator
from sbi_models.approximators.optimizers import OptimizerLike, make_optimizer
from sbi_models.errors import TrainingError

_STEPS_BETWEEN_CHECKS = 100
"""Between looks at whether the loss is finite still; each look waits for an accelerator."""


class TrainingModule(pl.LightningModule):
    """Trains an approximator on prepared batches.

    Args:
        approximator: built.
        seed: of the training noise and of the fixed validation noise.
        learning_rate: peak of the schedule; an optimiser instance brings its own.
        weight_decay: of the default optimiser, AdamW; not applied to biases and norms. 0 means Adam.
        total_steps: of the schedule: linear warm-up over 5 % from a tenth of the rate, then a cosine to 0.
        optimizer: None, or one to use instead of AdamW; see `make_optimizer`.
        ema: decay of a moving average of the weights, or None.
        mixed_precision: whether the trainer works in half precision where it can.
    """

    def __init__(
        self,
        approximator: ContinuousApproximator,
        *,
        seed: int,
        learning_rate: float,
        weight_decay: float,
        total_steps: int,
        optimizer: OptimizerLike | None = None,
        ema: float | None = None,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__()
        self.approximator = approximator
        self.average = None if ema is None else AveragedModel(approximator, multi_avg_fn=_moving_average(ema))
        self.seed, self.learning_rate, self.weight_decay, self.total_steps = seed, learning_rate, weight_decay, total_steps
        self.optimizer, self.mixed_precision = optimizer, mixed_precision
        self._sums = {"loss": torch.zeros(()), "val_loss": torch.zeros(())}
        self._counts = {"loss": 0, "val_loss": 0}

    @property
    def result(self) -> ContinuousApproximator:
        """What is validated, saved and sampled from: the approximator with averaged weights, or the approximator itself."""
        result: ContinuousApproximator = self.approximator if self.average is None else self.average.module  # type: ignore[assignment]
        return result

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of a prepared batch."""
        del batch_idx
        step_seed = seeding.derive(self.seed, "training noise", self.global_step)
        torch.default_generator.manual_seed(step_seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(step_seed)
        losses = self.approximator.loss(batch, self._generator(step_seed))
        self._add("loss", losses)
        if self.global_step % _STEPS_BETWEEN_CHECKS == 0:
            self._check_finite("loss", float(self._sums["loss"]))
        return losses.mean()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Moves the average."""
        if self.average is not None:
            self.average.update_parameters(self.approximator)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Adds up the loss of a prepared validation batch, with the same noise and times in every epoch."""
        self._add("val_loss", self.result.loss(batch, self._generator(seeding.derive(self.seed, "validation noise", batch_idx))))

    def on_validation_epoch_end(self) -> None:
        """Logs `val_loss`, for loggers and callbacks of the user."""
        self.log("val_loss", self._sums["val_loss"] / max(1, self._counts["val_loss"]))

    def epoch_losses(self) -> dict[str, float]:
        """Mean losses since the last call, by name."""
        means = {name: float(self._sums[name]) / count for name, count in self._counts.items() if count}
        for name in self._sums:
            self._sums[name], self._counts[name] = torch.zeros(()), 0
        for name, value in means.items():
            self._check_finite(name, value)
        return means

    def _check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"The {'training' if name == 'loss' else 'validation'} loss is {value} in epoch {self.current_epoch + 1}. "
                "Try a smaller initial_learning_rate, standardize='all', or a log transform of variables that span orders of magnitude."
            )

    def configure_optimizers(self) -> Any:
        """The optimiser with warm-up and cosine decay."""
        fused = self.device.type in ("cpu", "cuda") and not self.mixed_precision  # which scales gradients
        optimizer = make_optimizer(self.optimizer, self.approximator, self.learning_rate, self.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warmup = max(1, int(0.05 * self.total_steps))
        if step < warmup:
            return 0.1 + 0.9 * step / warmup
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress))))

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def _add(self, name: str, losses: Tensor) -> None:
        self._sums[name] = self._sums[name].to(losses.device) + losses.detach().sum()
        self._counts[name] += len(losses)


def _moving_average(decay: float) -> Any:
    """The update of averaged weights, with a smaller decay at first, so that the start is forgotten: min(decay, (1 + n) / (10 + n))."""

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], number: Tensor | int) -> None:
        n = float(number)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return update
