"""Laws of the discrete columns of an autoregressive mixture: categories by softmax, counts by intervals.

A count k is the interval from log k to log(k + 1) of a continuous number, which has the mixture of normals
that a continuous column would have:

    p(k | earlier, c) = sum_j w_j [F((log(k + 1) - m_j) / s_j) - F((log(k) - m_j) / s_j)]

with F the distribution function of the standard normal, log 0 = -inf, and +inf above the largest count. So
probabilities sum to 1, the support has no end, and a mean of .3 is as good as one of 1 000. Later columns
read a count as its standardized log(k + 1/2), and a category as an indicator.
"""

import math

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import DiscreteColumns
from sbi_models.networks.layers.grouped import GroupedLinear

_NARROW = 0.05
"""Width of an interval, in sds, below which its probability is taken from the density in its middle."""

_MOST_CLASSES, _LARGEST_COUNT = 1000, 2**24


class DiscreteLaws(nn.Module):
    """Heads of the categories, moments of the counts, and what later columns read of both.

    All are by position in the order of the autoregression; `positions` are in it, too.

    Args:
        columns: the discrete columns of theta: column, "categorical" or "count", and number of categories or
            largest count.
        order: column at each position, (d,).
        width: width of the heads.
        bound: bound of the uniform initial weights.
    """

    is_count: Tensor
    is_class: Tensor
    largest: Tensor
    mean: Tensor
    sd: Tensor
    positions: Tensor
    impossible: Tensor

    def __init__(self, columns: DiscreteColumns, order: Tensor, width: int, bound: float) -> None:
        super().__init__()
        d = len(order)
        place = {int(column): position for position, column in enumerate(order)}
        classes = {place[column]: size for column, kind, size in columns if kind == "categorical"}
        counts = {place[column]: size for column, kind, size in columns if kind == "count"}
        self.has_counts, self.has_classes = bool(counts), bool(classes)
        positions = torch.arange(d)
        self.register_buffer("is_count", _among(positions, counts))
        self.register_buffer("is_class", _among(positions, classes))
        self.register_buffer("largest", torch.tensor([float(counts.get(i, 1)) for i in range(d)]))
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("sd", torch.ones(d))
        if not classes:
            return
        most = max(classes.values())
        self.register_buffer("positions", torch.tensor(sorted(classes)))
        sizes = torch.tensor([classes[position] for position in sorted(classes)])
        self.register_buffer("impossible", torch.arange(most) >= sizes[:, None])
        self.out = GroupedLinear(len(classes), width, most, zero=True)
        self.earlier_weight = nn.Parameter(torch.empty(len(classes), most, d, width).uniform_(-bound, bound))
        self.linear = nn.Parameter(torch.zeros(len(classes), most, d))

    # ---- what later columns read --------------------------------------------

    def numbers(self, theta: Tensor) -> Tensor:
        """Continuous columns as they are, counts as standardized logarithms, categories as 0; (..., d)."""
        logs = ((theta.round().clamp(min=0) + 0.5).log() - self.mean) / self.sd
        return torch.where(self.is_class, 0.0, torch.where(self.is_count, logs, theta))

    def indicators(self, theta: Tensor) -> Tensor:
        """Indicators (n, m, C) of the categories of m columns in theta (n, d)."""
        size = self.impossible.shape[1]
        chosen = theta[:, self.positions].round().clamp(0, size - 1)
        return (chosen[..., None] == torch.arange(size, device=theta.device)).to(theta.dtype)

    def linear_parts(self, indicators: Tensor) -> Tensor:
        """What categories add to the linear parts of later columns: (n, m, C) to (n, d)."""
        weight = self.linear * self._later()[:, None]
        return indicators.flatten(1) @ weight.flatten(0, 1)

    def hidden_parts(self, indicators: Tensor) -> Tensor:
        """What categories add to the inputs of the heads of later columns: (n, m, C) to (n, d * width)."""
        weight = self.earlier_weight * self._later()[:, None, :, None]
        return indicators.flatten(1) @ weight.flatten(0, 1).flatten(1)

    def _later(self) -> Tensor:
        """1 where a column (d) comes after a categorical one (m), (m, d)."""
        every = torch.arange(len(self.is_class), device=self.positions.device)
        return (every > self.positions[:, None]).to(self.linear.dtype)

    # ---- probabilities ------------------------------------------------------

    def log_prob(
        self,
        theta: Tensor,
        hidden: Tensor,
        *,
        mixture: tuple[Tensor, Tensor, Tensor],
        rest: Tensor,
        log_scale: Tensor,
        continuous: Tensor,
    ) -> Tensor:
        """Log density of all columns in nats, (n,).

        Args:
            theta: ordered values (n, d).
            hidden: output of the heads (d, n, width).
            mixture: log weights, means and log sds (d, n, components) in units of residuals.
            rest: residuals (n, d) of the `numbers`.
            log_scale: log of the unit of the residuals (d,).
            continuous: log densities (d, n) of the columns as continuous ones.
        """
        total = continuous
        if self.has_counts:
            counts = self._log_prob_of_counts(theta, mixture, rest, log_scale)
            total = torch.where(self.is_count[:, None], counts, total)
        summed = torch.where(self.is_class[:, None], 0.0, total).sum(dim=0)
        if self.has_classes:
            logs = self.class_logs(self.out(hidden[self.positions]))
            chosen = self.indicators(theta).transpose(0, 1)
            summed = summed + torch.where(chosen > 0, logs, 0.0).sum(dim=(0, 2))
        return summed

    def _log_prob_of_counts(
        self, theta: Tensor, mixture: tuple[Tensor, Tensor, Tensor], rest: Tensor, log_scale: Tensor
    ) -> Tensor:
        """Log probabilities (d, n) of all columns as counts."""
        log_weights, means, log_sds = mixture
        counts = torch.where(self.is_count, torch.minimum(theta.round().clamp(min=0), self.largest), 1.0)
        unit = torch.where(self.is_count, (-log_scale).exp() / self.sd, 1.0)
        rest = torch.where(self.is_count, rest, 0.0)
        lower = rest + (counts.clamp(min=1).log() - (counts + 0.5).log()) * unit
        upper = rest + (1 / (2 * counts + 1)).log1p() * unit
        width = counts.clamp(min=1).reciprocal().log1p() * unit
        lower, upper, width = (part.T[..., None] for part in (lower, upper, width))
        terms = _log_mass(
            lower,
            upper,
            width,
            means,
            log_sds,
            lowest=(counts == 0).T[..., None],
            highest=(counts == self.largest).T[..., None],
        )
        logs: Tensor = (log_weights + terms).logsumexp(dim=-1)
        return logs

    def class_logs(self, raw: Tensor, among: Tensor | int = slice(None)) -> Tensor:  # type: ignore[assignment]
        """Log probabilities of categories, from the output of their heads (m, ..., C)."""
        impossible = self.impossible[among]
        shape = impossible.shape[:-1] + (1,) * (raw.ndim - impossible.ndim) + impossible.shape[-1:]
        return raw.masked_fill(impossible.reshape(shape), -torch.inf).log_softmax(dim=-1)

    # ---- start --------------------------------------------------------------

    @torch.no_grad()
    def learn(self, theta: Tensor) -> None:
        """Take moments of counts, and frequencies of categories, from ordered training data (n, d)."""
        logs = (theta.to(torch.float64).round().clamp(min=0) + 0.5).log()
        sd = logs.std(dim=0, correction=0)
        self.mean.copy_(torch.where(self.is_count, logs.mean(dim=0), 0.0))
        self.sd.copy_(torch.where(self.is_count & (sd > 1e-6), sd, 1.0))
        if self.has_classes:
            shares = self.indicators(theta).mean(dim=0)
            self.out.bias.copy_((shares + 1 / len(theta)).log()[:, None])

    def earlier_indicators(self, theta: Tensor, position: int) -> Tensor:
        """Indicators of the categories before a position, side by side, of ordered theta (n, d)."""
        if not self.has_classes:
            return theta[:, :0]
        return self.indicators(theta)[:, self.positions < position].flatten(1)

    @torch.no_grad()
    def start_linear(self, position: int, weights: Tensor) -> None:
        """Take weights of these indicators for the linear part of the column at a position."""
        if self.has_classes:
            earlier = self.positions < position
            self.linear[earlier, :, position] = weights.reshape(int(earlier.sum()), self.linear.shape[1]).to(
                self.linear.dtype
            )


