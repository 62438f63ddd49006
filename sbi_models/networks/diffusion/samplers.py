"""Samplers of diffusion models: from noise to draws, by the denoised mean alone.

All of them work in the rotated parameters u = theta_t / sqrt(alpha^2 + sigma^2) and go from the angle of the
noise end to that of the data end (see `denoiser.py`), on one grid. There du / d angle = E[v | u] is the
probability-flow equation, whatever the schedule.

    heun, rk4             Runge-Kutta rules of order 2 and 4 for the probability flow; 2 and 4 calls a step
    ddim, dpm             exponential integrators of the probability flow of order 1 and 2; one call a step
    ancestral, sde_dpm    the same for the reverse diffusion, with fresh noise in each step; one call a step

ddim: J. Song et al., Denoising diffusion implicit models, ICLR 2021, arXiv:2010.02502. dpm and sde_dpm are of
the kind of C. Lu et al., DPM-Solver++, arXiv:2211.01095: with h the fall of log(sigma / alpha), and k = 1
without and k = 2 with fresh noise,

    y' = exp(-k h) y + k int_0^h exp(-k (h - x)) m(x) dx + sqrt(k - 1) sigma'/alpha' sqrt(1 - exp(-2 h)) z
    y = theta_t / alpha

where m(x), the path of E[theta_0 | theta_t], is constant or linear through this step's value and the last
one's.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from sbi_models.networks.diffusion.denoiser import Denoise, angle_of, mean_at, velocity_at
from sbi_models.networks.diffusion.schedules import Schedule
from sbi_models.networks.solvers import runge_kutta_2, runge_kutta_4
from sbi_models.registry import Registry

MOST_SAMPLER_STEPS = 2048
"""Exponential integrators are used with a thousand steps."""

Memory = tuple[Tensor, Tensor] | None
"""State that a step hands to the next one: denoised parameters and length of the step."""


def angles(schedule: Schedule, steps: int, grading: float) -> Tensor:
    """Grid of `steps + 1` angles from the noise end to the data end, float64.

    It is a (1 - w)^grading with equal steps of w, finer towards the data.
    """
    best, worst = (angle_of(torch.tensor(end, dtype=torch.float64)) for end in schedule.ends())
    w = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    return best + (worst - best) * (1 - w) ** grading


SAMPLERS: Registry["Sampler"] = Registry("sampler")
"""Samplers by name, each with the steps that make it accurate to about 1 % where its denoiser is exact."""

T = TypeVar("T", bound="type[Sampler]")


def register_sampler(name: str, **settings: Any) -> Callable[[T], T]:
    """Class decorator that registers a sampler under a name, for files and `sampler="name"`.

    Args:
        name: name of the sampler; one class may have several, with different settings.
        settings: arguments of the class, such as the steps.

    Raises:
        ConfigurationError: if another sampler has the name.
    """

    def add(cls: T) -> T:
        SAMPLERS.register(name)(cls(**settings))
        return cls

    return add


@dataclass(frozen=True)
class Task:
    """Input of a sampler: a denoiser, its schedule, and standard normal noise of the shape of the draws."""

    denoise: Denoise
    schedule: Schedule
    fresh: Callable[[], Tensor]


@dataclass(frozen=True)
class Sampler(ABC):
    """Base class of samplers: a rule for one step.

    To write one: a frozen dataclass that implements `step`, registered with its number of steps.

    >>> from sbi_models.networks import DiffusionModel
    >>> network = DiffusionModel(widths=(8, 8), sampler="dpm", steps=10)
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> tuple(network.sample(5, torch.zeros(1, 3)).shape)
    (1, 5, 2)
    """

    steps: int
    """Steps where nothing else is asked for."""

    grading: float = 4.0
    """Exponent that makes the grid finer towards the data (1: equal steps of the angle)."""

    def __call__(self, task: Task, steps: int | None = None) -> Tensor:
        """Draws theta_0 (..., d) in standardized space."""
        u, memory = task.fresh(), None
        grid = angles(task.schedule, steps or self.steps, self.grading)
        for a, b in pairwise(grid):
            u, memory = self.step(task, u, a, b, memory)
        return u / math.cos(grid[-1])

    @abstractmethod
    def step(self, task: Task, u: Tensor, a: Tensor, b: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Rotated parameters u (..., d) at angle a, carried to angle b < a."""


@register_sampler("heun", steps=64, order=2)
@register_sampler("rk4", steps=16, order=4)
@dataclass(frozen=True)
class RungeKutta(Sampler):
    """The probability flow by a Runge-Kutta rule of order 2 or 4."""

    order: int = 4

    def step(self, task: Task, u: Tensor, a: Tensor, b: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step of the rule."""
        del memory
        rule = runge_kutta_2 if self.order == 2 else runge_kutta_4
        (u,) = rule(
            lambda angle, state: (velocity_at(task.denoise, task.schedule, state[0], angle),),
            (u,),
            torch.stack([a, b]),
        )
        return u, None


@register_sampler("sde_dpm", steps=128, order=2, stochastic=True)
@register_sampler("ancestral", steps=256, order=1, stochastic=True)
@register_sampler("dpm", steps=64, order=2)
@register_sampler("ddim", steps=256, order=1)
@dataclass(frozen=True)
class Exponential(Sampler):
    """Exponential integrators of order 1 or 2, without or with fresh noise."""

    order: int = 2
    stochastic: bool = False

    def step(self, task: Task, u: Tensor, a: Tensor, b: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step of the formula above, for u = cos(angle) theta_t / alpha."""
        k = 2 if self.stochastic else 1
        mean = mean_at(task.denoise, task.schedule, u, a)
        h = (a.tan() / b.tan()).log()
        decay, gain = torch.exp(-k * h), -torch.expm1(-k * h)
        pull = gain * mean
        if self.order == 2 and memory is not None:
            before, last_h = memory
            pull = pull + (h - gain / k) / last_h * (mean - before)
        u = b.cos() * (decay / a.cos() * u + pull)
        if self.stochastic:
            u = u + b.sin() * gain.sqrt() * task.fresh()
        return u, (mean, h)
