"""Coupling flow: an invertible map from parameters to noise, with an exact density in one pass.

    z = f(theta; conditions),   z ~ Normal(0, I)
    log p(theta | conditions) = log Normal(z; 0, I) + log |det df/dtheta|

f is a row of blocks. Each permutes the components, splits them into halves a and b, transforms b component by
component given a and the conditions, and then a given the new b. The Jacobian is triangular at each of these
steps, and each is inverted by a formula, so that training, density and draws all cost one pass.

L. Dinh et al., Density estimation using Real NVP, ICLR 2017, arXiv:1605.08803; for posteriors: S. T. Radev et
al., BayesFlow: learning complex stochastic models with invertible neural networks, IEEE TNNLS 2020,
arXiv:2003.06281.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks.base import Drawn, InferenceNetwork
from sbi_models.networks.coupling.base import Base, Normal, StudentT
from sbi_models.networks.coupling.coupling import Coupling
from sbi_models.networks.coupling.transforms import Affine, AffineSpline, Transform
from sbi_models.networks.layers import Widths, check_subnet
from sbi_models.networks.noise import Generators
from sbi_models.networks.registry import register

_TRANSFORMS, _BASES = ("spline", "affine"), ("normal", "student_t")


@register("coupling_flow")
class CouplingFlow(InferenceNetwork):
    """A normalizing flow of affine or spline couplings; the loss is -log p(theta | conditions), in nats.

    A single parameter has no other to be coupled with: its transforms are conditioned on the conditions
    alone.

    Args:
        depth: blocks; each transforms every component once and has two subnets.
        transform: "spline" (rational-quadratic, after a shift and a scale) or "affine" (a shift and a scale,
            for posteriors near normal).
        bins: bins of a spline.
        bound: splines act on [-bound, bound], in units of the base's standard deviation, and are the identity
            outside.
        subnet: name of the network inside each coupling: "residual", "mlp", or one of your own.
        widths: its hidden widths, or "small", "medium", "large"; equal ones for "residual".
        base: "normal", or "student_t" for posteriors with heavy tails.
        degrees_of_freedom: degrees of freedom of a Student t base, a whole number.

    >>> network = CouplingFlow(depth=2, widths=(16, 16))
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> tuple(network.sample(10, torch.zeros(5, 3)).shape)
    (5, 10, 2)
    >>> tuple(network.log_prob(torch.zeros(5, 2), torch.zeros(5, 3)).shape)
    (5,)
    """

    def __init__(
        self,
        depth: int = 3,
        transform: str = "spline",
        *,
        bins: int = 8,
        bound: float = 5.0,
        subnet: str = "residual",
        widths: Widths = (128, 128),
        base: str = "normal",
        degrees_of_freedom: int = 25,
    ) -> None:
        super().__init__()
        for name, value, known in (("transform", transform, _TRANSFORMS), ("base", base, _BASES)):
            if value not in known:
                raise ConfigurationError(
                    f"Unknown {name} {value!r} of a coupling flow. {suggest(str(value), known)}"
                )
        for name, number, least in (
            ("depth", depth, 1),
            ("bins", bins, 2),
            ("degrees_of_freedom", degrees_of_freedom, 1),
        ):
            if number != int(number) or number < least:
                raise ConfigurationError(
                    f"Expected a whole number of at least {least} for {name}, got {number!r}."
                )
        if not 0 < bound < float("inf"):
            raise ConfigurationError(
                f"Expected a positive, finite bound of the splines, got {bound!r}. Pass for "
                "instance bound=5.0."
            )
        check_subnet(subnet, widths)
        self.depth, self.subnet, self.widths = depth, subnet, widths
        self.transform: Transform = AffineSpline(bins, bound) if transform == "spline" else Affine()
        self.base: Base = Normal() if base == "normal" else StudentT(degrees_of_freedom)

    def _build(self, theta_dim: int, condition_dim: int) -> None:
        self.theta_dim = theta_dim
        self.blocks = nn.ModuleList(
            Block(self.transform, theta_dim, condition_dim, self.subnet, self.widths)
            for _ in range(self.depth)
        )

    def to_base(self, theta: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """z (..., theta_dim) and log |det dz/dtheta| (...) of standardized theta given conditions."""
        z, log_det = theta, theta.new_zeros(())
        for block in self.blocks:
            z, gained = block(z, conditions)
            log_det = log_det + gained
        return z, log_det

    def from_base(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Standardized theta of z, both (..., theta_dim), given conditions: the inverse of `to_base`."""
        for block in reversed(self.blocks):
            z = block.inverse(z, conditions)  # type: ignore[operator]
        return z

    def loss_given(self, theta: Tensor, conditions: Tensor, drawn: Drawn = ()) -> Tensor:
        """-log p(theta | conditions) in nats, shape (n,); it draws no noise."""
        del drawn
        return -self.log_prob(theta, conditions)

    def sample(self, num_samples: int, conditions: Tensor, generator: Generators = None) -> Tensor:
        """Standardized draws (n, num_samples, theta_dim): draws of the base, carried through the inverse."""
        return self.from_base(
            self.base.sample(num_samples, self.theta_dim, generator, conditions), conditions[:, None, :]
        )

    def log_prob(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Log density in nats of standardized theta (n, theta_dim), shape (n,), exact."""
        z, log_det = self.to_base(theta, conditions)
        return self.base.log_prob(z) + log_det


class Block(nn.Module):
    """A fixed random permutation and two couplings, after which every component has been transformed.

    Two components are not permuted: the couplings of a row of blocks alternate by themselves.
    """

    order: Tensor

    def __init__(
        self, transform: Transform, dim: int, condition_dim: int, subnet: str, widths: Widths
    ) -> None:
        super().__init__()
        self.split = dim // 2
        self.register_buffer("order", torch.randperm(dim) if dim > 2 else torch.arange(dim))
        a, b = self.split, dim - self.split
        inner: dict[str, Any] = {"condition_dim": condition_dim, "subnet": subnet, "widths": widths}
        self.second = Coupling(transform, unchanged=a, changed=b, **inner)
        self.first = Coupling(transform, unchanged=b, changed=a, **inner) if a else None

    def forward(self, theta: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The transformed (..., dim) and the log determinant (...)."""
        theta = theta[..., self.order]
        a, b = theta[..., : self.split], theta[..., self.split :]
        b, log_det = self.second(a, b, conditions)
        if self.first is None:
            return b, log_det
        a, gained = self.first(b, a, conditions)
        return torch.cat([a, b], dim=-1), log_det + gained

    def inverse(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Inverse of `forward` at z (..., dim)."""
        a, b = z[..., : self.split], z[..., self.split :]
        if self.first is not None:
            a = self.first.inverse(b, a, conditions)
        b = self.second.inverse(a, b, conditions)
        return torch.cat([a, b], dim=-1)[..., self.order.argsort()]
