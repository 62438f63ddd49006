"""Nonconformity scores relative to training simulations (larger is more atypical).

What they mean is for others to say, by comparing a point's scores with those of simulations that they were
not learned from.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

_KNOTS = 33
_MOST_COMPONENTS = 32
_ROWS_A_COMPONENT = 10
_SMALLEST_VARIANCE = 1e-6
_REFERENCE_NUMBERS = 10_000
_MOST_REFERENCES = 1_000
_NEIGHBOURS = 5
_MOST_PREDICTORS = 6
_REACH = 4.0
_RIDGE = 1e-3
_ROUNDING = 1e-5
_TINY = 1e-12
_SMALLEST_RESIDUAL_VARIANCE = 1e-4
_STEPS = 1e3


class OptionalBuffers(nn.Module):
    """Module with optional buffers of any size; buffers missing from a state dict load as None."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.register_buffer(name, None)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, old in self._buffers.items():
            value = state_dict.get(prefix + name)
            setattr(
                self,
                name,
                None if value is None else value.detach().clone().to("cpu" if old is None else old.device),
            )


class NormalScores(OptionalBuffers):
    """Normal scores of d numbers by their ranks among simulations, linear between knots and beyond.

    Ties have the mid-rank.
    """

    knots: Tensor
    scores: Tensor

    def __init__(self) -> None:
        super().__init__("knots", "scores")

    def fit(self, values: Tensor) -> None:
        """Fit to values (n, d), float64, n >= 2."""
        edge = torch.special.ndtri(torch.tensor(1 - 0.5 / len(values), dtype=torch.float64))
        self.scores = (torch.linspace(-1, 1, _KNOTS, dtype=torch.float64) * edge).to(values.device)
        self.knots = torch.quantile(values, torch.special.ndtr(self.scores), dim=0).mT.contiguous()

    def forward(self, values: Tensor) -> Tensor:
        """Values (m, d) to scores (m, d), about standard normal for simulations."""
        knots, scores = self.knots, self.scores
        inside = (self._inside(values, right=True) + self._inside(values, right=False)) / 2
        middle, lowest, highest = knots[:, _KNOTS // 2], knots[:, 0], knots[:, -1]
        least = _ROUNDING * knots.abs().amax(dim=1) + _TINY  # steps of a constant number that are rounding
        above = (values - highest).clamp_min(0) / torch.maximum((highest - middle) / scores[-1], least)
        below = (lowest - values).clamp_min(0) / torch.maximum((middle - lowest) / scores[-1], least)
        return inside + above - below

    @property
    def edge(self) -> float:
        """The score of the largest value that the scores were learned from."""
        return float(self.scores[-1])

    def _inside(self, values: Tensor, *, right: bool) -> Tensor:
        """Scores of values between the knots; where several knots are equal, the highest or lowest."""
        knots, scores = self.knots, self.scores
        above = torch.searchsorted(knots, values.mT.contiguous(), right=right).clamp(1, _KNOTS - 1).mT
        low, high = (knots.gather(1, at.mT).mT for at in (above - 1, above))
        flat = high == low
        share = ((values - low) / torch.where(flat, 1.0, high - low)).clamp(0, 1)
        share = torch.where(flat, float(right), share)
        inside: Tensor = scores[above - 1] + share * (scores[1] - scores[0])
        return inside


class NonconformityScores(nn.Module):
    """Nonconformity scores in a space of d numbers: extremes, Mahalanobis distance, nearest neighbours.

    The numbers are taken to normal scores first, so that neither units nor heavy tails matter.

    Args:
        neighbours: whether to look at them: where simulations lie on a curved surface, as learned summaries
            may, nothing else tells.
    """

    def __init__(self, *, neighbours: bool) -> None:
        super().__init__()
        self.neighbours, self.columns = neighbours, 3 if neighbours else 2
        self.scores = NormalScores()
        self.learned = OptionalBuffers("mean", "axes", "reference")

    def fit(self, values: Tensor) -> None:
        """Fit to values (n, d) of simulations, float64."""
        self.scores.fit(values)
        z = self.scores(values)
        mean = z.mean(dim=0)
        variances, vectors = torch.linalg.eigh((z - mean).mT @ (z - mean) / len(z))
        most = max(1, min(_MOST_COMPONENTS, z.shape[1], len(z) // _ROWS_A_COMPONENT))
        largest = variances.argsort(descending=True)[:most]
        scale = variances[largest].clamp_min(_SMALLEST_VARIANCE * variances.max().clamp_min(_TINY)).sqrt()
        self.learned.mean, self.learned.axes = mean, vectors[:, largest] / scale
        if self.neighbours:
            references = max(_NEIGHBOURS + 1, min(_MOST_REFERENCES, _REFERENCE_NUMBERS // most, len(z)))
            self.learned.reference = self.components(values[:references])

    def components(self, values: Tensor) -> Tensor:
        """Values (m, d) to uncorrelated numbers of unit variance (m, r), those that vary most first."""
        components: Tensor = (self.scores(values) - self.learned.mean) @ self.learned.axes
        return components

    def forward(self, values: Tensor) -> Tensor:
        """Scores (m, columns) of values (m, d): largest number, distance from the middle, from neighbours."""
        components = self.components(values)
        columns = [self.scores(values).abs().amax(dim=1), components.square().mean(dim=1).sqrt()]
        if self.neighbours:
            reference = self.learned.reference
            assert isinstance(reference, Tensor)
            distances = torch.cdist(components, reference)
            columns.append(
                distances.topk(min(_NEIGHBOURS, distances.shape[1]), largest=False).values.mean(dim=1)
            )
        return (
            torch.stack(columns, dim=1) * _STEPS
        ).round() / _STEPS  # equal data are ties, whatever the rounding of the networks


class Residuals(OptionalBuffers):
    """Standardized residuals of statistics given summaries: (statistic - mean) / sd, both given summaries.

    Mean and log variance are polynomials of the second degree of the components of the summaries that vary
    most, by least squares.
    """

    means: Tensor
    log_variances: Tensor

    def __init__(self) -> None:
        super().__init__("means", "log_variances")

    def fit(self, components: Tensor, scores: Tensor) -> None:
        """Fit to components of summaries (n, r) and normal scores of statistics (n, d) of simulations."""
        terms = _terms(components)
        self.means = _least_squares(terms, scores)
        logs = ((scores - terms @ self.means) ** 2 + _SMALLEST_RESIDUAL_VARIANCE).log()
        self.log_variances = _least_squares(terms, logs)

    def forward(self, components: Tensor, scores: Tensor) -> Tensor:
        """Standardized residuals (m, d)."""
        terms = _terms(components)
        logs = (terms @ self.log_variances).clamp(math.log(_SMALLEST_RESIDUAL_VARIANCE), 30)
        residuals: Tensor = (scores - terms @ self.means) * (-logs / 2).exp()
        return residuals


def _terms(components: Tensor) -> Tensor:
    """Second-degree polynomials (m, k) of the leading components (m, r), which are clipped."""
    w = components[:, :_MOST_PREDICTORS].clamp(-_REACH, _REACH)
    first, second = torch.triu_indices(w.shape[1], w.shape[1])
    return torch.cat([torch.ones_like(w[:, :1]), w, w[:, first] * w[:, second]], dim=1)


def _least_squares(terms: Tensor, targets: Tensor) -> Tensor:
    gram = terms.mT @ terms
    solution: Tensor = torch.linalg.solve(
        gram + _RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), terms.mT @ targets
    )
    return solution
