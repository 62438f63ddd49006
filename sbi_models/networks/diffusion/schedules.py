"""Noise schedules of diffusion models: scales of parameters and noise by time.

    theta_t = alpha(t) theta_0 + sigma(t) z,   z ~ Normal(0, I),   t = 0 data, t = 1 noise

A schedule is its log signal-to-noise ratio log_snr(t) = log(alpha^2 / sigma^2), which falls from
`log_snr_max` at t = 0 to `log_snr_min` at t = 1, and a scale: alpha^2 + sigma^2 = 1 (variance preserving) or
alpha = 1 (variance exploding). The forward process d theta = drift(t) theta dt + diffusion(t) dw then has
drift = alpha' / alpha and diffusion^2 = -sigma^2 log_snr', a dash for d / dt.

The end t = 0 is not quite the data: at the default log-SNR of 18 noise of sd exp(-9) = 0.00012 is left, in
units of the prior's sd.

Y. Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021,
arXiv:2011.13456; D. P. Kingma et al., Variational diffusion models, NeurIPS 2021, arXiv:2107.00630.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from sbi_models.errors import ConfigurationError, suggest
from sbi_models.registry import Registry

T = TypeVar("T", bound="type[Schedule]")

SCHEDULES: Registry["type[Schedule]"] = Registry("schedule")
"""Class of each noise schedule by its name."""


def register_schedule(name: str) -> Callable[[T], T]:
    """Class decorator that registers a schedule under a name, for files and `schedule="name"`.

    Raises:
        ConfigurationError: if another class has the name.
    """
    return SCHEDULES.register(name)


def make_schedule(name: str, arguments: Mapping[str, Any] | None = None) -> "Schedule":
    """A schedule of a registered name, with the arguments that differ from its defaults."""
    schedule = SCHEDULES.named(name)
    known = [field.name for field in fields(schedule)]
    for argument in arguments or {}:
        if argument not in known:
            raise ConfigurationError(
                f"The schedule {name!r} has no argument {argument!r}. {suggest(argument, known)}"
            )
    return schedule(**(arguments or {}))


@dataclass(frozen=True)
class Schedule(ABC):
    """Base class of noise schedules: a log-SNR that falls with time.

    To write one: a frozen dataclass that registers a name and implements `log_snr`, its derivative
    `log_snr_slope` and its inverse `time`.

    >>> from sbi_models.networks.diffusion import make_schedule
    >>> schedule = make_schedule("cosine", {"log_snr_max": 10.0})
    >>> t = schedule.time(torch.tensor(0.0))
    >>> torch.allclose(schedule.alpha(t), schedule.sigma(t))
    True
    """

    variance_preserving: ClassVar[bool] = True

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times t in [0, 1], of any shape; t = 1 is noise."""

    @abstractmethod
    def log_snr_slope(self, t: Tensor) -> Tensor:
        """d log_snr / dt, negative."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The time in [0, 1] of a log-SNR."""

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the parameters."""
        return self.log_snr(t).sigmoid().sqrt() if self.variance_preserving else torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Factor of the noise."""
        log_snr = self.log_snr(t)
        return (-log_snr).sigmoid().sqrt() if self.variance_preserving else (-log_snr / 2).exp()

    def alpha_slope(self, t: Tensor) -> Tensor:
        """d alpha / dt."""
        return self.alpha(t) * self.drift(t)

    def sigma_slope(self, t: Tensor) -> Tensor:
        """d sigma / dt."""
        signal = self.alpha(t).square() if self.variance_preserving else 1.0
        return -self.sigma(t) * signal * self.log_snr_slope(t) / 2

    def drift(self, t: Tensor) -> Tensor:
        """Factor of theta_t in the drift of the forward process."""
        return (
            self.sigma(t).square() * self.log_snr_slope(t) / 2
            if self.variance_preserving
            else torch.zeros_like(t)
        )

    def diffusion(self, t: Tensor) -> Tensor:
        """Factor of dw in the forward process."""
        return self.sigma(t) * (-self.log_snr_slope(t)).sqrt()

    def ends(self) -> tuple[float, float]:
        """log-SNR of the data end and of the noise end."""
        best, worst = self.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return best, worst


