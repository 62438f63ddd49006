"""Check which members of an ensemble can train as one batch, by a rule and a trial before training.

The rule: they have one architecture, losses that take their random numbers as an argument, and no dropout.
The trial: of the losses of a made-up batch, and of their gradients, a batched module and each member alone
have the same, for copies with weights that are all away from zero, on the device of the training. So what
PyTorch cannot batch, what looks at values in Python, what draws random numbers of its own and what changes
its buffers trains side by side, for a reason that is told.
"""

import warnings
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sbi_models.approximators.base import Approximator, Member
from sbi_models.training.batched_members import BatchedMembers, Rows

_ROWS, _SMALLEST = 4, 1e-6
_NOISE = 0.05
"""Sd of the noise that is added to the weights of copies.

Networks start with layers of zeros, behind which no gradient would be seen.
"""

_TOLERANCE, _TOLERANCE_IN_HALF = 0.01, 0.15
"""Relative difference that rounding explains, in single and in half precision.

That of convolutions in TF32 is below it, too; a wrong result is off by about one. In half precision gradients
of splines differ by half, so that there, after the trial in full precision, losses alone are compared.
"""


@dataclass
class Batchable:
    """Members that can train as one batch, and why others of one architecture cannot.

    Attributes:
        groups: names of two or more members that can train as one batch, for each such batch.
        reasons: why others of one architecture cannot, by their names, joined by commas.
    """

    groups: list[list[str]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def batchable_members(
    approximator: Approximator,
    device: torch.device,
    half: torch.dtype | None = None,
    among: Collection[str] | None = None,
) -> Batchable:
    """Members of a built approximator that can train as one batch on a device.

    `among` are the members to look at, all by default; `half` is the type of mixed precision, if any.
    """
    alike: dict[tuple[type, str], list[str]] = {}
    for name, member in approximator.members.items():
        if among is not None and name not in among:
            continue
        alike.setdefault((type(member), member.architecture), []).append(name)
    batchable = Batchable()
    for names in alike.values():
        if len(names) > 1:
            reason = _why_not({name: approximator.members[name] for name in names}, device, half)
            if reason is None:
                batchable.groups.append(names)
            else:
                batchable.reasons[", ".join(names)] = reason
    return batchable


def _why_not(members: Mapping[str, Member], device: torch.device, half: torch.dtype | None) -> str | None:
    first = next(iter(members.values()))
    for part in (first, first.inference_network):
        if not takes_random_numbers(type(part)):
            return f"{type(part).__name__} has a loss of its own, not draw and loss_given"
    if draws_in_layers(first):
        return "members with dropout draw random numbers of their own in every layer"
    try:
        with (
            torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else []),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings(
                "error", message=".*batching rule.*"
            )  # computed for one member after the other
            copies = {
                name: copied(member, device, number) for number, (name, member) in enumerate(members.items())
            }
            reason = _trial(copies, common=True) or _trial(copies, common=False)
            if half is None or reason is not None:
                return reason
            with torch.autocast(device.type, half):
                return _trial(copies, common=True, in_half=True) or _trial(copies, common=False, in_half=True)
    except Exception as error:  # noqa: BLE001 - whatever a network raises: it is the answer
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0].rstrip('.')}"


def takes_random_numbers(cls: type) -> bool:
    """Whether the loss of a class is its `loss_given`, without a `loss` of its own in a subclass."""
    return next(
        "loss_given" in vars(base) for base in cls.__mro__ if vars(base).keys() & {"loss", "loss_given"}
    )


def draws_in_layers(module: nn.Module) -> bool:
    """Whether it has dropout."""
    return any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 for part in module.modules())


def copied(member: Member, device: torch.device, seed: int) -> Member:
    """A copy on the device, with random numbers added to all weights."""
    copy = deepcopy(member).to(device).train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(
                _NOISE * torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter)
            )
    return copy


def _trial(members: Mapping[str, Member], *, common: bool, in_half: bool = False) -> str | None:
    """Why the members differ in a batched module from what they are alone; None if they do not.

    The made-up batches are one for all members (`common`), or one for each.
    """
    trials = [made_up(member, 0 if common else number) for number, member in enumerate(members.values())]
    batches = dict(zip(members, trials[:1] * len(trials) if common else trials, strict=True))
    before = [buffer.clone() for member in members.values() for buffer in member.buffers()]
    alone = {
        name: member.loss(batches[name], noise)
        for (name, member), noise in zip(members.items(), _generators(members), strict=True)
    }
    drawn = {
        name: member.draw(batches[name], noise)
        for (name, member), noise in zip(members.items(), _generators(members), strict=True)
    }
    together = BatchedMembers(members).losses(batches, drawn)
    for name, member in members.items():
        if not close(together[name], alone[name], _TOLERANCE_IN_HALF if in_half else _TOLERANCE):
            return "the losses of a batched module are not those of its members"
        if not in_half and not _same_gradients(
            together[name], alone[name], [p for p in member.parameters() if p.requires_grad]
        ):
            return "the gradients of a batched module are not those of its members"
    after = [buffer for member in members.values() for buffer in member.buffers()]
    if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        return "members change their buffers while they train"
    return None


def _same_gradients(losses: Tensor, expected: Tensor, weights: list[nn.Parameter]) -> bool:
    """Whether two mean losses have the same gradients, up to rounding, zeros where they have none."""
    pair = [
        torch.autograd.grad(
            rows.mean(), weights, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for rows in (losses, expected)
    ]
    whole = torch.cat([gradient.flatten() for gradient in pair[1]]).norm()
    return all(close(a, b, _TOLERANCE, more=0.01 * float(whole)) for a, b in zip(*pair, strict=True))


def close(a: Tensor, b: Tensor, tolerance: float, more: float = 0.0) -> bool:
    """Whether a is b up to a share of the norm of b and of `more`; not if either is not finite."""
    return bool((a - b).norm() <= tolerance * (b.norm() + more) + _SMALLEST)


def made_up(member: Member, seed: int) -> Rows:
    """A prepared batch of standard normal numbers, some of them masked where there are masks."""
    shapes, weight = _shapes(member), next(member.parameters())
    generator = torch.Generator().manual_seed(seed)
    rows = {
        key: torch.randn(_ROWS, *shape, generator=generator, dtype=torch.float32).to(weight)
        for key, shape in shapes.items()
    }
    masks = {
        mask: torch.rand(
            _ROWS, *shapes[key][: member.inputs.axes[key]], generator=generator, dtype=torch.float32
        )
        < 0.7
        for key, mask in member.inputs.masked.items()
    }
    return rows | {name: mask.to(weight.device) for name, mask in masks.items()}


def _shapes(member: Member) -> dict[str, tuple[int, ...]]:
    """Shape of one row of each input of the networks, by role or summary input, without masks."""
    widths, summary = member.inference_network.built_with or {}, member.summary_network
    shapes: dict[str, tuple[int, ...]] = {"inference_variables": (widths["theta_dim"],)}
    direct = widths["condition_dim"]
    if summary is not None:
        direct -= summary.summary_dim
        given = (summary.built_with or {})["input_shape"]
        shapes |= {
            key: tuple(given if member.inputs.is_one else given[name])
            for key, name in member.inputs.names.items()
        }
    return shapes | ({"inference_conditions": (direct,)} if direct else {})


def _generators(members: Mapping[str, Member]) -> list[torch.Generator]:
    """A new one for each member."""
    return [torch.Generator(member.device).manual_seed(seed) for seed, member in enumerate(members.values())]
