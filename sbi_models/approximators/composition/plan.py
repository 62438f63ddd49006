"""Plan of a composition, the reach of the prior, and numbers and notes of reports."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.score import SharedMean, share_of_bias, shift_in_sds

MANY_ITEMS = 100
"""More of them are not to be trusted where nothing is known of shared errors."""

_REACH = 6.0
"""Sds of the prior within which modes are looked for."""

_BEYOND = 0.05
"""Share of draws out of reach from which a posterior is not to be trusted; a heavy tail of the prior has
fewer."""

Moments = tuple[Tensor, Tensor]
"""Mean (d,) and covariance (d, d) of the prior, standardized space."""


@dataclass(frozen=True)
class Plan:
    """Settings of one composition.

    Attributes:
        noise: noise of the scores, in sds of standardized parameters.
        simulations: number of simulations of the calibration.
        seed: seed of everything random.
        learned: mean score as the training left it; None if unknown.
        is_underfitted: whether the network is underfitted, so that few items are calibrated, too.
    """

    noise: float
    simulations: int
    seed: int
    learned: SharedMean | None = None
    is_underfitted: bool = False


def generator_of(seed: int, *path: str | int) -> torch.Generator:
    """A generator at the start of a stream of a composition."""
    return torch.Generator().manual_seed(seeding.derive(seed, "composition", *path))


def in_reach(theta: Tensor, moments: Moments) -> Tensor:
    """Booleans (m,): which points (m, d) are finite and near enough to the prior for a network to know."""
    away = theta - moments[0]
    near: Tensor = (away * torch.linalg.solve(moments[1], away.mT).mT).sum(dim=-1) < _REACH**2
    return near


def out_of_reach_notes(draws: Tensor, moments: Moments) -> tuple[str, ...]:
    """Notes on composed draws (m, d), standardized space, many of which are out of reach of the prior."""
    share = 1 - float(in_reach(draws, moments).double().mean())
    if share < _BEYOND:
        return ()
    return (
        f"{share:.0%} of the draws are more than {_REACH:.0f} standard deviations of the prior away from "
        "its mean, on the scale of the network, where it has seen no parameters: train longer, give the "
        "prior as torch distributions, or look at the items one by one.",
    )


def shared_error_numbers(
    learned: tuple[Tensor, Tensor] | None, precision: Tensor, num_items: int
) -> dict[str, Any]:
    """Report's numbers on the shared error (d,) after a training and its estimate's covariance (d, d).

    Shifts are those of a posterior of a precision (d, d), in its sds.
    """
    if learned is not None:
        bias, covariance = learned
        return {
            "bias_shift": shift_in_sds(num_items * bias, precision),
            "calibration_residual": _residual(num_items**2 * covariance, precision),
            "calibrated": share_of_bias(bias, covariance) > 0,
        }
    return {}


UNKNOWN_SHARED_ERROR = (
    "Nothing is known of the errors that the scores of all items share, which add up: pass the simulator, "
    "or train a CompositionalWorkflow, which leaves a correction behind."
)


def _residual(covariance: Tensor, precision: Tensor) -> float:
    """Noise of the score (d, d) as a shift of the posterior in its sds (rms over parameters)."""
    return math.sqrt(max(0.0, float(torch.linalg.solve(precision, covariance).trace())) / len(precision))
