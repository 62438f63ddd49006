"""Batched training of scikit-learn's `MLPClassifier` for two classes, with the same steps and numbers.

Cross-validation trains one small network a fold, and a benchmark does that for every observation; each step
of one is over before the interpreter has asked for the next. Here one step is that of all networks. Start,
shuffles, batches, Adam, penalty and stop are those of scikit-learn, from the same random numbers, in single
precision (which scikit-learn takes where its inputs have it, as sbibm's do).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.utils import shuffle

from sbi_models.types import Array

_BATCH, _PENALTY, _RATE, _MOMENTUM, _SECOND, _EPSILON, _TOLERANCE, _PATIENCE = (
    200,
    1e-4,
    1e-3,
    0.9,
    0.999,
    1e-8,
    1e-4,
    10,
)
"""scikit-learn's batch_size, alpha, learning_rate_init, beta_1, beta_2, epsilon, tol, n_iter_no_change."""

_ACTIVATIONS = 250_000
"""Number of activations of one layer of all networks in a step, which fit into a processor's cache."""


@dataclass
class Stack:
    """Networks of two hidden layers each; the first axis of all arrays is the network.

    Attributes:
        parameters: (networks, P): weights and biases of the three layers, one after the other.
        shapes: shapes of these six.
    """

    parameters: torch.Tensor
    shapes: list[tuple[int, ...]]

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Weights (networks, fan in, fan out) and biases (networks, 1, fan out): views of (networks, P)."""
        parts = torch.split(flat, [int(np.prod(shape)) for shape in self.shapes], dim=1)
        return [part.view(len(flat), *shape) for part, shape in zip(parts, self.shapes, strict=True)]


def trained(
    inputs: Array, labels: Array, units: tuple[int, int], state: int, max_epochs: int
) -> tuple[Stack, list[list[float]]]:
    """Train a network on each data set.

    Args:
        inputs: (networks, n, width).
        labels: (networks, n), 0 or 1.
        units: units of the hidden layers.
        state: `random_state`, of each network the same: all start alike and see their rows in one order.
        max_epochs: after which a network is left as it is.

    Returns:
        The networks, and the loss of each epoch of each.
    """
    at_once = max(1, _ACTIVATIONS // (_BATCH * max(units)))
    parts = [
        _trained_together(
            inputs[start : start + at_once], labels[start : start + at_once], units, state, max_epochs
        )
        for start in range(0, len(inputs), at_once)
    ]
    stacks, losses = zip(*parts, strict=True)
    return Stack(torch.cat([stack.parameters for stack in stacks]), stacks[0].shapes), [
        loss for part in losses for loss in part
    ]


def _trained_together(
    inputs: Array, labels: Array, units: tuple[int, int], state: int, max_epochs: int
) -> tuple[Stack, list[list[float]]]:
    """`trained`, with steps of all networks at once."""
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)
    width = x.shape[2]
    fans = [(width, units[0]), units, (units[1], 1)]
    rng = np.random.RandomState(state)
    stack = Stack(_start(fans, rng).repeat(len(x), 1), [s for fan in fans for s in (fan, (1, fan[1]))])
    left = _Training(stack, x, y, np.arange(len(x)))
    finished, order = stack.parameters.clone(), np.arange(x.shape[1])
    losses: list[list[float]] = [[] for _ in x]
    best, in_vain = np.full(len(x), np.inf), np.zeros(len(x), dtype=int)
    for _ in range(max_epochs):
        order = shuffle(order, random_state=rng)
        with _one_thread():
            epoch = left.epoch(order)
        for k, loss in zip(left.which, epoch, strict=True):
            in_vain[k] = in_vain[k] + 1 if loss > best[k] - _TOLERANCE else 0
            best[k] = min(best[k], loss)
            losses[k].append(loss)
        finished[left.which] = left.stack.parameters
        stopped = in_vain[left.which] > _PATIENCE
        if stopped.all():
            break
        if stopped.any():
            left = left.without(stopped)
    return Stack(finished, stack.shapes), losses


@contextmanager
def _one_thread() -> Iterator[None]:
    """Context manager without threads of PyTorch, which wait longer for each other than small steps take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def accuracies(stack: Stack, networks: slice, inputs: Array, labels: Array) -> list[float]:
    """Share of rows (networks, n, width) that each network classifies as its labels (n,)."""
    w1, b1, w2, b2, w3, b3 = stack.views(stack.parameters[networks])
    x = torch.as_tensor(inputs, dtype=torch.float32)
    logit = torch.baddbmm(b3, torch.baddbmm(b2, torch.baddbmm(b1, x, w1).relu_(), w2).relu_(), w3)[..., 0]
    return [float(share) for share in ((logit > 0) == torch.as_tensor(labels > 0)).double().mean(dim=1)]


