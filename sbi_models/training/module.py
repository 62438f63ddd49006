"""LightningModule: a thin layer between an approximator and the trainer.

The members of an ensemble step side by side, those of one architecture as one batched module if asked to.
They share no weights, so the gradient of the sum of their losses is that of each alone, and one optimizer
moves each as its own would; clipping, noise, losses and early stops are kept apart here.

Noise of step k is drawn from a generator seeded by (seed, k), and so is the global state that dropout uses. A
resumed training therefore needs no random state: weights, optimizer and the number of the step are enough to
go on to the bit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sbi_models import seeding
from sbi_models.approximators.base import ALONE, Approximator, Member
from sbi_models.approximators.files import present_name
from sbi_models.approximators.members import loss_name, mean_losses, member_seed
from sbi_models.errors import TrainingError
from sbi_models.training.batched_members import BatchedMembers, Rows
from sbi_models.training.cuda_graphs import GraphedSteps, Inputs
from sbi_models.training.optimizers import OptimizerLike, make_optimizer

Batch = Rows | list[Rows | None]
"""A prepared batch for all members, or one for each, in their order; a member with None takes no step."""

GRADIENT_NORM = 1.5
"""Largest norm of the gradient of each member; larger ones are clipped."""

_STEPS_BETWEEN_CHECKS = 100
"""Number of steps between checks that the loss is finite; each check waits for an accelerator."""


class TrainingModule(pl.LightningModule):
    """Trains an approximator on prepared batches.

    Args:
        approximator: built.
        seed: seed of the training noise and of the fixed validation noise.
        learning_rate: peak of the schedule; an optimizer instance brings its own.
        weight_decay: weight decay of the default optimizer, AdamW; not applied to biases and norms. 0 means
            Adam.
        total_steps: number of steps of the schedule: linear warm-up over 5 % from a tenth of the rate, then a
            cosine to 0.
        optimizer: None, or one to use instead of AdamW; see `make_optimizer`.
        ema: decay of a moving average of the weights, or None.
        mixed_precision: whether the trainer works in half precision where it can.
        groups: names of the members that train as one batched module, for each such module; see
            `batchable_members`.
        members: names of those that train; None is all. The others keep their weights, and their parts of
            batches are left aside.
        graphs: take whole steps as CUDA graphs, where the module is on a GPU; for the default optimizer in
            single precision.
    """

    def __init__(
        self,
        approximator: Approximator,
        *,
        seed: int,
        learning_rate: float,
        weight_decay: float,
        total_steps: int,
        optimizer: OptimizerLike | None = None,
        ema: float | None = None,
        mixed_precision: bool = False,
        groups: Sequence[Sequence[str]] = (),
        members: Sequence[str] | None = None,
        graphs: bool = False,
    ) -> None:
        super().__init__()
        self.approximator = approximator
        self.average = None if ema is None else AveragedModel(approximator).requires_grad_(False)
        self.ema, self.graphs = ema, graphs
        self.seed, self.learning_rate, self.weight_decay, self.total_steps = (
            seed,
            learning_rate,
            weight_decay,
            total_steps,
        )
        self.optimizer, self.mixed_precision = optimizer, mixed_precision
        self.groups = groups
        self.seeds = {
            name: member_seed(seed, name)
            for name in approximator.members
            if members is None or name in members
        }
        self.stopped: Mapping[str, Mapping[str, float]] = {}
        """Losses, by "loss" and "val_loss", of the best epochs of members that take no further steps."""
        self.rank, self.devices = 0, 1
        """Number of this device, and number of all devices."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._clipped_together: list[list[torch.nn.Parameter]] = []
        self._batched: list[BatchedMembers] = []
        self._graphed: GraphedSteps | None = None
        self._averages: list[list[Tensor]] = []
        """Averaged weights, weights, buffers beside the averaged weights, buffers."""
        self._number_averaged = 0

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, past PyTorch for the one that Lightning sets some forty times a step."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def result(self) -> Approximator:
        """The approximator to validate, save and sample from: with averaged weights, if there are any."""
        result: Approximator = self.approximator if self.average is None else self.average.module  # type: ignore[assignment]
        return result

    def on_fit_start(self) -> None:
        """Note which of how many devices this one is."""
        self.rank, self.devices = self.trainer.global_rank, self.trainer.world_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the weights of resume files of version 0.1, too."""
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {present_name(name): value for name, value in weights.items()}

    def on_train_start(self) -> None:
        """Make the batched modules; the members are on their device and have their first weights."""
        members = self.approximator.members
        self._batched = [BatchedMembers({name: members[name] for name in names}) for names in self.groups]
        if self.average is not None:
            both = (self.average.module, self.approximator)
            self._averages = [[p.detach() for p in module.parameters()] for module in both]
            self._averages += [list(module.buffers()) for module in both]
            self._number_averaged = int(self.average.n_averaged)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Sum over members of their mean losses; None if a graph has taken the step already."""
        del batch_idx
        rows = self._by_member(batch)
        if self._graphed is not None:
            self._graphed_step(self._graphed, rows)
            return None
        losses: list[Tensor] = []
        for batched in self._batched:
            for names in batched.at_once(rows):
                losses += self._batched_step(batched, {name: rows.pop(name) for name in names})
        losses += [self._member_step(name, part) for name, part in rows.items()]
        if losses:
            return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        # With several devices Lightning demands a loss; this one is of no weight.
        return (
            None
            if self.devices == 1
            else torch.zeros((), device=self.device, dtype=torch.float32, requires_grad=True).clone()
        )

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Calls the optimizer; with graphs, `training_step` has done that."""
        if self._graphed is None or optimizer_closure is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        else:
            optimizer_closure()

    def use_graphs(self, optimizer: torch.optim.Optimizer) -> None:
        """Take whole steps as CUDA graphs, if asked to and on a GPU; called when a training starts."""
        graphs = self.graphs and self.device.type == "cuda" and self.devices == 1
        self._graphed = GraphedSteps(partial(self._whole_step, optimizer)) if graphs else None
        for group in (
            optimizer.param_groups if self.optimizer is None else ()
        ):  # a checkpoint may have brought those of another device
            rate = float(group["lr"])
            group["capturable"], group["lr"] = (
                graphs,
                torch.tensor(rate, device=self.device, dtype=torch.float32) if graphs else rate,
            )

    def _graphed_step(self, graphed: GraphedSteps, rows: Mapping[str, Rows]) -> None:
        if rows:
            members = self.approximator.members
            drawn = {
                name: (part, members[name].draw(part, self._noise_of_step(name)))
                for name, part in rows.items()
            }
            for name, total in graphed(drawn).items():
                self._count(name, total, len(next(iter(rows[name].values()))))

    def _whole_step(self, optimizer: torch.optim.Optimizer, inputs: Inputs) -> dict[str, Tensor]:
        """From the losses to the weights, on one device; the sum of the losses of each member."""
        optimizer.zero_grad()
        rows = {name: part for name, (part, _) in inputs.items()}
        losses: dict[str, Tensor] = {}
        for batched in self._batched:
            for names in batched.at_once(rows):
                losses |= batched.losses(
                    {name: rows.pop(name) for name in names}, {name: inputs[name][1] for name in names}
                )
        losses |= {
            name: self.approximator.members[name].loss_given(part, inputs[name][1])
            for name, part in rows.items()
        }
        means = [of_member.mean() for of_member in losses.values()]
        torch.autograd.backward(means[0] if len(means) == 1 else torch.stack(means).sum())
        self._clip(optimizer, GRADIENT_NORM)
        optimizer.step()
        return {name: of_member.detach().sum() for name, of_member in losses.items()}

    def _by_member(self, batch: Batch) -> dict[str, Rows]:
        """What the members that take a step get of a batch."""
        names = list(self.approximator.members)
        parts = batch if isinstance(batch, list) else [batch] * len(names)
        trained = {
            name: part
            for name, part in zip(names, parts, strict=True)
            if name in self.seeds and name not in self.stopped
        }
        return {name: part for name, part in trained.items() if part is not None}

    def _batched_step(self, batched: BatchedMembers, rows: Mapping[str, Rows]) -> list[Tensor]:
        losses = batched.losses(
            rows,
            {
                name: batched.members[name].draw(part, self._noise_of_step(name))
                for name, part in rows.items()
            },
        )
        return [self._mean_of_step(name, rows, len(rows)) for name, rows in losses.items()]

    def _member_step(self, name: str, rows: Rows) -> Tensor:
        return self._mean_of_step(
            name, *self._losses(self.approximator.members[name], rows, self._noise_of_step(name))
        )

    def _losses(self, member: Member, rows: Rows, noise: torch.Generator) -> tuple[Tensor, int]:
        """Losses of this device's rows of a prepared batch, and the number of rows of all devices.

        A device without a row has the first one, with a weight of 0.
        """
        n = len(rows["inference_variables"])
        if self.devices == 1:
            return member.loss(rows, noise), n
        start, end = (k * n // self.devices for k in (self.rank, self.rank + 1))
        part = slice(start, end) if start < end else slice(0, 1)
        drawn = tuple(values[part] for values in member.draw(rows, noise))
        losses = member.loss_given({key: value[part] for key, value in rows.items()}, drawn)
        return losses if start < end else losses * 0, n

    def _noise_of_step(self, name: str) -> torch.Generator:
        """Generator of a member's noise in this step; the global state, for dropout, is seeded with it."""
        step_seed = seeding.derive(self.seeds[name], "training noise", self.global_step)
        torch.default_generator.manual_seed(step_seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(step_seed)
        return self._generator(step_seed)

    def _mean_of_step(self, name: str, losses: Tensor, count: int) -> Tensor:
        """Loss to differentiate: the mean over the rows of a batch, from this device's losses.

        Devices take the mean of their gradients.
        """
        self._count(name, losses.detach().sum(), count)
        return losses.mean() if self.devices == 1 else losses.sum() * (self.devices / count)

    def _count(self, name: str, total: Tensor, count: int) -> None:
        """Add the sum of the losses of a step, and look at it now and then."""
        key = loss_name(name, "loss")
        self._add(key, total, count)
        if self.global_step % _STEPS_BETWEEN_CHECKS == 0:
            self._check_finite(key, self._totals([key])[key])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm of each member's gradient by itself."""
        del gradient_clip_algorithm
        if gradient_clip_val is not None:
            self._clip(optimizer, gradient_clip_val)

    def _clip(self, optimizer: torch.optim.Optimizer, norm: float) -> None:
        if not self._clipped_together:
            everything = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for member in self.approximator.members.values():
                ids = {id(parameter) for parameter in member.parameters()}
                self._clipped_together.append([parameter for parameter in everything if id(parameter) in ids])
        for parameters in self._clipped_together:
            torch.nn.utils.clip_grad_norm_(parameters, norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average of the weights; the decay min(decay, (1 + n) / (10 + n)) forgets the start."""
        if self.average is None or self.ema is None:
            return
        averages, weights, buffers, present = self._averages
        n = self._number_averaged
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - min(self.ema, (1 + n) / (10 + n)) if n else 1.0)
            torch._foreach_copy_(buffers, present)
            self.average.n_averaged += 1
        self._number_averaged += 1

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Adds up the losses of a prepared validation batch, with the same noise and times in every epoch."""
        for name, seed in self.seeds.items():
            if name not in self.stopped:
                generator = self._generator(seeding.derive(seed, "validation noise", batch_idx))
                losses, count = self._losses(self.result.members[name], batch, generator)
                self._add(loss_name(name, "val_loss"), losses.detach().sum(), count)

    def on_validation_epoch_end(self) -> None:
        """Logs `val_loss`, for loggers and callbacks of the user."""
        self.log("val_loss", self._means()["val_loss"], sync_dist=self.devices > 1)

    def epoch_losses(self) -> dict[str, float]:
        """Mean losses since the last call: `loss` and, after a validation, `val_loss`.

        In an ensemble, these are means over members, with the best losses of those that have stopped, and
        `member/loss` and `member/val_loss` are those of members that still train.
        """
        means = self._means()
        self._sums, self._counts = {}, {}
        for name, value in means.items():
            self._check_finite(name, value)
        return means

    def _means(self) -> dict[str, float]:
        means = {key: total / self._counts[key] for key, total in self._totals(list(self._counts)).items()}
        return means if ALONE in self.seeds else mean_losses(means, list(self.seeds), self.stopped) | means

    def _totals(self, keys: Sequence[str]) -> dict[str, float]:
        """Sums of losses over all devices, the same on each."""
        if self.devices == 1:
            return {key: float(self._sums[key]) for key in keys}
        sums = torch.stack([self._sums[key].double() for key in keys])
        totals: Tensor = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return dict(zip(keys, totals.tolist(), strict=True))

    def _check_finite(self, key: str, value: float) -> None:
        if not math.isfinite(value):
            member, _, kind = key.rpartition("/")
            what = (
                f"{'training' if kind == 'loss' else 'validation'} "
                f"loss{f' of member {member!r}' if member else ''}"
            )
            raise TrainingError(
                f"The {what} is {value} in epoch {self.current_epoch + 1}. Try a smaller "
                "initial_learning_rate, standardize='all', or a log transform of variables that span "
                "orders of magnitude."
            )

    def configure_optimizers(self) -> Any:
        """The optimizer with warm-up and cosine decay."""
        fused = self.device.type in ("cpu", "cuda") and not self.mixed_precision  # which scales gradients
        optimizer = make_optimizer(
            self.optimizer, self.approximator, self.learning_rate, self.weight_decay, fused=fused
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warmup = max(1, int(0.05 * self.total_steps))
        if step < warmup:
            return 0.1 + 0.9 * step / warmup
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress, dtype=torch.float32))))

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def _add(self, key: str, total: Tensor, count: int) -> None:
        self._sums[key] = self._sums[key] + total if key in self._sums else total.clone()
        self._counts[key] = self._counts.get(key, 0) + count
