"""Checkpoint files of a training: the approximator, and the state that a resumed training goes on from."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from sbi_models.approximators import Approximator
from sbi_models.atomic_files import replacing
from sbi_models.errors import ConfigurationError
from sbi_models.training.member_parts import Part, Trained, part_stem
from sbi_models.training.settings import TrainingSettings

if TYPE_CHECKING:
    import lightning.pytorch as pl


class Checkpoint:
    """Two files after each epoch: the approximator, and the state that a resumed training goes on from.

    Args:
        folder: folder of the files, which is made if missing.
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
        self, trainer: "pl.Trainer", approximator: Approximator, best_weights: dict[str, Tensor] | None
    ) -> None:
        """Write both files atomically; the approximator first, so that a kill in between loses nothing.

        Of several devices the first one writes. `best_weights` are those of the best epochs so far if this
        epoch was one, of a member or of all, and better than earlier fits.
        """
        if not trainer.is_global_zero:
            pass
        elif not self.save_best_only:
            approximator.save(self.model_path)
        elif best_weights:
            approximator.save_weights(self.model_path, best_weights)
        self.save_state(trainer)

    def save_best(self, approximator: Approximator, trained: Trained) -> None:
        """With `save_best_only`, write the best weights, as a training of all members would."""
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

    def save_state(self, trainer: "pl.Trainer") -> None:
        """Write what a resumed training needs, atomically."""
        writes = trainer.is_global_zero
        with replacing(self.resume_path) if writes else nullcontext(self.resume_path) as temporary:
            trainer.save_checkpoint(temporary)  # devices wait for each other here; the first one writes


class PartCheckpoint(Checkpoint):
    """Checkpoint of members that train apart: the state of the trainer, and in the end the part."""

    @property
    def part_path(self) -> Path:
        """The part, once its training is over."""
        return self.resume_path.with_name(self.resume_path.name.removesuffix(".resume.ckpt") + ".part")

    @property
    def resumable(self) -> Path | None:
        """The state of the trainer, if there is one."""
        return self.resume_path if self.resume_path.is_file() else None

    def save(
        self, trainer: "pl.Trainer", approximator: Approximator, best_weights: dict[str, Tensor] | None
    ) -> None:
        """Write the state of the trainer; an approximator with untrained members is of no use."""
        del approximator, best_weights
        self.save_state(trainer)

    def save_part(self, part: Part) -> None:
        """Write the part, atomically."""
        part.save(self.part_path)


def model_file(settings: TrainingSettings) -> Path | None:
    """The file of the saved approximator that the settings ask for, if they do."""
    if settings.checkpoint_filepath is None:
        return None
    return Path(settings.checkpoint_filepath) / f"{settings.checkpoint_name}.safetensors"


def checkpoint_of(
    settings: TrainingSettings, members: Sequence[str] | None, *, fit: int, to_beat: float
) -> Checkpoint | None:
    """The files that the settings ask for of a training of all members, or of the named ones.

    Args:
        settings: settings with the folder and the stem of the files.
        members: names of the members that train apart from the others; None is all.
        fit, to_beat: as for `Checkpoint`.
    """
    if settings.checkpoint_filepath is None:
        return None
    folder, name, best_only = (
        Path(settings.checkpoint_filepath),
        settings.checkpoint_name,
        settings.save_best_only,
    )
    if members is not None:
        return PartCheckpoint(folder, part_stem(name, members), save_best_only=best_only, fit=fit)
    return Checkpoint(folder, name, save_best_only=best_only, fit=fit, to_beat=to_beat)
