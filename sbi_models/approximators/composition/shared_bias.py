"""Shared bias: error that the scores of all items have in common, as a function of theta.

A training leaves it behind for compositions without a simulator.

The mean of an item's score t over data x of theta should be the score of the prior. After a training it is
learned what it is, by weighted least squares on simulations (theta, x):

    mean of t = o(theta) + sum_k c_k m_k(theta),      m_k: products of the components of theta up to a degree,
    o: the score that the network gives without conditions, if it was trained for that, or zero

with weights 1 / v(theta), where log v is a polynomial fitted to the logarithms of the squared residuals. The
posterior of n items shifts by n times such an error; least squares on N simulations leave one of about sqrt(n
k / N) posterior sds, for k products.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sbi_models.approximators.composition.polynomial_density import Monomials

_REACH = 3.5
"""Sds of theta beyond which polynomials stay what they are at the edge."""

_LOG_OF_SQUARED_NORMAL = -1.2704
"""Mean of the logarithm of a squared standard normal number."""

_RIDGE = 1e-9


def degree_for(theta_dim: int) -> int:
    """Degree of the products: 4 up to three dimensions, then less, for about a hundred terms at most."""
    return {1: 4, 2: 4, 3: 4, 4: 3, 5: 3, 6: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2}.get(theta_dim, 1)


class SharedBiasEstimate(NamedTuple):
    """Correction to o (m, d), and the variance of its estimate (m, d)."""

    correction: Tensor
    variance: Tensor


class SharedBias(nn.Module):
    """Regression of the shared bias; its tensors are saved with the approximator.

    `count` is 0 before it has been fitted.

    `unused` is the share of the variance of scores that conditions predict; see `checks.py`.

    Args:
        theta_dim: d.
    """

    count: Tensor
    unused: Tensor
    location: Tensor
    scale: Tensor
    coefficients: Tensor
    covariances: Tensor

    def __init__(self, theta_dim: int) -> None:
        super().__init__()
        self.monomials = Monomials(theta_dim, degree_for(theta_dim))
        terms = len(self.monomials.exponents)
        shapes = {
            "count": (),
            "unused": (),
            "location": (theta_dim,),
            "scale": (theta_dim,),
            "coefficients": (theta_dim, terms),
        }
        for name, shape in (shapes | {"covariances": (theta_dim, terms, terms)}).items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    @property
    def is_known(self) -> bool:
        """Whether it has been fitted."""
        return bool(self.count > 0)

    def fit(self, theta: Tensor, residuals: Tensor) -> None:
        """Fit to standardized parameters and residuals t - o of simulations, both (N, d), float64."""
        self.location.copy_(theta.mean(dim=0))
        self.scale.copy_(theta.std(dim=0).clamp_min(1e-12))
        products = self.monomials(self._standard(theta))
        for j, residual in enumerate(residuals.mT):
            coefficients, _ = _least_squares(products, residual, torch.ones_like(residual))
            logs = (residual - products @ coefficients).square().clamp_min(
                1e-300
            ).log() - _LOG_OF_SQUARED_NORMAL
            log_variance, _ = _least_squares(products, logs, torch.ones_like(logs))
            weights = torch.exp(-(products @ log_variance).clamp(logs.median() - 12, logs.median() + 12))
            coefficients, inverse = _least_squares(products, residual, weights)
            self.coefficients[j].copy_(coefficients)
            self.covariances[j].copy_(inverse)
        self.count.fill_(len(theta))

    def __call__(self, theta: Tensor) -> SharedBiasEstimate:
        """Estimate at theta (m, d)."""
        products = self.monomials(self._standard(theta))
        return SharedBiasEstimate(
            products @ self.coefficients.mT,
            torch.einsum("mk,jkl,ml->mj", products, self.covariances, products),
        )

    def _standard(self, theta: Tensor) -> Tensor:
        return ((theta - self.location) / self.scale).clamp(-_REACH, _REACH)


def _least_squares(products: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (k,) of products (N, k) for targets (N,), and the inverse weighted Gram matrix (k, k)."""
    root = weights.sqrt()[:, None]
    weighted = products * root
    gram = weighted.mT @ weighted
    scale = gram.diagonal().sqrt().clamp_min(math.sqrt(1e-300))
    gram = gram / scale / scale[:, None] + _RIDGE * torch.eye(len(scale), dtype=gram.dtype)
    inverse = torch.linalg.inv(gram) / scale / scale[:, None]
    return inverse @ (weighted.mT @ (targets * root[:, 0])), inverse
