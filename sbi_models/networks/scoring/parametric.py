"""Rules that are densities: a multivariate normal, and a mixture of them.

A normal is written by the modified Cholesky decomposition of its precision, P = T' D^2 T with T unit lower
triangular and D positive: component i given those before it is normal around a linear function of them, with
an sd of 1 / D_ii. Regression coefficients and log D_ii may be any numbers, and stay of order one however
narrow the posterior is. M. Pourahmadi, Joint mean-covariance models with applications to longitudinal data,
Biometrika 86 (1999) 677.
"""

import math

import torch
from torch import Tensor

from sbi_models.errors import ConfigurationError
from sbi_models.networks.noise import Generators, normal
from sbi_models.networks.registry import register
from sbi_models.networks.scoring.rules import ParametricRule


def _normal_width(d: int) -> int:
    """Numbers of a normal in d dimensions: mean, log D and the coefficients below the diagonal of T."""
    return 2 * d + d * (d - 1) // 2


def _normal(numbers: Tensor, d: int) -> dict[str, Tensor]:
    """Numbers (..., _normal_width(d)) to means (..., d), log D (..., d) and T (..., d, d)."""
    mean, log_d, coefficients = torch.split(numbers, [d, d, d * (d - 1) // 2], dim=-1)
    identity = (
        torch.eye(d, dtype=numbers.dtype, device=numbers.device).flatten().expand(*numbers.shape[:-1], -1)
    )
    rows, columns = torch.tril_indices(d, d, -1, device=numbers.device)
    t = identity.scatter(-1, (rows * d + columns).expand_as(coefficients), coefficients)
    return {"mean": mean, "log_d": log_d, "t": t.reshape(*t.shape[:-1], d, d)}


def _normal_log_prob(prediction: dict[str, Tensor], theta: Tensor) -> Tensor:
    """Log density in nats at theta (..., d), shape (...)."""
    error = theta - prediction["mean"]
    white = prediction["log_d"].exp() * (prediction["t"] @ error[..., None])[..., 0]
    return (prediction["log_d"] - 0.5 * white.square() - 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def _cholesky(prediction: dict[str, Tensor]) -> Tensor:
    """The Cholesky factor of the covariance, T^-1 D^-1, (..., d, d)."""
    t = prediction["t"]
    scales = torch.diag_embed(torch.exp(-prediction["log_d"]))
    factor: Tensor = torch.linalg.solve_triangular(t, scales, upper=False, unitriangular=True)
    return factor


def _covariance(prediction: dict[str, Tensor], scale: Tensor) -> Tensor:
    """The covariance of scale * theta, (..., d, d)."""
    factor = scale[:, None] * _cholesky(prediction).to(scale.dtype)
    return factor @ factor.mT


@register("mv_normal")
class MultivariateNormalScore(ParametricRule):
    """Normal density with any covariance; estimates `mean` (n, d) and `covariance` (n, d, d).

    Raw numbers of 0 are a standard normal.
    """

    def head_width(self, theta_dim: int) -> int:
        return _normal_width(theta_dim)

    def predict(self, numbers: Tensor, theta_dim: int) -> dict[str, Tensor]:
        """`mean` (n, d), `log_d` (n, d) and `t` (n, d, d), the decomposition of the precision."""
        return _normal(numbers, theta_dim)

    def log_prob(self, prediction: dict[str, Tensor], theta: Tensor) -> Tensor:
        return _normal_log_prob(prediction, theta)

    def sample(self, num_samples: int, prediction: dict[str, Tensor], generator: Generators = None) -> Tensor:
        mean = prediction["mean"]
        noise = normal((len(mean), num_samples, mean.shape[-1]), generator, mean)
        return mean[:, None] + noise @ _cholesky(prediction).mT

    def estimates(self, prediction: dict[str, Tensor], shift: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"mean": shift + scale * prediction["mean"], "covariance": _covariance(prediction, scale)}


@register("mixture")
class MixtureScore(ParametricRule):
    """A mixture of normal densities with any covariances.

    Estimates `weights` (n, K), `means` (n, K, d) and `covariances` (n, K, d, d). C. M. Bishop, Mixture
    density networks, Aston University (1994). Components start at different places: equal ones would have
    equal gradients and never part.

    Args:
        components: their number K.

    >>> from sbi_models.networks import ScoringRuleNetwork
    >>> network = ScoringRuleNetwork({"mixture": MixtureScore(components=3)}, widths=(16, 16))
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> tuple(network.estimate(torch.zeros(5, 3))["mixture"]["means"].shape)
    (5, 3, 2)
    """

    def __init__(self, components: int = 4) -> None:
        super().__init__()
        if type(components) is not int or components < 1:
            raise ConfigurationError(f"Expected components as a positive integer, got {components!r}.")
        self.components = components

    def head_width(self, theta_dim: int) -> int:
        return self.components * (1 + _normal_width(theta_dim))

    def predict(self, numbers: Tensor, theta_dim: int) -> dict[str, Tensor]:
        """Components: `log_weights` (n, K), `mean` (n, K, d), `log_d` (n, K, d) and `t` (n, K, d, d)."""
        numbers = numbers.reshape(len(numbers), self.components, -1)
        prediction = _normal(numbers[..., 1:], theta_dim)
        start = _spread(self.components, theta_dim).to(numbers)
        return prediction | {
            "mean": prediction["mean"] + start,
            "log_weights": torch.log_softmax(numbers[..., 0], dim=-1),
        }

    def log_prob(self, prediction: dict[str, Tensor], theta: Tensor) -> Tensor:
        return torch.logsumexp(
            prediction["log_weights"] + _normal_log_prob(prediction, theta[:, None]), dim=-1
        )

    def sample(self, num_samples: int, prediction: dict[str, Tensor], generator: Generators = None) -> Tensor:
        n, _, d = prediction["mean"].shape
        noise = normal((n, num_samples, d + 1), generator, prediction["mean"])
        # The last normal number of a draw chooses its component, through its distribution function, which is
        # uniform.
        uniform = torch.special.ndtr(noise[..., -1])
        ends = prediction["log_weights"].exp().cumsum(dim=-1)[:, None, :-1]
        chosen = (uniform[..., None] > ends).sum(dim=-1)
        row = torch.arange(n, device=chosen.device)[:, None]
        draws: Tensor = (
            prediction["mean"][row, chosen]
            + (_cholesky(prediction)[row, chosen] @ noise[..., :-1, None])[..., 0]
        )
        return draws

    def estimates(self, prediction: dict[str, Tensor], shift: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {
            "weights": prediction["log_weights"].to(scale.dtype).exp(),
            "means": shift + scale * prediction["mean"],
            "covariances": _covariance(prediction, scale),
        }


def _spread(components: int, d: int) -> Tensor:
    """Points (components, d) that are spread like a standard normal, by a Kronecker sequence.

    >>> _spread(2, 1).round(decimals=2).tolist()
    [[0.0], [-1.18]]
    """
    root: float = 2.0
    for _ in range(40):  # the positive root of x^(d + 1) = x + 1, the golden ratio for d = 1
        root = (1.0 + root) ** (1.0 / (d + 1))
    steps = root ** -torch.arange(1, d + 1, dtype=torch.float64)
    uniform = (0.5 + torch.arange(components, dtype=torch.float64)[:, None] * steps) % 1
    points: Tensor = torch.special.ndtri(uniform)
    return points
