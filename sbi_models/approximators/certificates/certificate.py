"""Certificate of one observation: p-values of its tests, verdict, and reasons in plain words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sbi_models.errors import ConfigurationError

LEVEL = 0.05
"""Share of false alarms: of observations that are drawn like the simulations, all tests together fail at most
so many."""

LARGEST_PARETO_K = 0.7
"""Beyond it, importance weights have too heavy a tail for means over them to be of use; Vehtari et al.
(2024)."""

SMALLEST_SHARE, LARGE_SHARE = 0.1, 0.5
"""Draws of which the exact posterior has less use than the first fail; with a heavy tail of weights, less
than the second."""

LARGEST_WEIGHT = 0.25
"""A draw with more of the weight is no end of a tail that smoothing may shorten; that of a thousand draws
with a tail of k 0.5 has 0.03."""

NOT_KNOWN = (
    "Not known: the approximator cannot tell what its simulations were like. It was saved by an earlier "
    "version, or trained on fewer than 200 simulations, or its training was interrupted. Train again."
)


@dataclass(frozen=True)
class Certificate:
    """Tests of the posterior of one observation; None where a test could not be made.

    Attributes:
        novelty: out-of-distribution p-value of the observation among the training simulations, in all spaces
            together.
        spaces: the p-values of each space: summaries, statistics that depend on no network, and the
            statistics given the summaries.
        unusual: the statistics with the rarest values, in words; rarest first.
        disagreement: disagreement of the members of an ensemble, in nats: the mean divergence of a member
            from their mixture, both taken as normal, of the parameter for which it is largest.
        agreement: p-value of the disagreement among simulations.
        predictive: p-value of the observation among data that are simulated from its posterior, calibrated by
            simulations.
        predictive_unusual: as `unusual`, against the data simulated from the posterior.
        effective_sample_size: share of the draws, from 0 to 1, that are worth as much as draws of the exact
            posterior, by smoothed weights.
        raw_effective_sample_size: the same by the weights as they are: far less, if single draws have much of
            the weight.
        largest_weight: share of the weight, as it is, that the heaviest draw has.
        pareto_k: tail index of the importance weights of the draws.
        together: p-value of all tests at once, by one rank among simulations that were put to all of them;
            None where there is only one test, or where they are corrected for their number instead.
        level: false alarm rate of all tests together; see `LEVEL`.
    """

    novelty: float | None = None
    spaces: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    unusual: tuple[str, ...] = ()
    disagreement: float | None = None
    agreement: float | None = None
    predictive: float | None = None
    predictive_unusual: tuple[str, ...] = ()
    effective_sample_size: float | None = None
    raw_effective_sample_size: float | None = None
    largest_weight: float | None = None
    pareto_k: float | None = None
    together: float | None = None
    level: float = LEVEL

    @property
    def p_value(self) -> float | None:
        """P-value of all tests together: of one joint rank, else Bonferroni's, at most 1."""
        p_values = self._p_values
        if self.together is not None:
            return self.together
        return min(1.0, len(p_values) * min(p_values)) if p_values else None

    @property
    def trusted(self) -> bool:
        """Whether there were tests of the observation, and it has passed all."""
        return not self.warnings

    @property
    def verdict(self) -> str:
        """One of "passed", "failed" and "not known"."""
        if self.trusted:
            return "passed"
        return "not known" if self.warnings == (NOT_KNOWN,) else "failed"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the posterior should not be trusted, in plain words; nothing if all is well."""
        reasons = []
        if self.novelty is not None and self._fails(self.novelty):
            odd = "" if not self.unusual else ": " + "; ".join(self.unusual)
            reasons.append(
                "The observation is unlike the simulations of the training (p = "
                f"{p_in_words(self.novelty, self.level)}){odd}."
            )
        if self.agreement is not None and self._fails(self.agreement):
            reasons.append(
                "The members of the ensemble disagree more than on simulations (p = "
                f"{p_in_words(self.agreement, self.level)})."
            )
        if self.predictive is not None and self._fails(self.predictive):
            odd = "" if not self.predictive_unusual else ": " + "; ".join(self.predictive_unusual)
            reasons.append(
                "Data simulated from the posterior are unlike the observation (p = "
                f"{p_in_words(self.predictive, self.level)}){odd}."
            )
        k, share = self.pareto_k, self.effective_sample_size
        if (
            k is not None
            and share is not None
            and share < (LARGE_SHARE if k > LARGEST_PARETO_K else SMALLEST_SHARE)
        ):
            mends = (
                "importance weights cannot correct them"
                if k > LARGEST_PARETO_K
                else "importance weights correct them"
            )
            reasons.append(
                f"The draws are far from the exact posterior: their effective sample size is {share:.1%}; "
                f"{mends} (Pareto k {k:.2f})."
            )
        elif self._hides_a_mode:
            reasons.append(
                f"One of the draws has {self.largest_weight:.1%} of the weight: "
                f"{self.raw_effective_sample_size:.1%} of them are of use before the weights are smoothed, "
                f"{share:.1%} after (Pareto k {k:.2f}). The approximator may miss a part of the exact "
                "posterior."
            )
        if not self._p_values and self.pareto_k is None:
            reasons.append(NOT_KNOWN)
        return tuple(reasons)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "verdict": self.verdict,
            "trusted": self.trusted,
            "p_value": self.p_value,
            "novelty": self.novelty,
            "spaces": dict(self.spaces),
            "unusual": list(self.unusual),
            "disagreement": self.disagreement,
            "agreement": self.agreement,
            "predictive": self.predictive,
            "predictive_unusual": list(self.predictive_unusual),
            "effective_sample_size": self.effective_sample_size,
            "raw_effective_sample_size": self.raw_effective_sample_size,
            "largest_weight": self.largest_weight,
            "pareto_k": None if self.pareto_k == float("inf") else self.pareto_k,
            "level": self.level,
            "warnings": list(self.warnings),
        }

    @property
    def _hides_a_mode(self) -> bool:
        """Whether single draws have more weight than smoothing leaves them: a mode may be missed."""
        raw, largest = self.raw_effective_sample_size, self.largest_weight
        return raw is not None and largest is not None and (raw < SMALLEST_SHARE or largest > LARGEST_WEIGHT)

    @property
    def _p_values(self) -> list[float]:
        return [p for p in (self.novelty, self.agreement, self.predictive) if p is not None]

    def _fails(self, p: float) -> bool:
        """Whether a test fails: by itself with a joint rank, or as the one that comes nearest to it."""
        if self.together is None:
            return p * len(self._p_values) <= self.level
        return self.together <= self.level and p <= max(self.level, min(self._p_values))


def p_in_words(p: float, level: float = LEVEL) -> str:
    """Two digits of a p-value, or as many as show on which side of the level it is.

    >>> p_in_words(0.0321), p_in_words(0.0497), p_in_words(0.05)
    ('0.032', '0.0497', '0.05')
    """
    for digits in range(2, 17):
        text = f"{p:.{digits}g}"
        shown = float(text)
        if ((shown <= level), (shown == level)) == ((p <= level), (p == level)):
            return text
    return repr(p)


def check_level(level: float) -> float:
    """The level as a float; ConfigurationError unless it lies strictly between 0 and 1."""
    try:
        value = 0.0 if isinstance(level, bool | str) else float(level)
    except TypeError:
        value = 0.0
    if not 0 < value < 1:
        raise ConfigurationError(
            f"Expected level, the share of false alarms, strictly between 0 and 1, got {level!r}. "
            "Pass for instance 0.05."
        )
    return value
