"""What a polynomial regression misses: the means of its residuals in cells of theta, smoothed, and what even they leave.

Simulations are parted into cells of equal numbers by splits at medians. From the means r_c of residuals in the cells and their variances
v_c, the local mean at theta is a weighted linear fit around it, with weights exp(-|theta - theta_c|^2 / (2 h^2)) / v_c. The bandwidth h is
that of the smallest error of cells that are left out, and none where the residuals are best taken for zero: W. S. Cleveland and
S. J. Devlin, Locally weighted regression, Journal of the American Statistical Association 83, 1988. What the left-out errors have more of
than their noise is misfit.
"""

import math

import torch
from torch import Tensor, nn

_MOST_SPLITS, _CELL = 11, 150
"""Cells are 2^splits, of at least so many simulations."""

_FEWEST_CELLS = 32

_BANDWIDTHS = (1.6, 0.8, 0.4, 0.2)
"""In sds of theta; 0 is no local mean."""

_RIDGE = 1e-3
"""In squared bandwidths: next to no cell there is no slope."""


class LocalMeans(nn.Module):
    """The smoother above for each of several residuals; its tensors are saved with the approximator. Before a fit it is zero.

    Args:
        theta_dim: d.
    """

    places: Tensor
    means: Tensor
    variances: Tensor
    bandwidths: Tensor
    misfits: Tensor
    count: Tensor

    def __init__(self, theta_dim: int) -> None:
        super().__init__()
        for name in ("places", "means", "variances"):
            self.register_buffer(name, torch.zeros(2**_MOST_SPLITS, theta_dim, dtype=torch.float64))
        for name in ("bandwidths", "misfits"):
            self.register_buffer(name, torch.zeros(theta_dim, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def fit(self, theta: Tensor, residuals: Tensor) -> None:
        """From theta (N, d), of about unit variance, and residuals (N, d) of mean zero if there is nothing to add, float64."""
        splits = min(_MOST_SPLITS, int(math.log2(max(len(theta) // _CELL, 1))))
        cells = _cells(theta, splits)
        count = len(cells) if len(cells) >= _FEWEST_CELLS else 0
        self.count.fill_(count)
        if not count:
            return
        own = residuals[cells]
        self.places[:count] = theta[cells].mean(dim=1)
        self.means[:count] = own.mean(dim=1)
        self.variances[:count] = own.var(dim=1).clamp_min(1e-300) / cells.shape[1]
        for j in range(residuals.shape[1]):
            self._choose(j)

    def _choose(self, j: int) -> None:
        """The bandwidth of a residual, by errors at cells that are left out, and how much larger those are than their noise."""
        places, means, variances = self.places[: self.count], self.means[: self.count, j], self.variances[: self.count, j]
        best = math.inf
        for bandwidth in (0.0, *_BANDWIDTHS):
            fitted, noise = self._smoothed(places, j, bandwidth, leave_out=True)
            error = float(((means - fitted).square() / variances).mean())
            if error < best:
                best = error
                self.bandwidths[j] = bandwidth
                excess = ((means - fitted).square() / (variances + noise)).mean() - 1
                self.misfits[j] = (excess - 2 * math.sqrt(2 / len(means))).clamp_min(0)

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At theta (m, d): local means (m, d), their variances, and the variance of misfit that is left (m, d).

        Where no local mean is better than one, it is 0, and so is its variance.
        """
        if not self.count:
            return tuple(torch.zeros_like(theta) for _ in range(3))  # type: ignore[return-value]
        columns = []
        nearest = torch.cdist(theta, self.places[: self.count]).argmin(dim=1)
        for j in range(theta.shape[1]):
            mean, noise = self._smoothed(theta, j, float(self.bandwidths[j]))
            columns.append((mean, noise, self.misfits[j] * self.variances[nearest, j]))
        means, noises, misfits = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
        return means, noises, misfits

    def _smoothed(self, theta: Tensor, j: int, bandwidth: float, *, leave_out: bool = False) -> tuple[Tensor, Tensor]:
        """The local mean at theta (m, d) and its variance, (m,) each; theta are the cells themselves if each is left out at its own."""
        if not bandwidth:
            return theta.new_zeros(len(theta)), theta.new_zeros(len(theta))
        places, means, variances = self.places[: self.count], self.means[: self.count, j], self.variances[: self.count, j]
        fitted, noise = [], []
        for start in range(0, len(theta), 256):
            rows = theta[start : start + 256]
            away = (places - rows[:, None, :]) / bandwidth
            logs = -away.square().sum(dim=-1) / 2 - variances.log()
            if leave_out:
                logs[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = -math.inf
            weights = torch.softmax(logs, dim=1)
            center = torch.einsum("qc,qck->qk", weights, away)
            away = away - center[:, None, :]
            spread = torch.einsum("qc,qck,qcl->qkl", weights, away, away) + _RIDGE * torch.eye(away.shape[-1], dtype=away.dtype)
            slope = torch.linalg.solve(spread, -center[..., None])[..., 0]
            own = weights * (1 + torch.einsum("qk,qck->qc", slope, away))
            fitted.append(own @ means)
            noise.append(own.square() @ variances)
        return torch.cat(fitted), torch.cat(noise)


def _cells(theta: Tensor, splits: int) -> Tensor:
    """Rows of theta (N, d) parted into 2^splits cells of one size, positions (2^splits, size); a remainder is left out."""
    size = len(theta) >> splits
    cells = torch.arange(size << splits)[None]
    for _ in range(splits):
        values = theta[cells]
        along = values.var(dim=1).argmax(dim=1)
        keys = values.gather(2, along[:, None, None].expand(-1, values.shape[1], 1))[..., 0]
        cells = cells.gather(1, keys.argsort(dim=1)).reshape(2 * len(cells), -1)
    return cells
