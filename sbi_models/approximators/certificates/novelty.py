"""Is an observation like the simulations that an approximator was trained on? A p-value, exact in finite samples, without a simulator.

Three spaces are looked at: the summaries, as the inference network gets them; statistics that no network has a say in; and those statistics
given the summaries, which is where a network shows that it does not see what is odd. In each, scores of rarity are learned from some
simulations, and the scores of further ones, kept, say what is usual: the p-value is a rank among them (split conformal inference).

References: Schmitt et al. (2021), Detecting model misspecification in amortized Bayesian inference with neural networks; Bates et al.
(2023), Testing for outliers with conformal p-values.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sbi_models.approximators.certificates.spaces import Learned, Residuals, Space, joint_p_values

GIVEN = " (given the summaries)"
SPACES = ("summaries", "statistics", "statistics given summaries")


class Points(NamedTuple):
    """What is looked at of n observations: conditions of the inference network (n, d), statistics (n, k) in float64 and their names."""

    summaries: Tensor
    statistics: Tensor
    names: tuple[str, ...]


class Novelty(nn.Module):
    """The scores of three spaces and what is usual of them; its tensors are saved with the approximator, one or two hundred kilobytes."""

    def __init__(self) -> None:
        super().__init__()
        self.summaries, self.statistics, self.given = (Space(neighbours=wanted) for wanted in (True, False, False))
        self.residuals = Residuals()
        self.kept = Learned("calibration", "stamp")

    @property
    def is_known(self) -> bool:
        """Whether it has been learned."""
        return self.kept.calibration is not None

    @property
    def calibration(self) -> Tensor:
        """Scores (n, 7) of simulations that they were not learned from, in the same order for all members of an ensemble."""
        calibration = self.kept.calibration
        assert isinstance(calibration, Tensor)
        return calibration

    @property
    def stamp(self) -> int:
        """Tells which simulations those are."""
        stamp = self.kept.stamp
        assert isinstance(stamp, Tensor)
        return int(stamp)

    def fit(self, known: Points, held_out: Points, stamp: int) -> None:
        """Learn the scores from some simulations, and what is usual from others."""
        self.summaries.fit(known.summaries)
        self.statistics.fit(known.statistics)
        self.residuals.fit(self.summaries.components(known.summaries), self.statistics.scores(known.statistics))
        self.given.fit(self._given(known))
        self.kept.stamp = torch.tensor(stamp, dtype=torch.int64, device=known.statistics.device)
        self.kept.calibration = self(held_out)

    def forward(self, points: Points) -> Tensor:
        """Scores (m, 7): three of the summaries, two of each other space."""
        parts = [self.summaries(points.summaries), self.statistics(points.statistics), self.given(self._given(points))]
        return torch.cat(parts, dim=1)

    def _given(self, points: Points) -> Tensor:
        residuals: Tensor = self.residuals(self.summaries.components(points.summaries), self.statistics.scores(points.statistics))
        return residuals

    def by_space(self, scores: Tensor) -> dict[str, Tensor]:
        """The p-value (m,) of each space from scores (m, 7)."""
        widths = [space.columns for space in (self.summaries, self.statistics, self.given)]
        columns = torch.split(torch.arange(scores.shape[1]), widths)
        return {name: joint_p_values(self.calibration[:, own], scores[:, own]) for name, own in zip(SPACES, columns, strict=True)}

    def unusual(self, points: Points) -> list[list[tuple[str, float]]]:
        """For each observation, its rarest statistics first: a name and its normal score among simulations."""
        alone, given = self.statistics.scores(points.statistics), self.given.scores(self._given(points))
        names = [*points.names, *(name + GIVEN for name in points.names)]
        found = []
        for row in torch.cat([alone, given], dim=1):
            order = row.abs().argsort(descending=True)
            found.append([(names[i], float(row[i])) for i in order.tolist()])
        return found
