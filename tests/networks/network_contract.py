"""Small networks of every registered name, data for them, and what the tests of their promises share."""

import sys

import pytest
import torch

from sbi_models.errors import ConfigurationError
from sbi_models.networks import (
    DeepSet,
    InferenceNetwork,
    SummaryNetwork,
    TimeSeriesNetwork,
    network_named,
    registry,
)

SMALL = {
    "flow_matching": {"widths": (16, 16), "steps": 6},
    "scoring_rules": {"widths": (16, 16), "scoring_rules": ["mean", "quantile", "mixture"]},
    "deep_set": {"summary_dim": 5, "widths": (8, 8), "head_widths": (8,)},
    "set_transformer": {"summary_dim": 5, "width": 8, "heads": 2, "head_widths": (8,)},
    "time_series_transformer": {"summary_dim": 5, "width": 8, "heads": 2, "head_widths": (8,)},
    "time_series_network": {"summary_dim": 5, "widths": (8, 8), "hidden_dim": 4, "head_widths": (8,)},
    "convolutional_network": {"summary_dim": 5, "widths": (4, 8), "head_widths": (8,)},
    "fusion_network": {
        "summary_dim": 5,
        "backbones": {
            "y": TimeSeriesNetwork(widths=(8,), hidden_dim=4),
            "x": DeepSet(summary_dim=7, widths=(8, 8), head_widths=(8,)),
        },
        "head_widths": (8,),
    },
    "nested_set": {
        "elements": DeepSet(summary_dim=4, widths=(8,), head_widths=(8,)),
        "groups": DeepSet(summary_dim=5, widths=(8,), head_widths=(8,)),
    },
    "consistency_model": {"widths": (16, 16), "steps": 2},
    "diffusion_model": {"widths": (16, 16), "steps": 6, "density_steps": 4},
    "coupling_flow": {"depth": 2, "widths": (16, 16)},
    "autoregressive_mixture": {"components": 3, "trunk_width": 16, "head_width": 8},
}
"""Arguments that make a network of each name small; a new network needs no entry."""
SHAPES = {
    "convolutional_network": (6, 5, 2),
    "fusion_network": {"x": (6, 2), "y": (6, 3)},
    "nested_set": (3, 6, 2),
}
"""Shape of one input of the summary networks that take neither sets nor series of shape (6, 2)."""
ORDERED = {
    "time_series_transformer",
    "time_series_network",
    "convolutional_network",
    "fusion_network",
}
"""Summary networks to which the order of elements means something; all others summarize sets."""


def shipped(entries):
    """Names of the registered classes and instances that the package itself defines."""
    return [name for name, entry in entries.items() if _is_shipped(entry)]


def _is_shipped(entry):
    """A class of a doctest has the module's name, but is not to be found there."""
    cls = entry if isinstance(entry, type) else type(entry)
    return cls.__module__.startswith("sbi_models") and hasattr(sys.modules[cls.__module__], cls.__name__)


def names(kind):
    """Names of the networks of a kind, inference or summary."""
    return [name for name in sorted(shipped(registry.NETWORKS)) if issubclass(registry.NETWORKS[name], kind)]


every_inference = pytest.mark.parametrize("name", names(InferenceNetwork))
every_summary = pytest.mark.parametrize("name", names(SummaryNetwork))
every = pytest.mark.parametrize("name", names(InferenceNetwork) + names(SummaryNetwork))
every_set = pytest.mark.parametrize("name", sorted(set(names(SummaryNetwork)) - ORDERED - {"nested_set"}))
every_order = pytest.mark.parametrize("name", sorted(ORDERED))


def rng(seed):
    return torch.Generator().manual_seed(seed)


def small(name):
    """A small network that is not built; summaries have width 5."""
    is_summary = issubclass(registry.NETWORKS[name], SummaryNetwork)
    return network_named(name, SMALL.get(name, {"summary_dim": 5} if is_summary else {}))


def make(name, *, built=True, seed=0):
    """A small network; built ones have random weights everywhere, also where they start at zero."""
    network = small(name)
    if built:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network.build(2, 3) if isinstance(network, InferenceNetwork) else network.build(
                SHAPES.get(name, (6, 2))
            )
            for parameter in network.parameters():
                parameter.data += 0.1 * torch.randn(parameter.shape)
    return network


def draws_noise(network):
    """Whether the loss draws random numbers; None for a network with `loss` in place of `loss_given`."""
    if type(network).loss_given is InferenceNetwork.loss_given:
        return None
    return len(network.draw(pairs()[0], rng(0))) > 0


def densities(network, theta, conditions):
    """Log densities, of networks that have them; zeros of others, which have been seen to refuse."""
    if network.has_density:
        return network.log_prob(theta, conditions)
    with pytest.raises(ConfigurationError, match=r"has no density.*Train a"):
        network.log_prob(theta, conditions)
    return theta.new_zeros(len(theta))


def draws(network, num_samples, conditions, generator=None):
    """Draws, of networks that have them; noise of others, which have been seen to refuse."""
    if network.has_draws:
        return network.sample(num_samples, conditions, generator)
    with pytest.raises(ConfigurationError, match=r"has no draws.*estimate"):
        network.sample(num_samples, conditions, generator)
    return torch.randn(len(conditions), num_samples, 2)


def pairs(n=7, seed=1):
    return torch.randn(n, 2, generator=rng(seed)), torch.randn(n, 3, generator=rng(seed + 1))


def each(function, first, *others):
    """The function of tensors, or of the tensors of each name in dicts."""
    if isinstance(first, dict):
        return {
            name: each(function, value, *(other[name] for other in others)) for name, value in first.items()
        }
    return function(first, *others)


def inputs(name, n=4, seed=0, dtype=torch.float32):
    """Inputs of a summary network: a tensor or a dict of tensors."""
    shape, generator = SHAPES.get(name, (6, 2)), rng(seed)
    if isinstance(shape, dict):
        return {key: torch.randn(n, *value, generator=generator, dtype=dtype) for key, value in shape.items()}
    return torch.randn(n, *shape, generator=generator, dtype=dtype)


def first(x, size):
    """The first elements of a set or series, or the upper left corner of an image."""
    return x[:, :size, :size] if x.ndim == 4 else x[:, :size]


def mask_of(x, sizes):
    """A mask of the first elements, or of the upper left corner, of that size in each row."""
    return torch.stack([_corner(x, int(size)) for size in torch.as_tensor(sizes).expand(len(x))])


def _corner(x, size):
    corner = torch.zeros(x.shape[1:-1], dtype=torch.bool)
    first(corner[None, ..., None], size)[...] = True
    return corner
