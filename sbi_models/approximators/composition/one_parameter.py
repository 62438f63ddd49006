"""The default composition of one parameter: its density is integrated on a grid, whatever its shape."""

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.composed import Calibration, ComposedScore
from sbi_models.approximators.composition.items import Fresh
from sbi_models.approximators.composition.line import Line, LineSearch
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition.stages import Moments, Plan, most_informative, of_calibration, pilots
from sbi_models.approximators.composition.typical import Contradicted

_REGULAR = (0.5, 2.0)
"""Precision that an item's information implies, over that of the posterior, where the latter is about normal."""


def calibrated_line(
    composed: ComposedScore, moments: Moments, num_samples: int, plan: Plan, fresh: Fresh | None
) -> tuple[Tensor, CompositionReport]:
    """Draws (num_samples, 1) of the posterior given all items, and what to think of them; arguments as for `calibrated`."""
    items, spent = composed.items, 0
    rough, cost = pilots(items, moments, plan.seed)
    search = LineSearch(composed, float(rough.min()), float(rough.max()))
    line = search.line(seed=plan.seed)
    if fresh is not None and plan.noises and len(line.parts) == 1:
        better = most_informative(items, composed.prior, plan, _top(line), fresh)
        assert better.calibration is not None
        implied = (1 + len(items) * float(better.calibration.information)) * line.sd**2
        if better.noise != composed.noise and _REGULAR[0] < implied < _REGULAR[1]:
            composed, spent = better, composed.evaluations
            search = LineSearch(composed, float(line.parts[0][0][0]), float(line.parts[-1][0][-1]))
            line = search.line(seed=plan.seed)
    calibrations: list[tuple[float, Calibration]] = []
    contradicted: list[Contradicted] = []
    if fresh is not None:
        for k, center in enumerate(line.centers):
            simulated = fresh(torch.as_tensor([center]), plan.simulations, seeding.derive(plan.seed, "calibration", k))
            calibrations.append((float(center), composed.calibrate(torch.as_tensor([center]), simulated)))
            contradicted.append(composed.least_typical())
    learned = composed.use_learned(_top(line)) if composed.learned is not None else None
    line = search.line(tuple(calibrations), fresh=fresh, seed=plan.seed)
    nearest = min(range(len(calibrations)), key=lambda k: abs(calibrations[k][0] - float(_top(line))), default=None)
    known = (None, None) if nearest is None else (calibrations[nearest][1], contradicted[nearest])
    report = CompositionReport(
        method="calibrated",
        num_items=len(items),
        noise=composed.noise,
        explained=line.explained,
        num_modes=len(line.parts),
        mode_weights=tuple(float(weight) for weight in line.weights),
        evaluations=composed.evaluations + spent + cost,
        **of_calibration(known[0], learned, torch.eye(1, dtype=torch.float64) / line.sd**2, len(items), known[1]),
    )
    return line.draw(num_samples, seeding.generator(plan.seed, "draws on a line")), report


def _top(line: Line) -> Tensor:
    """Where the likeliest part is highest (1,)."""
    return torch.as_tensor(line.centers[[int(line.weights.argmax())]])
