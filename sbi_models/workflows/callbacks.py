"""What happens at the end of an epoch: history, progress, checkpoint. Lightning calls these."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from sbi_models.approximators import ContinuousApproximator
from sbi_models.approximators.training import TrainingModule
from sbi_models.progress import Advance
from sbi_models.workflows.history import History
from sbi_models.workflows.plan import Plan

OnEpochEnd = Callable[[int, dict[str, float]], None]
"""Called with the number of the finished epoch (from 1) and its losses by name."""


class SetEpoch(pl.Callback):
    """Tells the training batches which epoch it is, so that a resumed training sees the order that an undisturbed one sees."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches.set_epoch(trainer.current_epoch)


class EpochEnd(pl.Callback):
    """Records the losses, tells the listener, shows progress, stops early if asked to, and writes the checkpoint, in this order."""

    def __init__(
        self,
        history: History,
        checkpoint: "Checkpoint | None",
        on_epoch_end: OnEpochEnd | None,
        advance: Advance,
        plan: Plan,
        *,
        patience: int | None = None,
    ) -> None:
        self.history, self.checkpoint, self.on_epoch_end = history, checkpoint, on_epoch_end
        self.advance, self.plan, self.patience = advance, plan, patience
        self.best_weights: dict[str, torch.Tensor] = {}
        self._note = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self._is_over()  # a resumed training that had stopped early has stopped

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.advance(1, f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{self._note}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        losses = pl_module.epoch_losses()
        pl_module.log("loss", losses["loss"])
        self.history.add(losses)
        self._note = "".join(f" {name} {value:.4f}" for name, value in losses.items())
        if self.on_epoch_end is not None:
            self.on_epoch_end(self.history.epochs, losses)
        if self.patience is not None and self.history.best_epoch == self.history.epochs:
            self.best_weights = {name: value.detach().clone() for name, value in pl_module.result.state_dict().items()}
        trainer.should_stop = trainer.should_stop or self._is_over()
        if self.checkpoint is not None:
            self.checkpoint.save(trainer, pl_module, self.history)

    def _is_over(self) -> bool:
        return self.patience is not None and self.history.epochs - self.history.best_epoch >= self.patience

    def back_to_the_best(self, approximator: ContinuousApproximator) -> None:
        """With early stopping, give the approximator the weights of its best epoch."""
        if self.best_weights:
            approximator.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history.history, "plan": self.plan, "best_weights": self.best_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.history = {name: list(values) for name, values in state_dict["history"].items()}
        self.best_weights = state_dict["best_weights"]


class Checkpoint:
    """Two files in a folder after each epoch: the approximator, ready for use, and everything that a resumed training needs.

    Args:
        folder: made if missing.
        name: stem of both files.
        save_best_only: keep the approximator of the lowest monitored loss (validation if there is one) instead of the last.
        fit: fits of the same workflow before this one; each has a state of its own to go on from.
        to_beat: lowest monitored loss of those fits.
    """

    def __init__(self, folder: Path, name: str, *, save_best_only: bool, fit: int = 0, to_beat: float = math.inf) -> None:
        self.folder, self.name, self.save_best_only, self.fit, self.to_beat = folder, name, save_best_only, fit, to_beat
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def model_path(self) -> Path:
        """The saved approximator."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def resume_path(self) -> Path:
        """State of the trainer: weights, optimiser, schedule, epoch, history."""
        return self.folder / (f"{self.name}.resume.ckpt" if self.fit == 0 else f"{self.name}.fit-{self.fit + 1}.resume.ckpt")

    @property
    def resumable(self) -> Path | None:
        """The state of the trainer, if a training can go on from it."""
        whole = self.resume_path.is_file() and (self.model_path.is_file() or not self.save_best_only)
        return self.resume_path if whole else None

    def save(self, trainer: pl.Trainer, module: TrainingModule, history: History) -> None:
        """Write both files atomically; the approximator first, so that a kill in between loses nothing."""
        if not self.save_best_only or (history.best_epoch == history.epochs and history.best_loss < self.to_beat):
            module.result.save(self.model_path)
        partial = self.resume_path.with_name(f".{self.resume_path.name}.{os.getpid()}.partial")
        trainer.save_checkpoint(partial)
        os.replace(partial, self.resume_path)
