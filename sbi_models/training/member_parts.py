"""Ensemble members that train apart: the part that each training leaves, and their merge."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Self

from torch import Tensor

from sbi_models.approximators import Approximator, files
from sbi_models.errors import ConfigurationError, ModelFileError, suggest
from sbi_models.training.fingerprint import Fingerprint
from sbi_models.training.history import History

_KIND = "part of an ensemble"
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Part:
    """Result of training some members of an ensemble, which can go to another process.

    Attributes:
        members: their names.
        weights: weights of these members, by their names in the `state_dict()` of the ensemble.
        best_weights: weights of the best epoch of each, with `save_best_only` or `early_stopping`.
        history: history of these members alone.
        fingerprint: fingerprint of the training, that of all members but for "members" and "batched members".
    """

    members: tuple[str, ...]
    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    history: History
    fingerprint: Fingerprint

    @classmethod
    def of(cls, approximator: Approximator, members: Sequence[str], trained: "Trained") -> Self:
        """The part of members that have just trained; its tensors are copies on the CPU."""
        prefixes = tuple(approximator.prefixes[name] for name in members)
        weights = {
            name: value for name, value in approximator.state_dict().items() if name.startswith(prefixes)
        }
        return cls(
            tuple(members),
            _copied(weights),
            _copied(trained.best_weights),
            trained.history,
            trained.fingerprint,
        )

    def save(self, path: str | Path) -> Path:
        """Write it into one file of tensors and JSON, atomically."""
        settings = {"members": list(self.members), "history": self.history.history, "plan": self.fingerprint}
        tensors = {f"last {name}": value for name, value in self.weights.items()}
        return files.write(
            path,
            _KIND,
            settings,
            tensors | {f"best {name}": value for name, value in self.best_weights.items()},
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The part of a file; ModelFileError if it is missing, damaged, or something else."""
        kind, settings, tensors = files.read(Path(path))
        if kind != _KIND:
            raise ModelFileError(
                f"Expected a file with a part of an ensemble, got {path}, which holds another "
                f"kind, {kind}. Pass the path of a .part."
            )
        last, best = (
            {n.removeprefix(key): value for n, value in tensors.items() if n.startswith(key)}
            for key in ("last ", "best ")
        )
        return cls(tuple(settings["members"]), last, best, History(settings["history"]), settings["plan"])


PartLike = Part | str | Path
"""A part, or the path of its file."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves besides weights.

    Attributes:
        history: its losses.
        best_weights: weights of the best epoch, or of each member's, if they are kept.
        fingerprint: fingerprint of the training.
    """

    history: History
    best_weights: dict[str, Tensor]
    fingerprint: Fingerprint

    @property
    def last_bettered(self) -> int:
        """The last epoch in which the approximator, or a member, was better than before."""
        return max(
            [self.history.best_epoch] if not self.history.best_epochs else self.history.best_epochs.values()
        )


def chosen_members(members: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Names of members to train, checked and in the order of the ensemble."""
    if (
        isinstance(members, str)
        or not isinstance(members, Sequence)
        or not members
        or len(set(members)) < len(members)
    ):
        raise ConfigurationError(
            f"Expected members as a list of one or more names, each once, such as [{names[0]!r}], "
            f"got {members!r}."
        )
    for name in members:
        if name not in names:
            raise ConfigurationError(f"There is no member {name!r} to train. {suggest(str(name), names)}")
    return tuple(name for name in names if name in members)


def part_stem(stem: str, members: Sequence[str]) -> str:
    """Stem of the files of members that train apart, another one for each choice of them."""
    joined = "+".join(members)
    plain = all(name.replace("_", "").replace("-", "").isalnum() and name.isascii() for name in members)
    if not plain or len(joined) > _LONGEST_NAME:
        joined = sha256(json.dumps(members).encode()).hexdigest()[:16]
    return f"{stem}.only-{joined}"


def put_together(
    approximator: Approximator, parts: Sequence[Part], fingerprint: Fingerprint, *, early_stopping: bool
) -> Trained:
    """Give a built ensemble the members that have trained apart, as if they had trained together.

    Raises:
        ConfigurationError: if a member is missing or there twice, or a part is of another training.
    """
    names = list(approximator.members)
    there = list(chain.from_iterable(part.members for part in parts))
    if sorted(there) != sorted(names):
        raise ConfigurationError(
            f"Expected parts that have each of the members {', '.join(names)} once, got "
            f"{', '.join(there) or 'none'}."
        )
    for part in parts:
        for name, value in fingerprint.items():
            if name != "batched members" and part.fingerprint.get(name) != value:
                raise ConfigurationError(
                    f"The part with {', '.join(part.members)} belongs to another training: expected {name} "
                    f"{value}, got {part.fingerprint.get(name)}. Train it with the settings, seed and data "
                    "of the others."
                )
    if not early_stopping and len({part.history.epochs for part in parts}) > 1:
        raise ConfigurationError(
            "Expected parts of the same number of epochs without early_stopping, got "
            f"{[part.history.epochs for part in parts]}. A callback that stops a training sees the losses "
            "of one part alone: use early_stopping, which goes by those of each member."
        )
    approximator.load_state_dict(approximator.state_dict() | _joined([part.weights for part in parts]))
    history = History.merged([part.history for part in parts], names)
    return Trained(history, _joined([part.best_weights for part in parts]), fingerprint)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: value for part in parts for name, value in part.items()}


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}
