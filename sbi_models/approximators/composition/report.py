"""Report of a composition: diagnostics of its draws, and reasons not to trust them."""

import math
from dataclasses import asdict, dataclass
from typing import Any

_BIAS = 0.5
_LARGE_BIAS = 2.0
_RESIDUAL = 0.25
_WIDTH_RATIO = 2.0
_MISCALIBRATED, _DOUBTED = 0.001, 0.01
"""P-values of the test of the draws: below the first they are not to be trusted, below the second not after a
large calibration."""

EXPLAINED = 0.95
"""R^2 of a polynomial log density below which its draws are doubted."""

_CONTRADICTION, _INFLUENCE = 0.02, 0.5
_MOST_UNTESTED = 30
"""Number of items up to which untested draws, those without a simulator, have no warning for that alone."""

_LAST_STEP = 0.1
_ACCEPTED = 0.3


@dataclass(frozen=True)
class CompositionReport:
    """Diagnostics of the draws of one composed data set; numbers that a method does not have are NaN.

    Attributes:
        method: name of the method of the draws.
        num_items: n.
        noise: noise at which the scores of single items were taken, in sds of the standardized parameters.
        bias_shift: shift of the posterior by the errors that items share, in its sds (rms over parameters):
            measured by a calibration by simulations, or predicted by that of the training.
        calibration_residual: sd of the error of the calibration, in sds of the posterior.
        width_ratio: sds of the calibrated posterior over those of the network's scores as they are, geometric
            mean over parameters.
        sbc_p_value: p-value of posterior simulation-based calibration (`posterior_sbc.py`): that the draws
            are those of the posterior.
        sbc_shift: distance of the draws from right ones by that test, in posterior sds, of the worst
            parameter.
        sbc_variance: variance of the normal scores of its ranks, 1 if widths are right, larger if draws are
            too narrow.
        contradiction: p-value that the items are of the same parameters, from the one that is farthest from
            simulations of them.
        least_typical: the position of that item; -1 where there were no simulations.
        influence: shift of the posterior by that item, in its sds (rms over parameters).
        explained: R^2 of the polynomial log density at held-out points.
        acceptance: share of accepted steps of the draws from the polynomial log density.
        last_step: last step of Newton's method, in posterior sds.
        num_modes: number of modes.
        mode_weights: their probabilities.
        evaluations: scores of the network for each item, all draws together.
        simulations: fresh simulations of the calibration.
        calibrated: whether the bias was removed.
        notes: further reasons not to trust the draws.
    """

    method: str
    num_items: int
    noise: float = math.nan
    bias_shift: float = math.nan
    calibration_residual: float = math.nan
    width_ratio: float = math.nan
    sbc_p_value: float = math.nan
    sbc_shift: float = math.nan
    sbc_variance: float = math.nan
    contradiction: float = math.nan
    least_typical: int = -1
    influence: float = math.nan
    explained: float = math.nan
    acceptance: float = math.nan
    last_step: float = math.nan
    num_modes: int = 1
    mode_weights: tuple[float, ...] = (1.0,)
    evaluations: int = 0
    simulations: int = 0
    calibrated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the draws, in plain words; none if nothing speaks against them."""
        reasons = list(self.notes)
        if not self.calibrated and self.bias_shift > _BIAS:
            reasons.append(
                f"Errors that all {self.num_items} items share would move the posterior by about "
                f"{self.bias_shift:.1f} of its standard deviations, and nothing corrects them: pass the "
                "simulator, train longer, or compose fewer items."
            )
        if self.method == "calibrated" and not self.simulations and self.num_items > _MOST_UNTESTED:
            reasons.append(
                f"The posterior given {self.num_items} items is not tested, since there is no simulator: "
                "errors of the network that are small in each of them add up. Compose with a workflow that "
                f"has its simulator, or at most {_MOST_UNTESTED} items."
            )
        if self.calibrated and not self.simulations and self.bias_shift > _LARGE_BIAS:
            reasons.append(
                f"What the training left as the error that all {self.num_items} items share would move the "
                f"posterior by {self.bias_shift:.1f} of its standard deviations: so large a correction is "
                "not to be trusted. Pass the simulator, train longer, or compose fewer items."
            )
        if self.calibration_residual > _RESIDUAL:
            reasons.append(
                f"The correction of shared errors is uncertain by {self.calibration_residual:.2f} "
                "posterior standard deviations: "
                + (
                    "simulate more for it (calibration_simulations)."
                    if self.simulations
                    else "pass the simulator, or compose fewer items."
                )
            )
        if self.sbc_p_value < _MISCALIBRATED:
            reasons.append(
                f"The draws fail posterior simulation-based calibration (p = {self.sbc_p_value:.1g}): data "
                f"simulated at them have posteriors that are off by about {abs(self.sbc_shift):.1f} "
                f"standard deviations, with errors {math.sqrt(self.sbc_variance):.1f} times as large as "
                "their widths say. Do not use them: train longer, or compose fewer items."
            )
        elif self.calibrated and self.bias_shift > _BIAS and self.sbc_p_value < _DOUBTED:
            reasons.append(
                f"The calibration moved the posterior by {self.bias_shift:.1f} of its standard deviations, "
                f"and the test of the calibrated one is not clean (p = {self.sbc_p_value:.2g}): train "
                "longer, or compose fewer items."
            )
        if not 1 / _WIDTH_RATIO < self.width_ratio < _WIDTH_RATIO and not math.isnan(self.width_ratio):
            reasons.append(
                f"The calibrated posterior is {self.width_ratio:.1f} times as wide as that of the network's "
                "scores: one of them does not see what the items tell, as where their range depends on the "
                "parameters."
            )
        if self.contradiction < _CONTRADICTION and self.influence > _INFLUENCE:
            reasons.append(
                f"Item {self.least_typical + 1} of {self.num_items} is contradicted by the others (p = "
                f"{self.contradiction:.2g}): it is far out among simulations of the composed parameters, "
                "where the network has seen little, so that the posterior may be off by some tenths of its "
                "standard deviations. Look at that item by itself, and at whether all are of the same "
                "parameters."
            )
        if self.explained < EXPLAINED:
            reasons.append(
                f"The polynomial log density explains {self.explained:.3f} of the composed score: the "
                "posterior is far from the shapes that it can take, or the scores are noisy. Compare with "
                "method='gauss'."
            )
        if self.last_step > _LAST_STEP:
            reasons.append(
                f"The mode was not found: Newton's last step was {self.last_step:.2g} posterior "
                "standard deviations long."
            )
        if self.acceptance < _ACCEPTED:
            reasons.append(
                f"Only {self.acceptance:.0%} of the steps of the draws were accepted: they may not "
                "have mixed."
            )
        return tuple(reasons)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON, which has no NaN: numbers that the method does not have are None."""
        return {name: _finite(value) for name, value in asdict(self).items()} | {
            "warnings": list(self.warnings)
        }


def _finite(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_finite(part) for part in value]
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