class DrawnLaws:
    """Discrete columns while they are drawn, one position after the other.

    Args:
        laws: the laws.
        like: draws to come, (n, num_samples, d).
    """

    def __init__(self, laws: DiscreteLaws, like: Tensor) -> None:
        self.laws, self.numbers, self.drawn = laws, torch.zeros_like(like), torch.zeros_like(like)
        self.counts = laws.is_count.tolist()
        self.classes = (
            {position: number for number, position in enumerate(laws.positions.tolist())}
            if laws.has_classes
            else {}
        )
        self.indices: dict[int, Tensor] = {}

    def hidden_part(self, position: int) -> Tensor | float:
        """What earlier categories add to the inputs of the head at a position, (n, num_samples, width)."""
        return sum(
            (self.laws.earlier_weight[number, :, position][index] for number, index in self.indices.items()),
            start=0.0,
        )

    def linear_part(self, position: int) -> Tensor | float:
        """What earlier categories add to the linear part at a position, (n, num_samples)."""
        return sum(
            (self.laws.linear[number, :, position][index] for number, index in self.indices.items()),
            start=0.0,
        )

    def draw_class(self, position: int, hidden: Tensor, chance: Tensor) -> bool:
        """Draw a category by hidden units and uniform numbers, if there is one at the position."""
        if position not in self.classes:
            return False
        number = self.classes[position]
        logs = self.laws.class_logs(self.laws.out.one(number, hidden), number)
        last = int((~self.laws.impossible[number]).sum()) - 1
        below = logs.exp().cumsum(dim=-1)[..., :last] < chance[..., None]
        self.indices[number] = below.sum(dim=-1)
        self.drawn[..., position] = self.indices[number].to(hidden.dtype)
        return True

    def draw_count(self, position: int, number: Tensor) -> bool:
        """Take a count by its standardized logarithm, if there is one at the position."""
        if not self.counts[position]:
            return False
        laws, highest = self.laws, self.laws.largest[position]
        logs = torch.minimum(number * laws.sd[position] + laws.mean[position], highest.log() + 1)
        count = torch.minimum(logs.exp().floor(), highest)
        self.drawn[..., position] = count
        self.numbers[..., position] = ((count + 0.5).log() - laws.mean[position]) / laws.sd[position]
        return True

    def values(self, theta: Tensor) -> Tensor:
        """The draws (n, num_samples, d): these columns, and the continuous ones of theta."""
        return torch.where(self.laws.is_count | self.laws.is_class, self.drawn, theta)


