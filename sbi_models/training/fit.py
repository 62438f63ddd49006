"""One fit of an approximator: the plan of who trains on what, and the training by it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sbi_models.approximators import Approximator
from sbi_models.datasets import Sharing
from sbi_models.training.batches import TrainingBatches
from sbi_models.training.checkpoints import Checkpoint
from sbi_models.training.history import OnEpochEnd
from sbi_models.training.member_parts import Part, Trained
from sbi_models.training.settings import TrainingSettings


@dataclass(frozen=True)
class FitPlan:
    """Which members of an approximator one fit trains, and how they share the data.

    Attributes:
        sharing: shares of the data that the members have.
        members: names of the members that train, the others keep their weights; None is all.
        parts: parts of all members, to be put together instead of training.
        batched: whether members train as one batched module; None does it on a GPU where it can be done.
    """

    sharing: Sharing
    members: Sequence[str] | None = None
    parts: Sequence[Part] = ()
    batched: bool | None = None


def fit(
    approximator: Approximator,
    batches: TrainingBatches,
    validation: TrainingBatches | None,
    epochs: int,
    *,
    settings: TrainingSettings,
    plan: FitPlan,
    seed: int,
    weight_decay: float,
    augmentations: str = "none",
    checkpoint: Checkpoint | None,
    on_epoch_end: OnEpochEnd | None,
) -> Trained:
    """Train a built approximator in place, by a plan; see `trainer.train` for the other arguments.

    Its certificates are forgotten, since they are those of other weights, unless the training fails.
    """
    # Lightning takes seconds to import, and nothing but training needs it.
    from sbi_models.training.trainer import train  # noqa: PLC0415

    with approximator.without_certificate():
        return train(
            approximator,
            batches,
            validation,
            epochs,
            settings,
            seed=seed,
            weight_decay=weight_decay,
            augmentations=augmentations,
            batched=plan.batched,
            members=plan.members,
            parts=plan.parts,
            checkpoint=checkpoint,
            on_epoch_end=on_epoch_end,
        )
