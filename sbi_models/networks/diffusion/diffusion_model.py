"""Diffusion model: draws noise back to the posterior, by the score of noisy parameters.

    theta_t = alpha(t) theta_0 + sigma(t) z,   z ~ Normal(0, I),   t = 0 data, t = 1 noise

J. Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020, arXiv:2006.11239; Y. Song et al.,
Score-based generative modeling through stochastic differential equations, ICLR 2021, arXiv:2011.13456; for
posteriors: T. Geffner et al., Compositional score modeling for simulation-based inference, ICML 2023,
arXiv:2209.14249.

Three nouns: a `Schedule` says how much noise there is at a time, a `Denoiser` knows E[theta_0 | theta_t], a
`Sampler` makes draws with any denoiser. Composition and guidance are denoisers that hold this one.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks.base import Drawn, InferenceNetwork
from sbi_models.networks.diffusion.denoiser import Denoise, Denoiser, check_prediction, score_of, velocity_at
from sbi_models.networks.diffusion.gaussian_denoiser import GaussianDenoiser
from sbi_models.networks.diffusion.samplers import MOST_SAMPLER_STEPS, SAMPLERS, Task, angles
from sbi_models.networks.diffusion.schedules import make_schedule
from sbi_models.networks.layers import Widths, check_subnet, make_subnet
from sbi_models.networks.noise import Generators, normal
from sbi_models.networks.registry import register
from sbi_models.networks.solvers import (
    MOST_STEPS,
    State,
    runge_kutta_4,
    standard_normal_log_density,
    with_divergence,
)
from sbi_models.networks.training_noise import noises_and_times

_PRECONDITIONINGS = ("unit", "gaussian")

_SHARE_OF_GAUSSIAN = 0.3
"""Weight of the Gaussian's negative log density beside the error of the score."""


