"""Increasing maps of one component each, by raw numbers of a network; zeros give the identity.

    affine:  z = exp(s) (theta - m)          spline:  z = spline(exp(s) (theta - m))

The log scale s is bounded, which is what L. Dinh et al., Density estimation using Real NVP, ICLR 2017,
arXiv:1605.08803, do. The affine part before the spline finds the place and the width of a posterior much
narrower than the prior, the spline gives it its form.
"""

from typing import Protocol

from torch import Tensor

from sbi_models.networks.coupling.spline import bounded, spline_forward, spline_inverse, spline_width

_LARGEST_LOG_SCALE = 4.0
"""One transform stretches by less than exp(4) = 55; several in a row reach any narrow posterior, and none
overflows."""

_FORM_GAIN = 0.3
"""Factor on the raw numbers of the spline, so that its form is learned more slowly than place and width.
Without it flows overfit more: on the Gaussian linear model in 10 dimensions, 1000 simulations, 16 epochs, log
p is 2.2 nats below the exact one, and 1.2 with it."""


class Transform(Protocol):
    """Protocol of the increasing map of each component that a coupling changes."""

    width: int
    """Raw numbers of one component."""

    def forward(self, theta: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dtheta, both (..., d), of theta (..., d).

        The leading axes of the raw numbers (..., d, width) may be broadcast.
        """

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """theta and log dtheta/dz, both (..., d), of z (..., d) and the same raw numbers."""


class Affine:
    """Shift and scale."""

    width = 2

    def forward(self, theta: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See `Transform`."""
        log_scale = bounded(raw[..., 0], _LARGEST_LOG_SCALE)
        z = (theta - raw[..., 1]) * log_scale.exp()
        return z, log_scale.expand_as(z)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See `Transform`."""
        log_scale = bounded(raw[..., 0], _LARGEST_LOG_SCALE)
        theta = z * (-log_scale).exp() + raw[..., 1]
        return theta, -log_scale.expand_as(theta)


class AffineSpline:
    """Shift and scale, then a rational-quadratic spline of `bins` bins on [-bound, bound]."""

    def __init__(self, bins: int, bound: float) -> None:
        self.affine, self.bound = Affine(), bound
        self.width = Affine.width + spline_width(bins)

    def forward(self, theta: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See `Transform`."""
        moved, log_scale = self.affine.forward(theta, raw[..., : Affine.width])
        z, log_slope = spline_forward(moved, _FORM_GAIN * raw[..., Affine.width :], self.bound)
        return z, log_scale + log_slope

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """See `Transform`."""
        moved, log_slope = spline_inverse(z, _FORM_GAIN * raw[..., Affine.width :], self.bound)
        theta, log_scale = self.affine.inverse(moved, raw[..., : Affine.width])
        return theta, log_scale + log_slope
