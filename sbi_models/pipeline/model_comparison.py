"""Comparison of two models on the same simulations: better, equal, worse, or not known."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

from sbi_models import diagnostics
from sbi_models.approximators import Approximator
from sbi_models.approximators.element_likelihood import element_log_likelihood
from sbi_models.errors import DataError
from sbi_models.types import FloatArray, Variables
from sbi_models.workflows.likelihood.implied import is_likelihood

DRAWS = 200
"""Of each posterior, for the energy score of models without a density."""

LOOKS = 2
"""How often simulations are looked at, each time with its part of the level: those of the diagnosis, and as
many as it takes."""

MISSED = 0.05
"""How often a model that is exactly as good may be called neither equal nor better at the second look."""

RESERVE = 1.1
"""On the number of simulations that it takes by the spread of those at hand, which is not known exactly."""

Word = Literal["better", "equal", "equal or better", "not known", "worse"]


@dataclass(frozen=True)
class Comparison:
    """Mean difference of the scores of two models on the same simulations, higher if the first is better.

    Attributes:
        score: "log density", in nats, or "energy score" (its negative), as a share of that of the second
            model.
        difference: mean difference; -inf if the first model has density 0 where the second has not.
        low: lower limit of the mean; each limit is missed with a probability of at most `level` at all looks
            together.
        high: upper limit of the mean.
        margin: a mean above -margin counts as not worse, one between -margin and margin as equal; in units of
            the difference.
        level: probability that each limit is missed with.
        num_simulations: number of simulations that both were scored on.
        sd: standard deviation of the differences.
        impossible: numbers of simulations whose parameters the first model alone, and the second alone, gives
            density 0.
    """

    score: Literal["log density", "energy score"]
    difference: float
    low: float
    high: float
    margin: float
    level: float
    num_simulations: int
    sd: float
    impossible: tuple[int, int] = (0, 0)

    @property
    def word(self) -> Word:
        """The result in a word.

        "better" and "worse" are about the sign of the mean, but what is equal within the margin is equal.
        """
        if self.low > -self.margin:
            if self.high < self.margin:
                return "equal"
            return "better" if self.low > 0 else "equal or better"
        return "worse" if self.high < 0 else "not known"

    @property
    def not_worse(self) -> bool:
        """Whether it is shown that the first model is not worse by the margin."""
        return self.low > -self.margin

    @property
    def wanted(self) -> int:
        """Number of simulations that tell a model that is exactly as good from one off by the margin."""
        quantiles = ndtri(1 - self.level / LOOKS) + ndtri(1 - MISSED / 2)
        return ceil(RESERVE * (float(quantiles) * self.sd / self.margin) ** 2)

    @property
    def is_open(self) -> bool:
        """Whether more simulations would tell more."""
        return (
            self.word in {"not known", "equal or better"}
            and self.impossible[0] == 0
            and self.wanted > self.num_simulations
        )

    def in_words(self, rival: str) -> str:
        """The word, the rival, the estimate, its interval and the margin, in one sentence."""
        heads: dict[Word, str] = {
            "better": f"better than {rival}",
            "equal": f"equal to {rival} within {self._amount(self.margin)}",
            "equal or better": f"equal to or better than {rival}",
            "not known": f"not known whether it is worse than {rival} by more than "
            f"{self._amount(self.margin)}",
            "worse": f"worse than {rival}",
        }
        on = f"on {self.num_simulations} test simulations"
        if self.impossible[0]:
            words = (
                f"it says of {self.impossible[0]} of them that their parameters cannot be, where the "
                "other does not"
            )
            return f"{heads[self.word]}: {self.score} {on}; {words}"
        limits = (
            f"({100 * (1 - self.level):g} % interval {self._signed(self.low)} to {self._signed(self.high)})"
        )
        return (
            f"{heads[self.word]}: {self.score} {self._signed(self.difference)} {self.unit} {limits} "
            f"{on}; the margin is {self.margin:g}"
        )

    @property
    def unit(self) -> str:
        """Of the difference."""
        return "nats" if self.score == "log density" else "of the other's"

    def _amount(self, value: float) -> str:
        return f"{value:g} nats" if self.score == "log density" else f"{value:g} of its energy score"

    @staticmethod
    def _signed(value: float) -> str:
        return f"{round(value, 4) + 0.0:+.4f}"  # no -0.0000


def compare(
    challenger: Approximator,
    champion: Approximator,
    test: Variables,
    seed: int,
    *,
    margin: float = 0.02,
    level: float = 0.01,
) -> Comparison:
    """Compare on simulations: by log density in nats where both have one, else by the energy score of draws.

    Learned likelihoods are compared by the log likelihood of each simulation at its parameters.

    A mean that is off by 0.2 of the posterior's sd costs 0.02 nats, and makes the energy score of one
    parameter worse by a share of 0.02.

    Args:
        challenger: the first model.
        champion: the second model.
        test: simulations that neither was trained on, raw space: name to (n, ...).
        seed: seed of the draws.
        margin: how much worse counts as equal: nats, or that share of the champion's energy score.
        level: probability that a limit of the mean is missed on one side.

    Raises:
        SbiModelsError: if one of them cannot answer for these simulations.
    """
    both = (challenger, champion)
    if all(map(is_likelihood, both)):
        new, old = (element_log_likelihood(model, test) for model in both)
        return compared(new, old, margin=margin, level=level)
    if all(member.has_density for model in both for member in model.members.values()):
        new, old = (np.asarray(model.log_prob(test), dtype=np.float64) for model in both)
        return compared(new, old, margin=margin, level=level)
    losses = [_energy(model, test, seed) for model in both]
    scale = float(losses[1].mean())
    if not (np.isfinite(scale) and scale > 0):
        raise DataError(f"Expected draws of the champion with a spread, got an energy score of {scale:g}.")
    return compared(-losses[0] / scale, -losses[1] / scale, margin=margin, level=level, score="energy score")


def compared(
    new: FloatArray,
    old: FloatArray,
    *,
    margin: float,
    level: float,
    score: Literal["log density", "energy score"] = "log density",
) -> Comparison:
    """The comparison by scores (n,) of two models on the same simulations; -inf where a model has density 0.

    Raises:
        DataError: if scores are no numbers.
    """
    for scores, whose in ((new, "the challenger"), (old, "the champion")):
        if bad := int(np.isnan(scores).sum() + np.isposinf(scores).sum()):
            raise DataError(
                f"Expected scores of {whose} that are numbers, got {bad} of {len(scores)} that are none."
            )
    none_new, none_old = np.isneginf(new), np.isneginf(old)
    alone = none_new ^ none_old  # left out: where the champion alone is impossible, that favours it
    differences = np.subtract(new, old, out=np.zeros(len(new)), where=~none_new & ~none_old)[~alone]
    impossible = int((none_new & alone).sum()), int((none_old & alone).sum())
    mean, sd = (
        (float(differences.mean()), float(differences.std(ddof=1))) if len(differences) > 1 else (0.0, inf)
    )
    low, high = _limits(differences, level / LOOKS)
    if impossible[
        0
    ]:  # the mean is -inf; it is worse if the other has not as many such simulations, by chance
        shown = float(bdtr(impossible[1], sum(impossible), 0.5)) < level / LOOKS
        mean, low, high = -inf, -inf, -inf if shown else inf
    return Comparison(score, mean, low, high, margin, level, len(new), sd, impossible)


def _limits(differences: FloatArray, level: float) -> tuple[float, float]:
    """Limits of the mean of differences (n,), each missed with probability `level`.

    They are the wider of Student's and of those corrected for skewness.

    Differences of log densities are as skewed as chi-square where one model is too narrow: then Student's t
    has a lower limit that is too high. Hall's transformation (J. R. Stat. Soc. B 54, 1992) takes the error of
    order 1 / sqrt(n) out, and is too sure of heavy tails.
    """
    n = len(differences)
    if n < 2:
        return -inf, inf
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    if sd == 0:
        return mean, mean
    quantile = float(-stdtrit(n - 1, level) / np.sqrt(n))
    standard = (differences - mean) / differences.std()
    back = _hall(float((standard**3).mean()), n)
    return mean - sd * max(quantile, back(quantile)), mean + sd * max(quantile, -back(-quantile))


def _hall(skewness: float, n: int) -> Callable[[float], float]:
    """The inverse of Hall's transformation of (mean - true mean) / sd."""

    def back(value: float) -> float:
        shifted = value - skewness / (6 * n)
        if abs(skewness) < 1e-6:
            return shifted
        return float(3 / skewness * (np.cbrt(1 + skewness * shifted) - 1))

    return back


def _energy(model: Approximator, test: Variables, seed: int) -> FloatArray:
    """The energy score (n,) of draws."""
    draws = model.sample(num_samples=DRAWS, conditions=test, seed=seed)
    samples, truth = (
        np.concatenate([values[name] for name in model.inference_names], axis=-1) for values in (draws, test)
    )
    return np.asarray(diagnostics.energy_score(samples, truth), dtype=np.float64)