@register("diffusion_model")
class DiffusionModel(InferenceNetwork):
    """A diffusion model with a choice of schedule, prediction and sampler.

    Args:
        widths: hidden widths of the network inside, or "small", "medium", "large"; equal ones for "residual".
        schedule: "cosine", "linear" or "edm"; times of training are uniform in its time.
        schedule_arguments: what differs from the schedule's defaults, such as {"log_snr_max": 20.0}.
        prediction: what the network predicts, up to its preconditioning: "velocity", "noise" or "x".
        sampler: "rk4", "heun", "ddim" and "dpm" (probability flow), "ancestral" and "sde_dpm" (reverse
            diffusion).
        steps: steps of the sampler; None for its own number. With the defaults the sd of a normal posterior
            is exact to 0.4 % down to an sd of 0.005 in standardized space (a posterior 200 times narrower
            than the prior), and to 2.5 % down to 0.001.
        density_steps: steps of the fourth-order rule that computes densities. With the default log densities
            are exact to 0.01 nats a dimension down to an sd of 0.005; points between two modes need more
            steps.
        noise_per_pair: noises and times that each pair (theta, conditions) is trained on in a step; the
            summary network runs once for all.
        drop_conditions: probability of training a pair without its conditions, for which a learned vector
            stands in. Above 0 the network also learns the score of the prior: `denoise` and `score` with
            conditions=None. None is 0, in a `CompositionalWorkflow` 0.15.
        preconditioning: "unit" makes the standard normal the easiest posterior to learn, "gaussian" a
            Gaussian of each posterior, which a head of its own learns too: there the score is right at small
            noise, as composition needs it, and nearly normal posteriors are learned faster, those of several
            sharp modes more slowly. None is "unit", in a `CompositionalWorkflow` "gaussian".
        subnet: name of the network inside: "residual", "mlp", or one of your own.

    >>> network = DiffusionModel(widths=(16, 16), schedule="edm", sampler="heun", steps=4)
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> tuple(network.sample(10, torch.zeros(5, 3)).shape)
    (5, 10, 2)
    """

    def __init__(
        self,
        widths: Widths = "medium",
        *,
        schedule: str = "cosine",
        schedule_arguments: Mapping[str, Any] | None = None,
        prediction: str = "velocity",
        sampler: str = "rk4",
        steps: int | None = None,
        density_steps: int = 32,
        noise_per_pair: int = 4,
        drop_conditions: float | None = None,
        preconditioning: str | None = None,
        subnet: str = "residual",
    ) -> None:
        super().__init__()
        if min(noise_per_pair, density_steps, 1 if steps is None else steps) < 1:
            raise ConfigurationError("Expected noise_per_pair, steps and density_steps of at least 1.")
        positive_int(density_steps, "density_steps", MOST_STEPS)
        positive_int(1 if steps is None else steps, "steps", MOST_SAMPLER_STEPS)
        if not 0 <= (drop_conditions or 0.0) < 1:
            raise ConfigurationError(
                f"Expected drop_conditions, a probability, at least 0 and below 1, got {drop_conditions}."
            )
        if preconditioning not in (*_PRECONDITIONINGS, None):
            raise ConfigurationError(
                f"Unknown preconditioning {preconditioning!r}. "
                f"{suggest(str(preconditioning), _PRECONDITIONINGS)}"
            )
        check_subnet(subnet, widths)
        check_prediction(prediction)
        if preconditioning == "gaussian" and (prediction != "velocity" or noise_per_pair % 2):
            raise ConfigurationError(
                "Expected prediction='velocity' and an even noise_per_pair, whose noises come in opposite "
                f"pairs, with preconditioning='gaussian', got {prediction!r} and {noise_per_pair}. Leave "
                "them at their defaults."
            )
        self.sampler = SAMPLERS.named(sampler)
        self.schedule = make_schedule(schedule, schedule_arguments)
        self.subnet, self.widths, self.prediction = subnet, widths, prediction
        self.steps, self.density_steps = steps, density_steps
        self.noise_per_pair, self.drop_conditions = noise_per_pair, drop_conditions or 0.0
        self.is_gaussian = preconditioning == "gaussian"
        self.fits_graph = not self.is_gaussian  # whose eigenvalues PyTorch asks the GPU about

    def _build(self, theta_dim: int, condition_dim: int) -> None:
        self.theta_dim, self.condition_dim = theta_dim, condition_dim
        self.denoiser: Denoiser | GaussianDenoiser
        in_dim = 2 * theta_dim if self.is_gaussian else theta_dim
        field = make_subnet(self.subnet, in_dim, theta_dim, condition_dim, self.widths, has_time=True)
        if self.is_gaussian:
            self.denoiser = GaussianDenoiser(field, self.schedule, theta_dim, condition_dim)
        else:
            self.denoiser = Denoiser(field, self.schedule, self.prediction)
        self.no_conditions = (
            nn.Parameter(torch.randn(condition_dim)) if self.drop_conditions and condition_dim else None
        )

    @property
    def knows_prior(self) -> bool:
        """Whether it was also trained without conditions, and has the prior for `conditions=None`."""
        return self.no_conditions is not None or self.condition_dim == 0

    def denoise(self, theta_t: Tensor, t: Tensor, conditions: Tensor | None) -> Tensor:
        """E[theta_0 | theta_t, conditions], shape of theta_t, in standardized space.

        Args:
            theta_t: noisy parameters alpha(t) theta_0 + sigma(t) z, shape (..., theta_dim).
            t: times (..., 1) in [0, 1], 1 is noise.
            conditions: (..., condition_dim), or None for the prior's.

        Raises:
            ConfigurationError: without conditions, if the network was not trained for that.
        """
        mean: Tensor = self.denoiser(theta_t, t, self._given(conditions, theta_t))
        return mean

    def score(self, theta_t: Tensor, t: Tensor, conditions: Tensor | None) -> Tensor:
        """d log p(theta_t | conditions) / d theta_t; arguments and errors as for `denoise`."""
        return score_of(self.denoise(theta_t, t, conditions), theta_t, t, self.schedule)

    def draw(self, theta: Tensor, generator: torch.Generator | None = None) -> Drawn:
        """Noise (n, noise_per_pair, theta_dim), times (n, noise_per_pair, 1) and mask of conditions.

        The mask (n, 1), True where conditions are kept, is there only if some are dropped.

        With "gaussian" preconditioning noises come in pairs z, -z at the same time.
        """
        noise, t = noises_and_times(
            theta, self.noise_per_pair // 2 if self.is_gaussian else self.noise_per_pair, generator
        )
        if self.is_gaussian:
            noise, t = torch.cat([noise, -noise], dim=1), torch.cat([t, t], dim=1)
        if self.no_conditions is None:
            return noise, t
        return (
            noise,
            t,
            torch.rand(len(theta), 1, generator=generator, device=theta.device, dtype=theta.dtype)
            >= self.drop_conditions,
        )

    def loss_given(self, theta: Tensor, conditions: Tensor, drawn: Drawn) -> Tensor:
        """Squared error of the unit-variance prediction, averaged over dimensions and noises, shape (n,).

        With "gaussian" preconditioning the negative log density of the Gaussian is a part of it.
        """
        noise, t, *keep = drawn
        if self.no_conditions is not None:
            conditions = torch.where(keep[0], conditions, self.no_conditions)
        errors = self.denoiser.errors(theta[:, None, :], noise, t, conditions[:, None, :])
        losses = errors.square().mean(dim=(1, 2))
        if isinstance(self.denoiser, GaussianDenoiser):
            losses = (
                losses
                + _SHARE_OF_GAUSSIAN * self.denoiser.negative_log_density(theta, conditions) / self.theta_dim
            )
        return losses

    def sample(
        self,
        num_samples: int,
        conditions: Tensor,
        generator: Generators = None,
        *,
        sampler: str | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Standardized draws (n, num_samples, theta_dim), by the network's sampler and steps or others."""
        shape = (len(conditions), num_samples, self.theta_dim)
        task = Task(
            self._denoise_given(conditions[:, None, :]),
            self.schedule,
            lambda: normal(shape, generator, conditions),
        )
        rule = self.sampler if sampler is None else SAMPLERS.named(sampler)
        return rule(task, steps if steps is not None or sampler is not None else self.steps)

    def log_prob(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Log density in nats of standardized theta, (n,): probability flow with exact divergence."""
        grid = angles(self.schedule, self.density_steps, self.sampler.grading).flip(0)
        denoise = self._denoise_given(conditions)

        def field(angle: Tensor, state: State) -> State:
            return with_divergence(lambda u: velocity_at(denoise, self.schedule, u, angle), state[0])

        shrunk = grid[0].cos()
        noise, gained = runge_kutta_4(field, (theta * shrunk, theta.new_zeros(len(theta))), grid)
        return standard_normal_log_density(noise) + gained + self.theta_dim * shrunk.log()

    def _denoise_given(self, conditions: Tensor) -> Denoise:
        return lambda theta_t, t: self.denoise(theta_t, t, conditions)

    def _given(self, conditions: Tensor | None, theta_t: Tensor) -> Tensor:
        """The conditions, or what stands in for none."""
        if conditions is not None:
            return conditions
        if self.condition_dim == 0:
            return theta_t.new_zeros(0)
        if self.no_conditions is None:
            raise ConfigurationError(
                "This network was never trained without conditions, so it does not know the prior. "
                "Train a DiffusionModel(drop_conditions=0.15), or pass conditions."
            )
        return self.no_conditions
