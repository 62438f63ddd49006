"""Flow matching: a velocity field that carries noise to the posterior.

    theta_t = (1 - t) z + t theta,   z ~ Normal(0, I),   t = 0 noise, t = 1 data
    v(theta_t, t) = E[theta - z | theta_t]

Y. Lipman et al., Flow matching for generative modeling, ICLR 2023, arXiv:2210.02747; for posteriors: J.
Wildberger et al., Flow matching for scalable simulation-based inference, NeurIPS 2023, arXiv:2305.17161.

The network does not learn v itself. Were theta standard normal, v would be c(t) theta_t with c = (2t - 1) /
s(t)^2 and s(t)^2 = t^2 + (1 - t)^2 = Var(theta_t), and the part of theta - z that theta_t does not explain
would have the variance 1 / s(t)^2. So

    v(theta_t, t) = c(t) theta_t + F(theta_t / s(t), t, conditions) / s(t)

gives F an input and a target of unit variance at every time (the argument of T. Karras et al., Elucidating
the design space of diffusion-based generative models, NeurIPS 2022, arXiv:2206.00364, carried over to this
path).
"""

import torch
from torch import Tensor

from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import Drawn, InferenceNetwork
from sbi_models.networks.layers import Widths, check_subnet, make_subnet
from sbi_models.networks.noise import Generators, normal
from sbi_models.networks.registry import register
from sbi_models.networks.solvers import (
    MOST_STEPS,
    State,
    graded_times,
    runge_kutta_4,
    standard_normal_log_density,
    with_divergence,
)
from sbi_models.networks.training_noise import noises_and_times


@register("flow_matching")
class FlowMatching(InferenceNetwork):
    """Flow matching with straight paths.

    Args:
        subnet: name of the network inside: "residual", "mlp", or one of your own.
        widths: its hidden widths, or "small", "medium", "large"; equal ones for "residual".
        noise_per_pair: noises and times that each pair (theta, conditions) is trained on in a step; the
            summary network runs once for all.
        steps: steps of the solver for sampling and density; each calls the network four times.
        grading: how much finer the steps are near the data (1: equal steps). With the defaults the sd of a
            normal posterior is exact to 0.4 % down to an sd of 0.005 in standardized space (a posterior 200
            times narrower than the prior), and to 2 % down to 0.001; narrower ones need more steps.

    >>> network = FlowMatching(widths=(16, 16), steps=4)
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> tuple(network.sample(10, torch.zeros(5, 3)).shape)
    (5, 10, 2)
    >>> tuple(network.log_prob(torch.zeros(5, 2), torch.zeros(5, 3)).shape)
    (5,)
    """

    def __init__(
        self,
        widths: Widths = "medium",
        noise_per_pair: int = 4,
        steps: int = 16,
        grading: float = 3.0,
        subnet: str = "residual",
    ) -> None:
        super().__init__()
        if grading < 1:
            raise ConfigurationError(f"Expected grading of at least 1, got {grading!r}.")
        check_subnet(subnet, widths)
        self.subnet, self.widths = subnet, widths
        self.noise_per_pair, self.steps = (
            positive_int(noise_per_pair, "noise_per_pair"),
            positive_int(steps, "steps", MOST_STEPS),
        )
        self.grading = grading

    def _build(self, theta_dim: int, condition_dim: int) -> None:
        self.theta_dim = theta_dim
        self.field = make_subnet(self.subnet, theta_dim, theta_dim, condition_dim, self.widths, has_time=True)

    def velocity(self, theta: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """Velocity at standardized theta_t (..., theta_dim), t (..., 1) and conditions (..., c)."""
        variance = t**2 + (1 - t) ** 2
        inner = self.field(theta / variance.sqrt(), conditions, t)
        velocity: Tensor = (2 * t - 1) / variance * theta + inner / variance.sqrt()
        return velocity

    def draw(self, theta: Tensor, generator: torch.Generator | None = None) -> Drawn:
        """Noise (n, noise_per_pair, theta_dim) and times (n, noise_per_pair, 1).

        Times are stratified: one in each of as many parts of [0, 1].
        """
        return noises_and_times(theta, self.noise_per_pair, generator)

    def loss_given(self, theta: Tensor, conditions: Tensor, drawn: Drawn) -> Tensor:
        """Squared error of the unit-variance target, averaged over dimensions and noises, shape (n,)."""
        noise, t = drawn
        clean = theta[:, None, :]
        noisy = (1 - t) * noise + t * clean
        variance = t**2 + (1 - t) ** 2
        predicted = self.field(noisy / variance.sqrt(), conditions[:, None, :], t)
        target = ((clean - noise) - (2 * t - 1) / variance * noisy) * variance.sqrt()
        losses: Tensor = (predicted - target).square().mean(dim=(1, 2))
        return losses

    def sample(self, num_samples: int, conditions: Tensor, generator: Generators = None) -> Tensor:
        """Standardized draws (n, num_samples, theta_dim): noise carried from t = 0 to t = 1."""
        noise = normal((len(conditions), num_samples, self.theta_dim), generator, conditions)
        given = conditions[:, None, :]
        times = graded_times(self.steps, self.grading, device=noise.device, dtype=noise.dtype)
        (draws,) = runge_kutta_4(
            lambda t, state: (self.velocity(state[0], t.reshape(1, 1, 1), given),), (noise,), times
        )
        return draws

    def log_prob(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Log density in nats of standardized theta, shape (n,): the flow back, with the exact divergence."""
        times = graded_times(self.steps, self.grading, device=theta.device, dtype=theta.dtype).flip(0)

        def field(t: Tensor, state: State) -> State:
            return with_divergence(lambda x: self.velocity(x, t.reshape(1, 1), conditions), state[0])

        noise, gained = runge_kutta_4(field, (theta, theta.new_zeros(len(theta))), times)
        # Along the path from noise to data log p changes by minus the integral of the divergence; the grid
        # runs the other way.
        return standard_normal_log_density(noise) + gained
