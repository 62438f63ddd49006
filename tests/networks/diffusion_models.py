"""Small diffusion models, and the one of a given denoiser."""

import pytest
import torch
from network_contract import shipped

from sbi_models.networks import DiffusionModel
from sbi_models.networks.diffusion import SAMPLERS, SCHEDULES

every_schedule = pytest.mark.parametrize("name", shipped(SCHEDULES))
every_sampler = pytest.mark.parametrize("sampler", shipped(SAMPLERS))
NORMAL = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def made(theta_dim=2, condition_dim=3, *, seed=0, size=0.5, **arguments):
    """A small network in double precision with random weights in its last layer: far from normal, but
    smooth."""
    network = DiffusionModel(widths=(16, 16), **arguments)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.build(theta_dim, condition_dim)
        last = network.denoiser.field.out
        last.weight.data = size * torch.randn(last.weight.shape) / 4
        last.bias.data = size * torch.randn(last.bias.shape)
    return network.double()


def conditions(n, seed=1):
    return torch.randn(n, 3, generator=rng(seed), dtype=torch.float64)


def with_denoiser(denoise, theta_dim, **arguments):
    """A diffusion model whose posterior mean is a given function of theta_t and t."""
    network = made(theta_dim, 1, **arguments)
    network.denoiser = Exact(denoise)
    return network


class Exact(torch.nn.Module):
    def __init__(self, denoise):
        super().__init__()
        self.denoise = denoise

    def forward(self, theta_t, t, conditions):
        return self.denoise(theta_t, t) + 0 * conditions.sum(dim=-1, keepdim=True)


WEIGHTS, MEANS, SDS = (
    torch.tensor(value, dtype=torch.float64) for value in ([0.3, 0.7], [[-1.0, 0.5], [0.8, -0.2]], [0.3, 0.1])
)


def mixture_density(theta):
    each = torch.distributions.Normal(MEANS, SDS[:, None]).log_prob(theta[:, None, :]).sum(dim=-1)
    return (each + WEIGHTS.log()).logsumexp(dim=-1)
