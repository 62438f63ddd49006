"""Fingerprint of a training in its checkpoint, so that no other training goes on from there."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sbi_models.errors import ConfigurationError

Fingerprint = dict[str, Any]
"""What decides the result of a training, by name: a checkpoint goes on only with the same."""

_WRITER = "EpochEnd"
"""Name under which the trainer keeps the state of the callback that writes the fingerprint, under "plan"."""


def steps_done(resume: Path, fingerprint: Fingerprint) -> int:
    """Number of steps done by the training that wrote a resume file.

    Raises ConfigurationError if that was another training.
    """
    written, steps = _read(resume)
    for name, value in fingerprint.items():
        if written.get(name) != value:
            raise ConfigurationError(
                f"The checkpoint {resume} belongs to another training: expected {name} {value}, got "
                f"{written.get(name)}. Go on with the same settings, seed and data, or start anew with "
                "restore=False or another folder."
            )
    return steps


def seed_of(resume: Path) -> int | None:
    """The seed of the workflow whose training wrote a resume file; None if there is no such file."""
    return int(_read(resume)[0]["seed"]) if resume.is_file() else None


def _read(resume: Path) -> tuple[Fingerprint, int]:
    try:
        state = torch.load(resume, weights_only=True)
        return dict(state["callbacks"][_WRITER]["plan"]), int(state["global_step"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"The checkpoint {resume} cannot be read: {cause}. If a callback of yours saves a state, let it "
            "hold nothing but Python numbers, text and tensors. Delete it, and the training starts anew."
        ) from None


def described(thing: Any) -> str:
    """Description of a function, class or object that is the same in every process.

    >>> described(partial(torch.optim.SGD, momentum=0.5))
    "torch.optim.sgd.SGD {'momentum': 0.5}"
    """
    if thing is None:
        return "none"
    if isinstance(thing, partial):
        return f"{described(thing.func)} {[*thing.args, thing.keywords] if thing.args else thing.keywords}"
    if isinstance(thing, Mapping):
        return json.dumps({str(name): described(value) for name, value in thing.items()}, sort_keys=True)
    if isinstance(thing, Sequence) and not isinstance(thing, str):
        return json.dumps([described(value) for value in thing])
    if isinstance(thing, torch.optim.Optimizer):
        return f"{described(type(thing))} {thing.defaults}"
    named: Callable[..., Any] = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
