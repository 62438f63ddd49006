"""Map proportions that sum to 1 to all real vectors, by stick-breaking."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sbi_models.adapters.transforms.base import PerVariable, Tensors, floating, require
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.adapters.transforms.support import Requirement
from sbi_models.errors import DataError

TOLERANCE = 1e-5
"""Largest distance of the sum of a row from 1; rows of float32 simulators are off by 1e-7 or so."""


@register_transform("simplex")
class Simplex(PerVariable):
    """Takes x (n, ..., K), positive with sum 1 along the last axis, to any real numbers (n, ..., K - 1).

    Of the stick r_k = x_k + ... + x_K that is left, a share x_k / r_k is broken off: z_k = log(x_k / r_(k+1))
    + log(K - k), which is 0 for equal shares. Densities are those of the first K - 1 components, as for the
    Dirichlet distribution; their Jacobian is triangular with log dz_k/dx_k = log r_k - log x_k - log r_(k+1).
    Source: the unit simplex of the Stan reference manual. Sums run over the components that are left, so that
    nothing cancels near the corners.
    """

    def fitted(self, batch: Tensors) -> "Simplex":
        require(self.names, batch, self.kind)
        for name in self.names:
            if batch[name].ndim < 2 or batch[name].shape[-1] < 2:
                raise DataError(
                    f"Expected {name!r} with two or more proportions along its last axis, got "
                    f"{tuple(batch[name].shape)}."
                )
        return self

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        del name
        cure = "Normalize the rows in the simulator, or drop them."
        sums = value.sum(dim=-1)
        return [
            Requirement(value > 0, "greater than 0.0 (adapter.constrain, to='simplex')", cure, value),
            Requirement(
                (sums - 1).abs() <= TOLERANCE,
                "to sum to 1 along the last axis (adapter.constrain, to='simplex')",
                cure,
                sums,
            ),
        ]

    def _map(self, name: str, value: Tensor) -> Tensor:
        value = floating(value)
        self._check(name, value)
        left = _left(value)
        return value[..., :-1].log() - left[..., 1:].log() + _log_pieces(value, value.shape[-1])

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        del name
        value = floating(value)
        odds = value - _log_pieces(value, value.shape[-1] + 1)
        log_left = torch.cumsum(logsigmoid(-odds), dim=-1)
        before = torch.cat([torch.zeros_like(log_left[..., :1]), log_left[..., :-1]], dim=-1)
        x = torch.exp(torch.cat([before + logsigmoid(odds), log_left[..., -1:]], dim=-1))
        limits = torch.finfo(x.dtype)
        return (x / x.sum(dim=-1, keepdim=True)).clamp(min=limits.tiny, max=1 - limits.eps / 2)

    def _carry(self, name: str, value: Tensor, slopes: Tensor) -> Tensor:
        left = _left(value)
        return slopes[..., :-1] + left[..., :-1].log() - value[..., :-1].log() - left[..., 1:].log()


def _left(x: Tensor) -> Tensor:
    """r_k = x_k + ... + x_K, summed from the end; (n, ..., K)."""
    return x.flip(-1).cumsum(dim=-1).flip(-1)


def _log_pieces(like: Tensor, components: int) -> Tensor:
    """log(K - k) for k = 1 ... K - 1, where K is the number of components."""
    return torch.arange(components - 1, 0, -1, dtype=like.dtype, device=like.device).log()
