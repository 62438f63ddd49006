"""Messages of training processes, one a device, to the process that started them.

Every process makes all batches and draws the noise of whole batches; a device computes the losses of its own
rows.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pickle import PicklingError
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from sbi_models.errors import ConfigurationError, TrainingError
from sbi_models.progress import Advance
from sbi_models.training.environment import quiet_for_good
from sbi_models.training.fingerprint import Fingerprint
from sbi_models.training.history import OnEpochEnd

if TYPE_CHECKING:
    import lightning.pytorch as pl


_SECONDS_TO_HEAR = 60.0
"""Seconds to wait for the last messages, which a killed process may have left unfinished."""


def check_same_everywhere(trainer: "pl.Trainer", fingerprint: Fingerprint) -> None:
    """Raise ConfigurationError in all processes of a training unless they train the same."""
    text = json.dumps(fingerprint, sort_keys=True)
    differs = torch.tensor(
        float(trainer.strategy.broadcast(text) != text),
        device=trainer.strategy.root_device,
        dtype=torch.float32,
    )
    number = int(trainer.strategy.reduce(differs, reduce_op="sum"))
    if number:
        raise ConfigurationError(
            f"Expected the same settings, seed and data in all {trainer.world_size} processes, got others "
            f"in {number} of them. Give a seed to all that draws random numbers before the training."
        )


class Relay:
    """Progress, ends of epochs and the result, from the first training process to the one that started it.

    Args:
        start_method: start method of the processes, "spawn" or "fork".
    """

    def __init__(self, start_method: str) -> None:
        self._here, self._there = get_context(start_method).Pipe()
        self.state: dict[str, Any] | None = None
        """State from `give_back`, once the training is over."""
        self.error: BaseException | None = None
        """Error of the listener to the ends of epochs."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        quiet_for_good()  # in a process that has just been started

    # ---- in the first of the training processes -----------------------------

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move the progress bar on."""
        self._there.send(("advance", steps, note))

    def on_epoch_end(self, epoch: int, losses: dict[str, float]) -> None:
        """Call the listener in the other process, and wait until it is done."""
        self._there.send(("epoch", epoch, losses))
        if not self._there.recv():
            raise TrainingError("The function on_epoch_end has ended the training by an error.")

    def give_back(self, state: dict[str, Any]) -> None:
        """Hand over numbers and tensors."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._there.send(("state", buffer.getvalue(), None))

    # ---- in the process that has started them -------------------------------

    @contextmanager
    def listening(self, advance: Advance, on_epoch_end: OnEpochEnd | None) -> Iterator[None]:
        """Listen while the processes train; errors of `on_epoch_end` end it and are raised here."""
        listener = Thread(target=self._listen, args=(advance, on_epoch_end), daemon=True)
        listener.start()
        try:
            yield
        except ProcessRaisedException as error:
            if self.error is None:
                _raise_as_told(error)
        except (PicklingError, AttributeError, TypeError) as error:
            if "pickle" not in str(error):
                raise
            raise ConfigurationError(
                f"Expected a workflow that can be sent to the processes of 'ddp_spawn', got: {error}. "
                "Define functions at the top of a module, not inside others, or train with "
                "strategy='ddp_fork'."
            ) from None
        finally:
            self._there.send(("over", None, None))
            listener.join(timeout=_SECONDS_TO_HEAR)
        if self.error is not None:
            raise self.error

    def _listen(self, advance: Advance, on_epoch_end: OnEpochEnd | None) -> None:
        while True:
            what, first, second = self._here.recv()
            if what == "over":
                return
            if what == "advance":
                advance(first, second)
            elif what == "state":
                self.state = torch.load(io.BytesIO(first), map_location="cpu", weights_only=True)
            else:
                self._here.send(self._heard(on_epoch_end, first, second))

    def _heard(self, on_epoch_end: OnEpochEnd | None, epoch: int, losses: dict[str, float]) -> bool:
        try:
            if on_epoch_end is not None:
                on_epoch_end(epoch, losses)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for the training
            self.error = error
            return False
        return True


def _raise_as_told(error: ProcessRaisedException) -> None:
    """An error of a training process as it would be without processes, if it is one of this package's own."""
    message = str(error).rstrip().splitlines()[-1]
    for cls in (TrainingError, ConfigurationError):
        start = f"{cls.__module__}.{cls.__qualname__}: "
        if message.startswith(start):
            raise cls(message.removeprefix(start)) from None
    raise error
