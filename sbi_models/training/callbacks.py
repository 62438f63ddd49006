"""Lightning callbacks of a training: order of batches, history, progress, early stopping, checkpoints."""

from typing import Any

import lightning.pytorch as pl
import torch

from sbi_models.approximators import Approximator
from sbi_models.approximators.files import present_name
from sbi_models.datasets import Batches
from sbi_models.progress import Advance
from sbi_models.torch_defaults import as_user
from sbi_models.training.checkpoints import Checkpoint
from sbi_models.training.fingerprint import Fingerprint
from sbi_models.training.history import History, OnEpochEnd
from sbi_models.training.module import TrainingModule
from sbi_models.training.process_relay import Relay, check_same_everywhere


class SetEpoch(pl.Callback):
    """Put data in memory on the device, and set the epoch of the training batches.

    A resumed training therefore sees the order that an uninterrupted one sees.
    """

    def __init__(self, batches: Any, validation: Any) -> None:
        self.batches, self.validation = batches, validation

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for batches in (self.batches, self.validation):
            if isinstance(batches, Batches):
                batches.to(pl_module.device)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches.set_epoch(trainer.current_epoch)


class EpochEnd(pl.Callback):
    """Record losses, call the listener, show progress, stop early and write the checkpoint, in this order.

    Members of an ensemble have a best epoch and stop early each by its own losses; the training is over when
    all have stopped.
    """

    def __init__(
        self,
        history: History,
        checkpoint: Checkpoint | None,
        on_epoch_end: OnEpochEnd | None,
        advance: Advance,
        fingerprint: Fingerprint,
        *,
        patience: int | None = None,
        keep_best: bool = False,
        threads: int = 1,
        relay: Relay | None = None,
    ) -> None:
        self.history, self.checkpoint, self.on_epoch_end = history, checkpoint, on_epoch_end
        self.advance, self.fingerprint, self.patience = advance, fingerprint, patience
        self.keep_best = keep_best or patience is not None
        self.threads, self.relay = threads, relay
        self.best_weights: dict[str, torch.Tensor] = {}
        self._note = ""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        torch.set_num_threads(self.threads)  # of a process that has just been started

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            check_same_everywhere(trainer, self.fingerprint)

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
                pl_module.result,
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
        """With early stopping, load the weights of the best epoch, or of each trained member's best epoch."""
        if self.patience is not None and self.best_weights:
            approximator.load_state_dict(approximator.state_dict() | self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history.history, "plan": self.fingerprint, "best_weights": self.best_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.history = {name: list(values) for name, values in state_dict["history"].items()}
        self.best_weights = {present_name(name): value for name, value in state_dict["best_weights"].items()}
