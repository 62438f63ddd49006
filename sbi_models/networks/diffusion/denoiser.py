"""Denoiser: a network for E[theta_0 | theta_t] with preconditioning, and the scores that follow from it.

With c = alpha / r, s = sigma / r and r^2 = alpha^2 + sigma^2 every schedule is a rotation of the parameters
into the noise,

    u = theta_t / r = c theta_0 + s z,   v = c z - s theta_0   so that   theta_0 = c u - s v,   z = s u + c v

Were theta_0 standard normal, v would have unit variance and be independent of u. So a network F of u, with a
target of unit variance and nothing to learn of a standard normal, predicts

    velocity:  v = F          noise:  z = s u + F          x:  theta_0 = c u + F

These are the preconditioning of T. Karras et al., arXiv:2206.00364, for data of unit variance, the velocity
of T. Salimans and J. Ho, Progressive distillation for fast sampling of diffusion models, ICLR 2022,
arXiv:2202.00512, and their variations: F of one is F of another times c or -s. A network of zero is the
posterior N(0, I) in each.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks.diffusion.schedules import Schedule

PREDICTIONS = ("velocity", "noise", "x")

Denoise = Callable[[Tensor, Tensor], Tensor]
"""E[theta_0 | theta_t] of theta_t (..., d) and times (..., 1), with the conditions inside: what a sampler is
given."""


def check_prediction(prediction: str) -> None:
    """Raise ConfigurationError for an unknown kind of prediction."""
    if prediction not in PREDICTIONS:
        raise ConfigurationError(f"Unknown prediction {prediction!r}. {suggest(prediction, PREDICTIONS)}")


class Denoiser(nn.Module):
    """A subnet with the preconditioning of a schedule; theta in standardized space.

    Args:
        field: a `Subnet` of (u, conditions, time), the same width out as in.
        schedule: schedule of the noise.
        prediction: "velocity", "noise" or "x".
    """

    def __init__(self, field: nn.Module, schedule: Schedule, prediction: str) -> None:
        super().__init__()
        self.field, self.schedule, self.prediction = field, schedule, prediction

    def forward(self, theta_t: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """Posterior mean of theta_0, (..., d) like theta_t, for t (..., 1) and conditions (..., c)."""
        log_snr = self.schedule.log_snr(t)
        c, s = rotation(log_snr)
        u = theta_t * (s / self.schedule.sigma(t))
        out: Tensor = self.field(u, conditions, network_time(log_snr))
        return c * u + out * {"velocity": -s, "noise": -s / c, "x": torch.ones_like(s)}[self.prediction]

    def errors(self, theta: Tensor, noise: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """The network's output less its target, for clean theta and noise (..., d) at times t (..., 1)."""
        log_snr = self.schedule.log_snr(t)
        c, s = rotation(log_snr)
        u, v = c * theta + s * noise, c * noise - s * theta
        out: Tensor = self.field(u, conditions, network_time(log_snr))
        return out - {"velocity": v, "noise": c * v, "x": -s * v}[self.prediction]


def rotation(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """c and s of a log-SNR: the schedule scaled to c^2 + s^2 = 1."""
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


def network_time(log_snr: Tensor) -> Tensor:
    """Time input of the network in [0, 1], whatever the schedule: angle of the rotation in right angles."""
    return angle_of(log_snr) * (2 / math.pi)


def score_of(mean: Tensor, theta_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The score d log p(theta_t) / d theta_t = (alpha E[theta_0 | theta_t] - theta_t) / sigma^2."""
    return (schedule.alpha(t) * mean - theta_t) / schedule.sigma(t).square()


def angle_of(log_snr: Tensor) -> Tensor:
    """The angle of the rotation: 0 is data, pi / 2 noise."""
    return (-log_snr / 2).exp().atan()


def log_snr_at(angle: Tensor) -> Tensor:
    """The log-SNR of an angle."""
    return -2 * angle.tan().log()


def mean_at(denoise: Denoise, schedule: Schedule, u: Tensor, angle: Tensor) -> Tensor:
    """E[theta_0 | u] of rotated parameters u (..., d) at an angle (a float64 scalar)."""
    t = schedule.time(log_snr_at(angle)).clamp(0, 1)
    scale = (schedule.alpha(t).square() + schedule.sigma(t).square()).sqrt()
    return denoise(u * scale, t.to(u).reshape([1] * u.dim()))


def velocity_at(denoise: Denoise, schedule: Schedule, u: Tensor, angle: Tensor) -> Tensor:
    """E[v | u] = (c u - E[theta_0 | u]) / s: the probability flow d u / d angle."""
    return (angle.cos() * u - mean_at(denoise, schedule, u, angle)) / angle.sin()
