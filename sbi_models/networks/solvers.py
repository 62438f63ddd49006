"""Fixed-step integration of ordinary differential equations, and of the divergence of their fields."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

State = tuple[Tensor, ...]

MOST_STEPS = 512
"""Largest number of steps of the rules below: the error falls with the second or fourth power of the
step, and is rounding long before."""


def runge_kutta_2(field: Callable[[Tensor, State], State], state: State, times: Tensor) -> State:
    """Integrate as `runge_kutta_4` does, by Heun's rule: two calls of the field a step, order two."""
    for a, b in pairwise(times):
        h = b - a
        k1 = field(a, state)
        k2 = field(b, _axpy(state, k1, h))
        state = _axpy(state, tuple((p + q) / 2 for p, q in zip(k1, k2, strict=True)), h)
    return state


def runge_kutta_4(field: Callable[[Tensor, State], State], state: State, times: Tensor) -> State:
    """Integrate d state / d t = field(t, state) over the grid `times`, (k + 1,), by the classical rule.

    Four calls of the field a step; the error falls with the fourth power of the step.
    """
    for a, b in pairwise(times):
        h = b - a
        k1 = field(a, state)
        k2 = field(a + h / 2, _axpy(state, k1, h / 2))
        k3 = field(a + h / 2, _axpy(state, k2, h / 2))
        k4 = field(b, _axpy(state, k3, h))
        slope = tuple((p + 2 * q + 2 * r + s) / 6 for p, q, r, s in zip(k1, k2, k3, k4, strict=True))
        state = _axpy(state, slope, h)
    return state


def _axpy(state: State, slope: State, h: Tensor) -> State:
    return tuple(x + h * dx for x, dx in zip(state, slope, strict=True))


def graded_times(steps: int, grading: float, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Grid of `steps + 1` times from 0 (noise) to 1 (data): t = 1 - (1 - u)^grading.

    It is finer towards the data for grading > 1.
    """
    u = torch.linspace(0.0, 1.0, steps + 1, device=device, dtype=torch.float64)
    return (1 - (1 - u) ** grading).to(dtype)


def with_divergence(field: Callable[[Tensor], Tensor], x: Tensor) -> State:
    """Field(x) (n, d) and its exact divergence (n,), by d passes backwards.

    The field treats the rows of x (n, d) independently.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = field(x)
        rows = [
            torch.autograd.grad(value[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])
        ]
    return value.detach(), torch.stack(rows).sum(dim=0)


def standard_normal_log_density(x: Tensor) -> Tensor:
    """Log density in nats of N(0, I) at x (n, d), shape (n,)."""
    return -(x.square() + math.log(2 * math.pi)).sum(dim=-1) / 2
