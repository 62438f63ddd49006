"""Gaussian preconditioning: a denoiser that learns the rest of a posterior beside a Gaussian head.

Its score stays right as the noise goes to zero.

A head gives a Gaussian N(m, C) for each conditions. With noise of sd s in theta_s = theta_0 + s z, and A = C
+ s^2 I,

    u = A^(-1/2) (theta_s - m),      c = C^(1/2) A^(-1/2),      k = s A^(-1/2)        so that  c^2 + k^2 = I
    v = c z - k C^(-1/2) (theta_0 - m),       theta_0 = m + C^(1/2) (c u - k v)

Were theta_0 from N(m, C), u and v would be independent and of unit variance, and there would be nothing to
learn. The network F predicts v = k F. The score of theta_s is then -A^(-1/2) (u + c F), in which no 1 / s
multiplies an error of F, as it does where the noise itself or a velocity is predicted. Compositional
inference needs that: it adds up scores at small noise, and what they share of errors.

Scaling of inputs and targets as by T. Karras et al., arXiv:2206.00364, with the covariance of each posterior
in place of the variance of the data. The loss is (k F - v)^2 / (k^2 + d^2), the squared error of F where k is
above d; its noise grows like 1 / k, unless every theta is taken with the noise z and with -z (antithetic),
whose parts of order 1 / k cancel.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sbi_models.networks.diffusion.denoiser import network_time
from sbi_models.networks.diffusion.schedules import Schedule
from sbi_models.networks.layers.mlp import MLP

HEAD_WIDTHS = (64, 64)
_SMALLEST_SD = 1e-4
_SOFTPLUS_OF_ONE = 0.5413
_FLOOR = 0.1
"""d above: noise in units of the posterior's sd below which errors count no more than in proportion."""


class Frame(NamedTuple):
    """Gaussian in its principal axes: mean (..., d), variances (..., d), axes as columns (..., d, d)."""

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def rotated(self, vectors: Tensor) -> Tensor:
        """Vectors (..., d) in the principal axes."""
        return (self.axes.mT @ vectors[..., None])[..., 0]

    def back(self, vectors: Tensor) -> Tensor:
        """Vectors (..., d) from the principal axes to the axes of theta."""
        return (self.axes @ vectors[..., None])[..., 0]


class GaussianDenoiser(nn.Module):
    """A subnet with the preconditioning above; theta in standardized space.

    Args:
        field: a `Subnet` of (u and theta_s / sqrt(1 + s^2) side by side, conditions, time), twice as wide in
            as out.
        schedule: schedule of the noise.
        theta_dim: d, width of theta.
        condition_dim: width of the conditions.
    """

    def __init__(self, field: nn.Module, schedule: Schedule, theta_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.field, self.schedule, self.theta_dim = field, schedule, theta_dim
        lower = theta_dim * (theta_dim + 1) // 2
        self.head = MLP(max(1, condition_dim), HEAD_WIDTHS, theta_dim + lower)
        last = self.head.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def gaussian(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., d) and lower Cholesky factor of the covariance (..., d, d) of the Gaussian head."""
        if not conditions.shape[-1]:  # one Gaussian for all
            conditions = conditions.new_zeros(*conditions.shape[:-1], 1)
        mean, entries = torch.split(
            self.head(conditions), [self.theta_dim, self.theta_dim * (self.theta_dim + 1) // 2], dim=-1
        )
        sds = nn.functional.softplus(entries[..., : self.theta_dim] + _SOFTPLUS_OF_ONE) + _SMALLEST_SD
        below = entries.new_zeros(*entries.shape[:-1], self.theta_dim, self.theta_dim)
        rows, columns = torch.tril_indices(self.theta_dim, self.theta_dim, -1, device=entries.device)
        below[..., rows, columns] = entries[..., self.theta_dim :]
        return mean, below + torch.diag_embed(sds)

    def negative_log_density(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Negative log density (...) of theta (..., d) under the Gaussian head, up to a constant."""
        mean, factor = self.gaussian(conditions)
        standard = torch.linalg.solve_triangular(factor, (theta - mean)[..., None], upper=False)[..., 0]
        loss: Tensor = standard.square().sum(dim=-1) / 2 + torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(
            dim=-1
        )
        return loss

    def frame(self, conditions: Tensor) -> Frame:
        """Gaussian of the conditions (..., c), without a gradient: the score loss does not move the head."""
        with torch.no_grad():
            mean, factor = self.gaussian(conditions)
            variances, axes = torch.linalg.eigh(factor @ factor.mT)
            return Frame(mean, variances.clamp_min(_SMALLEST_SD**2), axes)

    def forward(self, theta_t: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """Posterior mean of theta_0, (..., d) like theta_t, for t (..., 1) and conditions (..., c)."""
        frame, log_snr = self.frame(conditions), self.schedule.log_snr(t)
        u, v, c, k = self._velocity(theta_t / self.schedule.alpha(t), frame, log_snr, conditions)
        return frame.mean + frame.back(frame.variances.sqrt() * (c * u - k * v))

    def errors(self, theta: Tensor, noise: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """Weighted errors of v in the principal axes, for theta and noise (..., d) at times (..., 1)."""
        frame, log_snr = self.frame(conditions), self.schedule.log_snr(t)
        _, v, c, k = self._velocity(theta + (-log_snr / 2).exp() * noise, frame, log_snr, conditions)
        target = c * frame.rotated(noise) - k * frame.rotated(theta - frame.mean) / frame.variances.sqrt()
        return (v - target) / ((k.square() + _FLOOR**2) / (1 + _FLOOR**2)).sqrt()

    def _velocity(
        self, theta_s: Tensor, frame: Frame, log_snr: Tensor, conditions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u, the predicted v, c and k in the principal axes, at theta_s (..., d) of the scale of theta_0."""
        s = (-log_snr / 2).exp()
        spread = (frame.variances + s.square()).sqrt()
        c, k = frame.variances.sqrt() / spread, s / spread
        u = frame.rotated(theta_s - frame.mean) / spread
        inputs = torch.cat([frame.back(u), theta_s / (1 + s.square()).sqrt()], dim=-1)
        out: Tensor = self.field(inputs, conditions, network_time(log_snr))
        return u, k * frame.rotated(out), c, k