def check_columns(columns: DiscreteColumns, theta_dim: int) -> None:
    """Raise ConfigurationError unless discrete columns, as a file may hold them, are ones of theta."""
    seen = set()
    for column, kind, size in columns:
        most = {"categorical": _MOST_CLASSES, "count": _LARGEST_COUNT}.get(kind, 0)
        if column in seen or not 0 <= column < theta_dim or not 1 <= size <= most:
            raise ConfigurationError(
                f"Expected discrete columns below {theta_dim}, each once, 'categorical' with up to "
                f"{_MOST_CLASSES} categories or 'count' up to {_LARGEST_COUNT}, got {columns!r}."
            )
        seen.add(column)


def _among(positions: Tensor, chosen: dict[int, int]) -> Tensor:
    return torch.tensor([int(position) in chosen for position in positions])


def _log_mass(
    lower: Tensor,
    upper: Tensor,
    width: Tensor,
    means: Tensor,
    log_sds: Tensor,
    *,
    lowest: Tensor,
    highest: Tensor,
) -> Tensor:
    """Log probability that a normal gives to an interval, which has no end if it is the lowest or highest.

    The width, upper - lower, is given apart, since for large counts it is below the rounding of both.
    """
    inverse = (-log_sds).exp()
    a, b, w = (lower - means) * inverse, (upper - means) * inverse, width * inverse
    flip = a + b > 0
    near, far = (_log_cdf(torch.where(flip, *pair)) for pair in ((-a, b), (-b, a)))
    wide = w > _NARROW
    gap = torch.where(wide & (near > far), far - near, -1.0)
    between = near + (-torch.expm1(gap)).log()
    middle = (a + b) / 2
    tilt = (middle * w).abs()
    steep = tilt > 0.1
    safe = torch.where(steep, tilt, 1.0)
    correction = torch.where(steep, safe / 2 + (-torch.expm1(-safe)).log() - safe.log(), tilt.square() / 24)
    narrow = (
        correction
        - 0.5 * middle.square()
        - 0.5 * math.log(2 * math.pi)
        + torch.where(wide, 1.0, w).log()
        - w.square() / 24
    )
    inside = torch.where(wide, between, narrow)
    ends = _log_cdf(torch.where(lowest, b, -a))
    return torch.where(lowest & highest, 0.0, torch.where(lowest | highest, ends, inside))


def _log_cdf(x: Tensor) -> Tensor:
    """Log of the standard normal distribution function; vmap cannot batch `torch.special.log_ndtr`."""
    low = x < -1
    tail = (0.5 * torch.special.erfcx(torch.where(low, -x, 0.0) / math.sqrt(2))).log() - 0.5 * x.square()
    bulk = (-0.5 * torch.special.erfc(torch.where(low, 0.0, x) / math.sqrt(2))).log1p()
    return torch.where(low, tail, bulk)
