"""One fit of an approximator, by a plan: what workflows call to train."""

from sbi_models.approximators import Approximator
from sbi_models.training.batches import TrainingBatches
from sbi_models.training.checkpoints import Checkpoint
from sbi_models.training.fit_plan import FitPlan
from sbi_models.training.history import OnEpochEnd
from sbi_models.training.member_parts import Trained
from sbi_models.training.settings import TrainingSettings


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
            settings=settings,
            plan=plan,
            seed=seed,
            weight_decay=weight_decay,
            augmentations=augmentations,
            checkpoint=checkpoint,
            on_epoch_end=on_epoch_end,
        )