def _start(fans: list[tuple[int, int]], rng: np.random.RandomState) -> torch.Tensor:
    """Initial weights and biases, uniform within Glorot's bounds."""
    parts = []
    for fan_in, fan_out in fans:
        bound = np.sqrt(6.0 / (fan_in + fan_out))
        parts += [rng.uniform(-bound, bound, (fan_in, fan_out)).ravel(), rng.uniform(-bound, bound, fan_out)]
    return torch.as_tensor(np.concatenate(parts), dtype=torch.float32)


class _Training:
    """Networks still in training, their data, the state of Adam, and their indices among all networks."""

    def __init__(self, stack: Stack, x: torch.Tensor, y: torch.Tensor, which: Array) -> None:
        self.stack, self.x, self.y, self.which = stack, x, y, which
        self.mean, self.square = torch.zeros_like(stack.parameters), torch.zeros_like(stack.parameters)
        self.gradient = torch.empty_like(stack.parameters)
        self.steps = 0

    def without(self, stopped: Array) -> "_Training":
        """Training of the networks that have not stopped."""
        going = np.flatnonzero(~stopped)
        remaining = _Training(
            Stack(self.stack.parameters[going], self.stack.shapes),
            self.x[going],
            self.y[going],
            self.which[going],
        )
        remaining.mean, remaining.square, remaining.steps = self.mean[going], self.square[going], self.steps
        return remaining

    @torch.no_grad()
    def epoch(self, order: Array) -> list[float]:
        """One pass over the data in the order (n,) of rows; returns the loss of each network."""
        rows = torch.as_tensor(order)
        x, y = self.x[:, rows], self.y[:, rows]
        total = torch.zeros(len(y), dtype=torch.float64)
        weights, gradients = self.stack.views(self.stack.parameters), self.stack.views(self.gradient)
        for start in range(0, len(order), _BATCH):
            inputs, labels = x[:, start : start + _BATCH], y[:, start : start + _BATCH, None]
            total += self._step(inputs, labels, weights, gradients).double() * labels.shape[1]
        return [float(loss) for loss in total / len(order)]

    def _step(
        self, x: torch.Tensor, y: torch.Tensor, weights: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> torch.Tensor:
        """One step of Adam; returns the loss before it."""
        w1, b1, w2, b2, w3, b3 = weights
        size = x.shape[1]
        h1 = torch.baddbmm(b1, x, w1).relu_()
        h2 = torch.baddbmm(b2, h1, w2).relu_()
        logit = torch.baddbmm(b3, h2, w3)
        penalty = sum((w * w).sum(dim=(1, 2)) for w in (w1, w2, w3)) * (_PENALTY / 2 / size)
        loss = (
            torch.nn.functional.binary_cross_entropy_with_logits(logit, y, reduction="none").mean(dim=(1, 2))
            + penalty
        )
        delta = (logit.sigmoid() - y) / size
        for before, w, gw, gb in (
            (h2, w3, gradients[4], gradients[5]),
            (h1, w2, gradients[2], gradients[3]),
            (x, w1, *gradients[:2]),
        ):
            torch.baddbmm(w, before.transpose(1, 2), delta, beta=_PENALTY / size, out=gw)
            torch.sum(delta, dim=1, keepdim=True, out=gb)
            if before is not x:
                delta = torch.ops.aten.threshold_backward(torch.bmm(delta, w.transpose(1, 2)), before, 0.0)
        self._adam()
        return loss

    def _adam(self) -> None:
        self.steps += 1
        rate = _RATE * float(np.sqrt(1 - _SECOND**self.steps)) / (1 - _MOMENTUM**self.steps)
        self.mean.lerp_(self.gradient, 1 - _MOMENTUM)
        self.square.mul_(_SECOND).addcmul_(self.gradient, self.gradient, value=1 - _SECOND)
        self.stack.parameters.addcdiv_(self.mean, self.square.sqrt().add_(_EPSILON), value=-rate)
