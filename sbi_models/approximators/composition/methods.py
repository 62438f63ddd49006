"""The ways to compose, by name, behind one call."""

from torch import Tensor

from sbi_models.approximators.composition import diffusion as paths
from sbi_models.approximators.composition.calibrated import calibrated
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.plan import Moments, Plan, beyond, generator_of
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.errors import DataError

METHODS = ("calibrated", "gauss", "langevin", "plain")

_GAUSS_STEPS, _PLAIN_STEPS = 200, 500

_FAR = 100.0
"""Sds of the prior beyond which a draw has diverged."""


def composed(
    items: Items,
    prior: PriorScore,
    moments: Moments,
    num_samples: int,
    plan: Plan,
    *,
    method: str,
    fresh: Fresh | None,
) -> tuple[Tensor, CompositionReport]:
    """Draws (num_samples, d) of the posterior given all items, standardized space, by one of `METHODS`, and
    what to think of them."""
    if method == "calibrated":
        return calibrated(items, prior, moments, num_samples, plan, fresh=fresh)
    generator = generator_of(plan.seed, method)
    if method == "gauss":
        draws, each = paths.gauss(items, moments, num_samples, _GAUSS_STEPS, generator), _GAUSS_STEPS
    elif method == "plain":
        draws, each = paths.plain(items, prior, num_samples, _PLAIN_STEPS, generator), _PLAIN_STEPS
    else:
        draws, each = paths.langevin(items, prior, moments, num_samples, generator)
    lost = int((~(draws.abs() < _FAR).all(dim=1)).sum())
    if lost:
        raise DataError(
            f"The method {method!r} diverged in {lost} of {num_samples} draws of {len(items)} items. "
            "Use method='calibrated', which has no steps that can."
        )
    notes = beyond(draws, moments)
    return draws, CompositionReport(
        method=method, num_items=len(items), evaluations=each * num_samples, notes=notes
    )
