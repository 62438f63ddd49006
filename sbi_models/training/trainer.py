"""One training with Lightning's trainer, from the first step or a checkpoint to the end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import lightning.pytorch as pl
import torch
from torch import nn

from sbi_models.approximators import Approximator
from sbi_models.approximators.base import ALONE
from sbi_models.errors import ConfigurationError, TrainingError
from sbi_models.progress import progress_bar
from sbi_models.training.batch_compatibility import Batchable, batchable_members, takes_random_numbers
from sbi_models.training.batches import TrainingBatches
from sbi_models.training.callbacks import EpochEnd, SetEpoch
from sbi_models.training.checkpoints import Checkpoint
from sbi_models.training.device_compatibility import check_splittable
from sbi_models.training.environment import quiet_lightning
from sbi_models.training.fingerprint import Fingerprint, steps_done
from sbi_models.training.fit_plan import FitPlan
from sbi_models.training.history import History, OnEpochEnd
from sbi_models.training.member_parts import Trained, put_together
from sbi_models.training.module import GRADIENT_NORM, TrainingModule
from sbi_models.training.process_relay import Relay
from sbi_models.training.settings import (
    START_METHODS,
    TrainingSettings,
    lightning_strategy,
    number_of_devices,
    strategy_of,
)

_HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def train(
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
    """Train a built approximator in place; it gets its weights back if a loss is not finite.

    Args:
        approximator: built approximator.
        batches: prepared training batches.
        validation: prepared held-out batches, evaluated after each epoch.
        epochs: passes over the batches.
        settings: settings of the training.
        plan: plan of the fit: members that train, or parts to put together instead.
        seed: seed of the noise.
        weight_decay: weight decay of the default optimizer.
        augmentations: description of the augmentations, for the fingerprint.
        checkpoint: files to write after each epoch, and to go on from.
        on_epoch_end: listener that gets the losses of each epoch.

    Raises:
        ConfigurationError: before training, if the checkpoint to go on from or a part belongs to another
            training or cannot be read, or if members cannot train as one batch and `plan.batched` demands it.
        TrainingError: if a loss is no longer finite.
    """
    approximator.train()
    groups = _groups(approximator, settings, plan)
    fingerprint = _fingerprint(approximator, settings, groups, epochs) | {
        "data": batches.fingerprint,
        "augmentations": augmentations,
        "validation": "none" if validation is None else validation.fingerprint,
    }
    if plan.parts:
        early = settings.early_stopping is not None
        trained = put_together(approximator, plan.parts, fingerprint, early_stopping=early)
        if checkpoint is not None:
            checkpoint.save_best(approximator, trained)
        approximator.eval()
        return trained
    strategy = _strategy(approximator, settings, plan.members)
    module = TrainingModule(
        approximator,
        seed=seed,
        learning_rate=settings.initial_learning_rate,
        weight_decay=weight_decay,
        total_steps=epochs * len(batches),
        optimizer=settings.optimizer,
        ema=settings.ema,
        mixed_precision=settings.precision != "32-true",
        groups=groups,
        members=plan.members,
        graphs=_takes_graphs(approximator, settings),
    )
    if plan.members is not None:
        fingerprint["members"] = list(plan.members)
    resume = checkpoint.resumable if checkpoint is not None and settings.restore else None
    done = steps_done(resume, fingerprint) if resume else 0
    start_method = START_METHODS.get(strategy_of(settings))
    relay = None if start_method is None else Relay(start_method)
    with (
        quiet_lightning(),
        torch.random.fork_rng(),
        _compiled(approximator, settings.compile),
        progress_bar("train", epochs * len(batches), done=done, show=settings.progress) as advance,
        _restored_after_failure(approximator),
    ):
        ends = EpochEnd(
            History(),
            checkpoint,
            on_epoch_end if relay is None else relay.on_epoch_end,
            advance if relay is None else relay.advance,
            fingerprint,
            patience=settings.early_stopping,
            keep_best=settings.save_best_only and (checkpoint is not None or plan.members is not None),
            threads=settings.threads,
            relay=relay,
        )
        trainer = _trainer(settings, strategy, epochs, [SetEpoch(batches, validation), ends])
        with (
            nullcontext() if relay is None else relay.listening(advance, on_epoch_end),
            _interruptible(trainer),
        ):
            trainer.fit(module, batches, validation, ckpt_path=resume, weights_only=True if resume else None)
        if relay is not None and relay.state is not None:
            ends.load_state_dict(relay.state)
        if module.average is not None:
            approximator.load_state_dict(module.result.state_dict())
        ends.back_to_the_best(approximator)
    approximator.eval()
    return Trained(ends.history, ends.best_weights, fingerprint)


def _fingerprint(
    approximator: Approximator, settings: TrainingSettings, groups: list[list[str]], epochs: int
) -> Fingerprint:
    """What decides the result of a training, but for its data."""
    fingerprint: Fingerprint = {"epochs": epochs, **settings.fingerprint, **approximator.specification}
    if ALONE not in approximator.members:
        fingerprint["batched members"] = "; ".join(", ".join(names) for names in groups) or "none"
    return fingerprint


def _trainer(
    settings: TrainingSettings, strategy: str, epochs: int, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Lightning's trainer, with the callbacks of the user after ours."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator=_accelerator(settings.accelerator),
        devices=number_of_devices(settings),
        strategy=strategy,
        precision=settings.precision,  # type: ignore[arg-type]
        callbacks=[*callbacks, *settings.callbacks],
        gradient_clip_val=GRADIENT_NORM,
        num_sanity_val_steps=0,
        logger=settings.logger,
        enable_checkpointing=any(
            isinstance(callback, pl.callbacks.Checkpoint) for callback in settings.callbacks
        ),
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _restored_after_failure(approximator: Approximator) -> Iterator[None]:
    """Give the approximator its weights back if its training fails."""
    before = {name: value.detach().clone() for name, value in approximator.state_dict().items()}
    try:
        yield
    except TrainingError:
        approximator.load_state_dict(before)
        raise


@contextmanager
def _interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C, after which Lightning ends the program, and with it a notebook."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _strategy(approximator: Approximator, settings: TrainingSettings, members: Sequence[str] | None) -> str:
    """Lightning's name of the strategy; ConfigurationError if it cannot be done on several devices."""
    if strategy_of(settings) == "auto":
        return "auto"
    if settings.compile:
        raise ConfigurationError(
            f"Expected no compile with several devices or a strategy, got compile={settings.compile!r}."
        )
    return lightning_strategy(settings, all_have_gradients=check_splittable(approximator, members))


