"""Edges of networks: exact ends, defaults, and parts that data of one scale or one variable do not show."""

import inspect
import math

import pytest
import torch
from network_contract import every_inference, make, rng

from sbi_models.networks import AutoregressiveMixture, registry
from sbi_models.networks.diffusion import make_schedule
from sbi_models.networks.solvers import with_divergence


def normal(shape, seed):
    return torch.randn(shape, generator=rng(seed), dtype=torch.float64)


ENDS = {
    "cosine": (18.0, -16.0),
    "linear": (18.0, -math.log(math.expm1((0.1 + 24.0) / 2))),
    "edm": (-2 * math.log(1.2e-4), -2 * math.log(1000.0)),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_ends_of_a_schedule_are_exact(name):
    """The log-SNRs at both ends are those of the defaults, to the digits of float64."""
    assert make_schedule(name).ends() == pytest.approx(ENDS[name], rel=1e-9)


def test_the_divergence_is_the_trace_of_the_jacobian():
    """Of a linear field, whose Jacobian is its matrix, and of a product, whose partial derivatives differ."""
    x, matrix = normal((5, 3), 1), normal((3, 3), 2)
    value, divergence = with_divergence(lambda x: x @ matrix.mT, x)
    torch.testing.assert_close(value, x @ matrix.mT)
    torch.testing.assert_close(divergence, matrix.trace().expand(5))
    _, divergence = with_divergence(lambda x: x.prod(dim=1, keepdim=True) * x, x)
    torch.testing.assert_close(divergence, 6 * x.prod(dim=1))


@pytest.mark.parametrize("name", ["coupling_flow", "autoregressive_mixture"])
def test_the_loss_of_a_network_with_an_exact_density_is_its_negative_logarithm(name):
    """In nats for each row, without dropout."""
    network, theta, given = make(name), normal((6, 2), 1).float(), normal((6, 3), 2).float()
    torch.testing.assert_close(network.loss(theta, given), -network.log_prob(theta, given))


@every_inference
def test_random_numbers_of_the_loss_have_the_precision_of_the_parameters(name):
    """Training in float64 draws noise and times in float64."""
    drawn = make(name).double().train().draw(normal((4, 2), 1), rng(2))
    assert {part.dtype for part in drawn} <= {torch.float64}


def test_an_autoregressive_mixture_starts_without_a_slope_and_with_weights_of_both_signs():
    """Fresh linear parts are 0, and weights of the context spread uniformly over their range."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = AutoregressiveMixture(trunk_width=30, head_width=50)
        network.build(2, 3)
    assert not network.linear.any()
    bound = 1 / math.sqrt(30 + 3 + 2)
    for weight in (network.context_weight, network.earlier_weight):
        assert -bound <= weight.min() < -0.9 * bound
        assert 0.9 * bound < weight.max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_parameters_that_conditions_determine_exactly_have_a_finite_start():
    """A residual variance of 0 has no logarithm; the start has a small sd in its place."""
    network, given = AutoregressiveMixture(components=2, trunk_width=0, head_width=4), torch.zeros(50, 1)
    network.build(1, 1)
    network.start_from(torch.zeros(50, 1), given)
    assert network.log_scale.item() == pytest.approx(math.log(1e-6))
    assert network.log_prob(torch.zeros(2, 1), given[:2]).isfinite().all()


DEFAULTS = {
    "autoregressive_mixture": {"components": 12, "trunk_width": 128, "trunk_blocks": 2, "head_width": 64}
    | {"head_blocks": 2, "dropout": 0.0, "order": "random"},
    "consistency_model": {
        "widths": "medium",
        "steps": 8,
        "noise_per_pair": 4,
        "longest_jump": 0.5,
        "subnet": "residual",
    },
    "coupling_flow": {"depth": 3, "transform": "spline", "bins": 8, "bound": 5.0, "subnet": "residual"}
    | {"widths": (128, 128), "base": "normal", "degrees_of_freedom": 25},
    "diffusion_model": {
        "widths": "medium",
        "schedule": "cosine",
        "schedule_arguments": None,
        "prediction": "velocity",
    }
    | {"sampler": "rk4", "steps": None, "density_steps": 32, "noise_per_pair": 4, "drop_conditions": None}
    | {"preconditioning": None, "subnet": "residual"},
    "flow_matching": {
        "widths": "medium",
        "noise_per_pair": 4,
        "steps": 16,
        "grading": 3.0,
        "subnet": "residual",
    },
    "scoring_rules": {"scoring_rules": ("mean", "quantile"), "widths": "medium", "subnet": "residual"},
    "mixture": {"components": 4},
    "quantile": {"levels": (0.05, 0.5, 0.95)},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_kept(name):
    """Another default is another result for everyone who has not set it: a decision, made here as well."""
    kind = registry.NETWORKS[name]
    arguments = inspect.signature(kind.__init__).parameters.values()
    assert {a.name: a.default for a in arguments if a.default is not a.empty} == DEFAULTS[name]
    assert kind().config == DEFAULTS[name]
