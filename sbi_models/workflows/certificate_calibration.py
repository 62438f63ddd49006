"""Calibration of certificates at the end of a training, in memory and in the checkpoint."""

from collections.abc import Collection

from sbi_models.approximators import Approximator, load_approximator
from sbi_models.training.checkpoints import Checkpoint
from sbi_models.types import Variables


def leave_certificates(
    approximator: Approximator,
    known: Variables,
    held_out: Variables | None,
    checkpoint: Checkpoint | None,
    *,
    save_best_only: bool,
    seed: int,
    contexts: Collection[str] = (),
) -> None:
    """Learn certificates from simulations, raw variables (n, ...), also in the best epoch's file."""
    approximator.learn_certificate(known, held_out, seed=seed, contexts=contexts)
    if checkpoint is None:
        return
    if not save_best_only:
        approximator.save(checkpoint.model_path)  # it may have been lost since a finished training wrote it
    elif checkpoint.model_path.is_file():
        best = load_approximator(checkpoint.model_path)
        best.learn_certificate(known, held_out, seed=seed, contexts=contexts)
        best.save(checkpoint.model_path)