@register_schedule("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Cosine schedule: alpha = cos(phi), sigma = sin(phi), with an angle phi proportional to t.

    A. Nichol and P. Dhariwal, Improved denoising diffusion probabilistic models, ICML 2021, arXiv:2102.09672.
    """

    log_snr_min: float = -16.0
    log_snr_max: float = 18.0

    def __post_init__(self) -> None:
        _check_range(self.log_snr_min, self.log_snr_max)

    @property
    def _angles(self) -> tuple[float, float]:
        """Angles at t = 0 and t = 1."""
        return math.atan(math.exp(-self.log_snr_max / 2)), math.atan(math.exp(-self.log_snr_min / 2))

    def log_snr(self, t: Tensor) -> Tensor:
        """-2 log tan(phi)."""
        low, high = self._angles
        return -2 * (low + (high - low) * t).tan().log()

    def log_snr_slope(self, t: Tensor) -> Tensor:
        """-4 phi' / sin(2 phi)."""
        low, high = self._angles
        return -4 * (high - low) / (2 * (low + (high - low) * t)).sin()

    def time(self, log_snr: Tensor) -> Tensor:
        """Time of a log-SNR, by its angle."""
        low, high = self._angles
        return ((-log_snr / 2).exp().atan() - low) / (high - low)


@register_schedule("linear")
@dataclass(frozen=True)
class Linear(Schedule):
    """Linear schedule: variance preserving, diffusion^2 = beta(t) linear, alpha^2 = exp(-integral of beta).

    J. Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020, arXiv:2006.11239. Times are squeezed
    so that t = 0 has `log_snr_max`.
    """

    beta_min: float = 0.1
    beta_max: float = 24.0
    log_snr_max: float = 18.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ConfigurationError(
                f"Expected 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}."
            )
        _check_range(-math.log(math.expm1((self.beta_min + self.beta_max) / 2)), self.log_snr_max)

    def log_snr(self, t: Tensor) -> Tensor:
        """-log(exp(B) - 1), B the integral of beta."""
        integral, _ = self._integral(t)
        return -integral.expm1().log()

    def log_snr_slope(self, t: Tensor) -> Tensor:
        """-beta / (1 - exp(-B)), times the squeeze of time."""
        integral, beta = self._integral(t)
        return beta / torch.expm1(-integral)

    def time(self, log_snr: Tensor) -> Tensor:
        """Time of a log-SNR, the root of a quadratic."""
        return (self._raw_time(_softplus(-log_snr)) - self._start) / (1 - self._start)

    @property
    def _start(self) -> float:
        return self._raw_time(_softplus(torch.tensor(-self.log_snr_max, dtype=torch.float64))).item()

    def _raw_time(self, integral: Tensor) -> Tensor:
        gap = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * gap * integral).sqrt())

    def _integral(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Integral of beta up to t and its derivative by t."""
        raw, gap = self._start + (1 - self._start) * t, self.beta_max - self.beta_min
        return raw * (self.beta_min + gap * raw / 2), (1 - self._start) * (self.beta_min + gap * raw)


@register_schedule("edm")
@dataclass(frozen=True)
class EDM(Schedule):
    """Variance exploding, with sigma^(1 / rho) linear in t from `sigma_min` to `sigma_max`.

    T. Karras et al., Elucidating the design space of diffusion-based generative models, NeurIPS 2022,
    arXiv:2206.00364. Their sigma_min of 0.002 is for images; parameters may have posteriors that narrow.
    """

    variance_preserving: ClassVar[bool] = False

    sigma_min: float = 1.2e-4
    sigma_max: float = 1000.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max or self.rho <= 0:
            raise ConfigurationError(
                f"Expected 0 < sigma_min < sigma_max and rho > 0, got {self.sigma_min}, "
                f"{self.sigma_max} and {self.rho}."
            )
        _check_range(-2 * math.log(self.sigma_max), -2 * math.log(self.sigma_min))

    @property
    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def log_snr(self, t: Tensor) -> Tensor:
        """-2 log sigma."""
        low, high = self._roots
        return -2 * self.rho * (low + (high - low) * t).log()

    def log_snr_slope(self, t: Tensor) -> Tensor:
        """-2 sigma' / sigma."""
        low, high = self._roots
        return -2 * self.rho * (high - low) / (low + (high - low) * t)

    def time(self, log_snr: Tensor) -> Tensor:
        """Time of a log-SNR, by sigma = exp(-log_snr / 2)."""
        low, high = self._roots
        return ((-log_snr / (2 * self.rho)).exp() - low) / (high - low)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact for large and small x."""
    return torch.logaddexp(x, torch.zeros_like(x))


def _check_range(log_snr_min: float, log_snr_max: float) -> None:
    if not log_snr_min <= -4 < 4 <= log_snr_max:
        raise ConfigurationError(
            "Expected log-SNRs that reach from noise (at most -4) to data (at least 4), "
            f"got the range from {log_snr_min:.3g} to {log_snr_max:.3g}."
        )