def _takes_graphs(approximator: Approximator, settings: TrainingSettings) -> bool:
    """Whether a GPU may take whole steps as CUDA graphs.

    Nobody may look in between, and a step must be the same function of its inputs every time.
    """
    inside = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
    watched = any(
        getattr(type(callback), name) is not getattr(pl.Callback, name)
        for callback in settings.callbacks
        for name in inside
    )
    parts = [
        type(part) for member in approximator.members.values() for part in (member, member.inference_network)
    ]
    possible = (
        settings.optimizer is None
        and settings.precision == "32-true"
        and not watched
        and all(map(takes_random_numbers, parts))
    )
    fits = all(member.inference_network.fits_graph for member in approximator.members.values())
    known = fits and all(
        type(part).__module__.partition(".")[0] in ("sbi_models", "torch") for part in approximator.modules()
    )
    return possible and (known if settings.cuda_graphs is None else settings.cuda_graphs)


def _groups(approximator: Approximator, settings: TrainingSettings, plan: FitPlan) -> list[list[str]]:
    """Names of the members that train as one batched module, for each such module.

    Without being asked for it, that is on a GPU alone, which small kernels leave idle.
    """
    device = torch.device("cpu" if settings.accelerator == "cpu" or not torch.cuda.is_available() else "cuda")
    if (
        ALONE in approximator.members
        or plan.batched is False
        or (plan.batched is None and device.type == "cpu")
    ):
        return []
    if number_of_devices(settings) > 1:
        batchable = Batchable(
            reasons={", ".join(approximator.members): f"they train on devices={settings.devices!r}"}
        )
    elif settings.compile:
        batchable = Batchable(
            reasons={
                ", ".join(
                    approximator.members
                ): f"compile={settings.compile!r} compiles the networks of each member"
            }
        )
    else:
        batchable = batchable_members(approximator, device, _HALF.get(settings.precision), plan.members)
    if plan.batched and (batchable.reasons or not batchable.groups):
        reasons = [f"{names}, which cannot: {reason}" for names, reason in batchable.reasons.items()]
        raise ConfigurationError(
            "Expected members that can train as one batch, with batched=True, got "
            f"{'; '.join(reasons) or 'no two of one architecture'}. Leave batched out, and they train side "
            "by side."
        )
    return batchable.groups


def _accelerator(name: str) -> str:
    """Lightning's name of an accelerator; "auto" takes none without the double precision of moments."""
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _compiled(approximator: Approximator, backend: bool | str) -> Iterator[None]:
    """Run the modules of the networks that are called as such through torch.compile, for a while."""
    if not backend:
        yield
        return
    parts: list[nn.Module] = []
    for member in approximator.members.values():
        parts += _called(member.inference_network)
        parts += [member.summary_network] if member.summary_network is not None else []
    for part in parts:
        part.compile(backend="inductor" if backend is True else backend)
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None


def _called(network: nn.Module) -> Iterator[nn.Module]:
    """The modules inside a network that its own methods call: its children, and those in its lists."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _called(child)
        else:
            yield child
