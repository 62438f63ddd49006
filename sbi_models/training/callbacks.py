"""What happens at the end of an epoch: history, progress, checkpoint. Lightning calls these."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from sbi_models.approximators import Approximator
from sbi_models.datasets import Batches
from sbi_models.errors import ConfigurationError
from sbi_models.progress import Advance
from sbi_models.torch_defaults import as_user
from sbi_models.training.devices import Relay, check_same_everywhere
from sbi_models.training.fingerprint import Plan
from sbi_models.training.history import History
from sbi_models.training.member_parts import Trained
from sbi_models.training.module import TrainingModule
from sbi_models.training.settings import TrainingSettings

OnEpochEnd = Callable[[int, dict[str, float]], None]
"""Called with the number of the finished epoch (from 1) and its losses by name."""


class SetEpoch(pl.Callback):
    """Puts data in memory on the device, once, and tells the training batches which epoch it is, so that a
    resumed training sees the order that an undisturbed one sees."""

    def __init__(self, batches: Any, validation: Any) -> None:
        self.batches, self.validation = batches, validation

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for batches in (self.batches, self.validation):
            if isinstance(batches, Batches):
                batches.to(pl_module.device)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches.set_epoch(trainer.current_epoch)


class EpochEnd(pl.Callback):
    """Records the losses, tells the listener, shows progress, stops early if asked to, and writes the
    checkpoint, in this order.

    Members of an ensemble have a best epoch and stop early each by its own losses; the training is over when
    all have stopped.
    """

    def __init__(
        self,
        history: History,
        checkpoint: "Checkpoint | None",
        on_epoch_end: OnEpochEnd | None,
        advance: Advance,
        plan: Plan,
        *,
        patience: int | None = None,
        keep_best: bool = False,
        threads: int = 1,
        relay: Relay | None = None,
    ) -> None:
        self.history, self.checkpoint, self.on_epoch_end = history, checkpoint, on_epoch_end
        self.advance, self.plan, self.patience = advance, plan, patience
        self.keep_best = keep_best or patience is not None
        self.threads, self.relay = threads, relay
        self.best_weights: dict[str, torch.Tensor] = {}
        self._note = ""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        torch.set_num_threads(self.threads)  # of a process that has just been started

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            check_same_everywhere(trainer, self.plan)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.relay is not None and trainer.is_global_zero:
            self.relay.give_back(self.state_dict())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        pl_module.use_graphs(trainer.optimizers[0])
        trainer.should_stop = self._stop_members(
            pl_module
        )  # a resumed training that had stopped early has stopped

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            self.advance(1, f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{self._note}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        losses = pl_module.epoch_losses()
        pl_module.log("loss", losses["loss"], sync_dist=trainer.world_size > 1)
        self.history.add(losses)
        self._note = "".join(
            f" {name} {value:.4f}" for name, value in losses.items() if name in ("loss", "val_loss")
        )
        if self.on_epoch_end is not None and trainer.is_global_zero:
            as_user(self.on_epoch_end, self.history.epochs, losses)
        bettered = [
            name for name in pl_module.seeds if name not in pl_module.stopped and self._is_best_now(name)
        ]
        if self.keep_best:
            self._keep_weights(pl_module.result, bettered)
        trainer.should_stop = self._stop_members(pl_module) or trainer.should_stop
        if self.checkpoint is not None:
            self.checkpoint.save(
                trainer,
                pl_module,
                self.best_weights if bettered and self.history.best_loss < self.checkpoint.to_beat else None,
            )

    def _is_best_now(self, member: str) -> bool:
        return self.history.best_epoch_of(member) == self.history.epochs_of(member)

    def _keep_weights(self, approximator: Approximator, members: list[str]) -> None:
        prefixes = tuple(approximator.prefixes[name] for name in members)
        state = approximator.state_dict() if members else {}
        self.best_weights.update(
            {name: value.detach().clone() for name, value in state.items() if name.startswith(prefixes)}
        )

    def _stop_members(self, module: TrainingModule) -> bool:
        """Tell the module which members have had their last epoch; True if these are all."""
        if self.patience is None:
            return False
        history = self.history
        over = [
            name
            for name in module.seeds
            if history.epochs_of(name) - history.best_epoch_of(name) >= self.patience
        ]
        module.stopped = {name: history.best_losses_of(name) for name in over}
        return len(over) == len(module.seeds)

    def back_to_the_best(self, approximator: Approximator) -> None:
        """With early stopping, give the approximator the weights of its best epoch, or of each member's that
        has trained."""
        if self.patience is not None and self.best_weights:
            approximator.load_state_dict(approximator.state_dict() | self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history.history, "plan": self.plan, "best_weights": self.best_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.history = {name: list(values) for name, values in state_dict["history"].items()}
        self.best_weights = state_dict["best_weights"]


class Checkpoint:
    """Two files in a folder after each epoch: the approximator, ready for use, and everything that a resumed
    training needs.

    Args:
        folder: made if missing.
        name: stem of both files.
        save_best_only: keep the approximator of the lowest monitored loss (validation if there is one)
            instead of the last; in an ensemble, each member of its own lowest.
        fit: fits of the same workflow before this one; each has a state of its own to go on from.
        to_beat: lowest monitored loss of those fits.
    """

    def __init__(
        self, folder: Path, name: str, *, save_best_only: bool, fit: int = 0, to_beat: float = math.inf
    ) -> None:
        self.folder, self.name, self.save_best_only, self.fit, self.to_beat = (
            folder,
            name,
            save_best_only,
            fit,
            to_beat,
        )
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def model_path(self) -> Path:
        """The saved approximator."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def resume_path(self) -> Path:
        """State of the trainer: weights, optimizer, schedule, epoch, history."""
        return self.folder / (
            f"{self.name}.resume.ckpt" if self.fit == 0 else f"{self.name}.fit-{self.fit + 1}.resume.ckpt"
        )

    @property
    def resumable(self) -> Path | None:
        """The state of the trainer, if a training can go on from it."""
        whole = self.resume_path.is_file() and (self.model_path.is_file() or not self.save_best_only)
        return self.resume_path if whole else None

    def save(
        self, trainer: pl.Trainer, module: TrainingModule, best_weights: dict[str, torch.Tensor] | None
    ) -> None:
        """Write both files atomically; the approximator first, so that a kill in between loses nothing.

        Of several devices the first one writes. `best_weights` are those of the best epochs so far if this
        epoch was one, of a member or of all, and better than earlier fits.
        """
        if not trainer.is_global_zero:
            pass
        elif not self.save_best_only:
            module.result.save(self.model_path)
        elif best_weights:
            module.result.save_weights(self.model_path, best_weights)
        self.save_state(trainer)

    def save_best(self, approximator: Approximator, trained: Trained) -> None:
        """With `save_best_only`, write the approximator as its training would have left it, of what a
        training has left."""
        if not self.save_best_only or min(trained.history.monitored[: trained.last_bettered]) >= self.to_beat:
            return
        missing = [
            name
            for name, prefix in approximator.prefixes.items()
            if not any(n.startswith(prefix) for n in trained.best_weights)
        ]
        if missing:
            raise ConfigurationError(
                "Expected parts with the best weights of their members, got none of "
                f"{missing[0]!r}. Train it with save_best_only=True."
            )
        approximator.save_weights(self.model_path, trained.best_weights)

    def save_state(self, trainer: pl.Trainer) -> None:
        """Write what a resumed training needs, atomically."""
        partial = self.resume_path.with_name(f".{self.resume_path.name}.{os.getpid()}.partial")
        trainer.save_checkpoint(partial)  # devices wait for each other here
        if trainer.is_global_zero:
            os.replace(partial, self.resume_path)


def checkpoint_of(settings: TrainingSettings, *, fit: int, to_beat: float) -> Checkpoint | None:
    """The files of a training that the settings ask for; see `Checkpoint`."""
    if settings.checkpoint_filepath is None:
        return None
    folder, best_only = Path(settings.checkpoint_filepath), settings.save_best_only
    return Checkpoint(folder, settings.checkpoint_name, save_best_only=best_only, fit=fit, to_beat=to_beat)


class PartCheckpoint(Checkpoint):
    """The checkpoint of members that train apart from the others: the state of the trainer, and in the end
    the part."""

    @property
    def part_path(self) -> Path:
        """The part, once its training is over."""
        return self.resume_path.with_name(self.resume_path.name.removesuffix(".resume.ckpt") + ".part")

    @property
    def resumable(self) -> Path | None:
        """The state of the trainer, if there is one."""
        return self.resume_path if self.resume_path.is_file() else None

    def save(
        self, trainer: pl.Trainer, module: TrainingModule, best_weights: dict[str, torch.Tensor] | None
    ) -> None:
        """Write the state of the trainer alone; an approximator of which some members are not trained is of
        no use."""
        del module, best_weights
        self.save_state(trainer)
