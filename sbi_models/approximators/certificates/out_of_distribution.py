"""Out-of-distribution scores of observations, with p-values that are exact in finite samples.

Three spaces are looked at: the summaries, as the inference network gets them; statistics that no network has
a say in; and those statistics given the summaries, which is where a network shows that it does not see what
is odd. In each, scores of rarity are learned from some simulations, and the scores of further ones, kept, say
what is usual: the p-value is a rank among them (split conformal inference).

References: Schmitt et al. (2021), Detecting model misspecification in amortized Bayesian inference with
neural networks; Bates et al. (2023), Testing for outliers with conformal p-values.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sbi_models.approximators.certificates.explanations import (
    GIVEN,
    describe_unusual,
    sizes_in_words,
    unusual_statistics,
)
from sbi_models.approximators.certificates.ranks import (
    Sizes,
    alike_by,
    joint_p_values,
    size_groups,
    sizes_far_from,
    unique_sizes,
)
from sbi_models.approximators.certificates.scores import NonconformityScores, OptionalBuffers, Residuals

_NUMBERS_KEPT, _FEWEST_VALUES = 50_000, 100

SPACES = ("summaries", "statistics", "statistics given summaries")


class ObservationFeatures(NamedTuple):
    """Features of n observations.

    Conditions of the inference network (n, d), statistics (n, k) and their names, numbers of elements (n, s)
    of masked inputs and their names, contexts (n, c); float64.
    """

    summaries: Tensor
    statistics: Tensor
    names: tuple[str, ...]
    sizes: Tensor
    sets: tuple[str, ...]
    contexts: Tensor


class OutOfDistributionScores(nn.Module):
    """Nonconformity scores in three spaces, and their calibration.

    The tensors are saved with the approximator, one or two hundred kilobytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.summaries, self.statistics, self.given = (
            NonconformityScores(neighbours=wanted) for wanted in (True, False, False)
        )
        self.residuals = Residuals()
        learned = ("calibration", "stamp", "sizes", "known_sizes", "values")
        self.kept = OptionalBuffers(*learned, "contexts", "context_sds", "context_columns")

    @property
    def is_known(self) -> bool:
        """Whether it has been calibrated; files of earlier versions lack `values`."""
        return self.kept.values is not None

    @property
    def calibration(self) -> Tensor:
        """Scores (n, 7) of held-out simulations, in the same order for all members of an ensemble."""
        calibration = self.kept.calibration
        assert isinstance(calibration, Tensor)
        return calibration

    @property
    def stamp(self) -> int:
        """Tells which simulations those are."""
        stamp = self.kept.stamp
        assert isinstance(stamp, Tensor)
        return int(stamp)

    def fit(self, known: ObservationFeatures, held_out: ObservationFeatures, stamp: int) -> None:
        """Learn the scores from some simulations, and what is usual from others."""
        self.summaries.fit(known.summaries)
        self.statistics.fit(known.statistics)
        self.residuals.fit(
            self.summaries.components(known.summaries), self.statistics.scores(known.statistics)
        )
        self.given.fit(self._given(known))
        self.kept.stamp = torch.tensor(stamp, dtype=torch.int64, device=known.statistics.device)
        self.kept.calibration, self.kept.sizes = self(held_out), held_out.sizes
        self.kept.known_sizes = unique_sizes(torch.cat([known.sizes, held_out.sizes]))
        if held_out.contexts.shape[1]:
            sds = held_out.contexts.std(dim=0)
            self.kept.context_sds = torch.where(sds > 0, sds, torch.ones_like(sds))
            self.kept.contexts = held_out.contexts / self.kept.context_sds
        values = torch.cat([held_out.statistics, self._given(held_out)], dim=1)
        self.kept.values = values[: max(_FEWEST_VALUES, _NUMBERS_KEPT // values.shape[1])]

    def forward(self, points: ObservationFeatures) -> Tensor:
        """Scores (m, 7): three of the summaries, two of each other space."""
        parts = [
            self.summaries(points.summaries),
            self.statistics(points.statistics),
            self.given(self._given(points)),
        ]
        return torch.cat(parts, dim=1)

    def _given(self, points: ObservationFeatures) -> Tensor:
        residuals: Tensor = self.residuals(
            self.summaries.components(points.summaries), self.statistics.scores(points.statistics)
        )
        return residuals

    def sizes(self, points: ObservationFeatures) -> Sizes:
        """Sizes and contexts of the simulations beside those of observations."""
        usual, known, contexts, sds = (
            self.kept.sizes,
            self.kept.known_sizes,
            self.kept.contexts,
            self.kept.context_sds,
        )
        assert isinstance(usual, Tensor)
        assert isinstance(known, Tensor)
        far = sizes_far_from(known, points.sizes)
        if not isinstance(contexts, Tensor) or not isinstance(sds, Tensor):
            contexts, observed = usual[:, :0], points.sizes[:, :0]
        else:
            observed = points.contexts / sds
        return Sizes(alike_by(usual, contexts), alike_by(points.sizes, observed), far)

    def by_space(self, scores: Tensor, sizes: Sizes, ties: Tensor) -> dict[str, Tensor]:
        """The p-value (m,) of each space from scores (m, 7)."""
        widths = [space.columns for space in (self.summaries, self.statistics, self.given)]
        columns = torch.split(torch.arange(scores.shape[1]), widths)
        return {
            name: joint_p_values(
                self.calibration[:, own], scores[:, own], sizes=sizes._replace(out_of_range=None), ties=ties
            )
            for name, own in zip(SPACES, columns, strict=True)
        }

    def unusual(self, points: ObservationFeatures) -> list[tuple[str, ...]]:
        """Unusual statistics of each observation, in words, the plainest and rarest first.

        They are rare among simulations of like size.

        What statistics are given the summaries counts only where these are as those of simulations: beyond,
        nothing is known of it.
        """
        given, numbers = self._given(points), self.kept.sizes
        assert isinstance(numbers, Tensor)
        usual = (self.summaries.scores(points.summaries).abs() <= self.summaries.scores.edge).all(
            dim=1, keepdim=True
        )
        values = torch.cat([points.statistics, given], dim=1)
        scores = torch.cat(
            [self.statistics.scores(points.statistics), torch.where(usual, self.given.scores(given), 0.0)],
            dim=1,
        )
        names = [*points.names, *(name + GIVEN for name in points.names)]
        kept, sizes = self.kept.values, self.sizes(points)
        assert isinstance(kept, Tensor)
        descriptions: list[tuple[str, ...]] = [()] * len(values)
        others = "simulations"
        if points.sets or points.contexts.shape[1]:
            others += " of like size" if not points.contexts.shape[1] else " in a like context"
        for rows, _, near in size_groups(sizes._replace(usual=sizes.usual[: len(kept)])):
            for row, own in zip(
                rows.tolist(), unusual_statistics(names, values[rows], scores[rows], kept[near]), strict=True
            ):
                descriptions[row] = describe_unusual(own, others)
        assert sizes.out_of_range is not None
        for row in sizes.out_of_range.nonzero()[:, 0].tolist():
            descriptions[row] = (
                *sizes_in_words(points.sets, points.sizes[row], numbers),
                *descriptions[row],
            )
        return descriptions
