"""Consistency model: from noise to the posterior in a few calls of the network.

    u = cos(phi) theta + sin(phi) z,   z ~ Normal(0, I),   angle phi = 0 data, pi / 2 noise

The probability flow d u / d phi = E[v | u], v = cos(phi) z - sin(phi) theta, carries u to a point of the
posterior; the network learns that point as a function f(u, phi) = u - sin(phi) F(u, phi, conditions), which
is the identity at phi = 0 and, for F = 0, exact where theta is standard normal. One call makes a draw; more
calls add noise again and repeat, which corrects errors. Y. Song et al., Consistency models, ICML 2023,
arXiv:2303.01469; with angles, C. Lu and Y. Song, Simplifying, stabilizing and scaling continuous-time
consistency models, ICLR 2025, arXiv:2410.11081.

There is no teacher trained before, and no noisy estimate of the flow in its place: the same network has a
second output V that learns E[v | u] by regression, and a step of the flow along V, from phi to a smaller psi,
gives the target f(u_psi, psi) of f(u, phi), as in N. M. Boffi et al., How to build a consistency model:
learning flow maps via self-distillation, NeurIPS 2025, arXiv:2505.18825. The steps are long from the start,
so there is no schedule of discretizations and no number of training steps to announce.
"""

import math

import torch
from torch import Tensor

from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import Drawn, InferenceNetwork
from sbi_models.networks.layers import Widths, check_subnet, make_subnet
from sbi_models.networks.noise import Generators, normal
from sbi_models.networks.registry import register
from sbi_models.networks.solvers import MOST_STEPS
from sbi_models.networks.training_noise import noises_and_times

SMALLEST_ANGLE = 1e-4
"""Below it, rounding would dominate the target."""


@register("consistency_model")
class ConsistencyModel(InferenceNetwork):
    """A consistency model that teaches itself; draws in few calls, no density.

    Args:
        widths: hidden widths of the network inside, or "small", "medium", "large"; equal ones for "residual".
        steps: calls of the network for a draw. One or two serve a posterior with one mode; more keep draws
            out of the gaps between modes.
        noise_per_pair: noises and times that each pair (theta, conditions) is trained on in a step; the
            summary network runs once for all.
        longest_jump: largest fraction by which, in training, the angle of a target is smaller.
        subnet: name of the network inside: "residual", "mlp", or one of your own.

    >>> network = ConsistencyModel(widths=(16, 16), steps=2)
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> tuple(network.sample(10, torch.zeros(5, 3)).shape)
    (5, 10, 2)
    """

    has_density = False

    def __init__(
        self,
        widths: Widths = "medium",
        *,
        steps: int = 8,
        noise_per_pair: int = 4,
        longest_jump: float = 0.5,
        subnet: str = "residual",
    ) -> None:
        super().__init__()
        if min(noise_per_pair, steps) < 1:
            raise ConfigurationError("Expected noise_per_pair and steps of at least 1.")
        positive_int(steps, "steps", MOST_STEPS)
        if not 0 < longest_jump <= 1:
            raise ConfigurationError(f"Expected longest_jump above 0 and at most 1, got {longest_jump}.")
        check_subnet(subnet, widths)
        self.subnet, self.widths, self.steps = subnet, widths, steps
        self.noise_per_pair, self.longest_jump = noise_per_pair, longest_jump

    def _build(self, theta_dim: int, condition_dim: int) -> None:
        self.theta_dim = theta_dim
        self.field = make_subnet(
            self.subnet, theta_dim, 2 * theta_dim, condition_dim, self.widths, has_time=True
        )

    def denoise(self, u: Tensor, angle: Tensor, conditions: Tensor) -> Tensor:
        """f: where the flow from u (..., theta_dim) at angles (..., 1) ends, in standardized space."""
        return u - angle.sin() * self._outputs(u, angle, conditions)[1]

    def draw(self, theta: Tensor, generator: torch.Generator | None = None) -> Drawn:
        """Noise (n, noise_per_pair, theta_dim), times and jumps (n, noise_per_pair, 1).

        Jumps are fractions of the longest.
        """
        noise, t = noises_and_times(theta, self.noise_per_pair, generator)
        return noise, t, torch.rand(t.shape, device=t.device, dtype=t.dtype, generator=generator)

    def loss_given(self, theta: Tensor, conditions: Tensor, drawn: Drawn) -> Tensor:
        """Squared errors of V and of F, averaged over dimensions and noises and summed, shape (n,)."""
        noise, t, fraction = drawn
        jump = self.longest_jump * fraction
        clean, given = theta[:, None, :], conditions[:, None, :]
        angle = SMALLEST_ANGLE + (math.pi / 2 - SMALLEST_ANGLE) * t
        u = angle.cos() * clean + angle.sin() * noise
        flow, mean_slope = self._outputs(u, angle, given)
        with torch.no_grad():
            move = -jump * angle
            halfway, _ = self._outputs(u + move / 2 * flow, angle + move / 2, given)
            end = self.denoise(u + move * halfway, angle + move, given)
            target = (u - end) / angle.sin()
        velocity = angle.cos() * noise - angle.sin() * clean
        return ((flow - velocity).square() + (mean_slope - target).square()).mean(dim=(1, 2))

    def sample(
        self, num_samples: int, conditions: Tensor, generator: Generators = None, *, steps: int | None = None
    ) -> Tensor:
        """Standardized draws (n, num_samples, theta_dim), by default with the network's number of calls."""
        shape, given = (len(conditions), num_samples, self.theta_dim), conditions[:, None, :]
        count = self.steps if steps is None else steps
        draws = torch.zeros(())
        for angle in math.pi / 2 * (1 - torch.arange(count, dtype=conditions.dtype) / count):
            u = angle.cos() * draws + angle.sin() * normal(shape, generator, conditions)
            draws = self.denoise(u, angle.to(conditions).reshape(1, 1, 1), given)
        return draws

    def _outputs(self, u: Tensor, angle: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """V and F, both (..., theta_dim)."""
        flow, mean_slope = self.field(u, conditions, angle * (2 / math.pi)).chunk(2, dim=-1)
        return flow, mean_slope
