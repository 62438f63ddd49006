"""How high modes that are apart are, one against the other.

Scores at small noise know nothing of a valley that no parameters come from, and their integral across it is
noise. The densities of the items come from all levels of noise; those of n items sum up, with what they share
of errors. With a simulator that is calibrated: between data of the modes a and b, the logarithm of the
likelihood ratio is the best classifier, so

    P(b | x) = 1 / (1 + exp(-r(x) - o)),     r = log p(b | x) - log p(a | x) - log p(b) + log p(a)

with as many data of a as of b has an offset o of 0, were r right; the o of largest likelihood is added to r
of each item. Where even so r tells the data of a and b apart no better than a coin, as for modes that all
data leave open, it is noise, and zero is taken for it.
"""

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.score import ComposedScore, share_of_bias
from sbi_models.types import FloatArray

_NODES = 64
"""Points of the integral of the prior's score from one mode to another."""

_SIMULATIONS = 2000
"""Of each mode."""

_FARTHEST = 50.0

_TOLD = 5.0
"""Nats that ratios must tell of all the simulations together to be taken for more than noise."""


def heights(composed: ComposedScore, modes: Tensor, fresh: Fresh | None, seed: int) -> Tensor:
    """Log density of the composed posterior at modes (m, d), less that of the first, shape (m,)."""
    prior = torch.stack([_along(composed, modes[0], mode) for mode in modes])
    logs = composed.items.log_density(modes).sum(dim=0)
    composed.evaluations += len(modes) * composed.items.evaluations_of_density
    found = logs - logs[0] + (1 - composed.num_items) * prior
    if fresh is not None:
        drawn = [
            [items for _, items in fresh(mode.expand(_SIMULATIONS, -1), seeding.derive(seed, "heights", k))]
            for k, mode in enumerate(modes)
        ]
        for k in range(1, len(modes)):
            pair = modes[[0, k]]
            first, last = (_log_ratios(items, pair, float(prior[k])) for items in (drawn[0], drawn[k]))
            o = offset(first, last)
            found[k] = found[k] + composed.num_items * o if gained(first + o, last + o) > _TOLD else prior[k]
    return found


def offset(first: FloatArray, last: FloatArray) -> float:
    """o above from log likelihood ratios (k,) of data of the first mode, and of the last; what of it may be
    noise is left out."""
    both = np.concatenate([first, last])

    def excess(o: float) -> float:
        return float(len(last) - expit(both + o).sum())

    if excess(-_FARTHEST) <= 0 or excess(_FARTHEST) >= 0:
        return 0.0
    from scipy.optimize import brentq  # noqa: PLC0415 - worker processes import this package and need no more memory

    found = float(brentq(excess, -_FARTHEST, _FARTHEST))
    slope = float((expit(both + found) * expit(-both - found)).sum())
    noise = len(first) * expit(first + found).var() + len(last) * expit(last + found).var()
    variance = max(float(noise), 1e-12) / max(slope, 1e-300) ** 2
    return found * share_of_bias(
        torch.tensor([found], dtype=torch.float64), torch.tensor([[variance]], dtype=torch.float64)
    )


def gained(first: FloatArray, last: FloatArray) -> float:
    """What log likelihood ratios (k,) of data of the first mode, and of the last, tell of which is which, in
    nats, beyond a coin."""
    return float(log_expit(-first).sum() + log_expit(last).sum() + (len(first) + len(last)) * np.log(2))


def _log_ratios(items: list[Items], pair: Tensor, prior: float) -> FloatArray:
    logs = torch.cat([part.log_density(pair) for part in items])
    return np.asarray((logs[:, 1] - logs[:, 0]).numpy() - prior)


def _along(composed: ComposedScore, first: Tensor, last: Tensor) -> Tensor:
    """The integral of the prior's score on the straight line between two points (d,)."""
    nodes, widths = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(_NODES))
    theta = first + (nodes[:, None] + 1) / 2 * (last - first)
    return (composed.prior(theta) @ (last - first) * widths).sum() / 2
