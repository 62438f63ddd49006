"""Optimizers of the weights of an approximator, from a class, function or instance."""

import inspect
from collections.abc import Callable

import torch
from torch import nn

from sbi_models.errors import ConfigurationError

OptimizerLike = torch.optim.Optimizer | type[torch.optim.Optimizer] | Callable[..., torch.optim.Optimizer]
"""An optimizer class or a function of (parameters, lr=...), or an instance, whose class and settings are
taken over."""


def make_optimizer(
    like: OptimizerLike | None, module: nn.Module, learning_rate: float, weight_decay: float, *, fused: bool
) -> torch.optim.Optimizer:
    """The optimizer of a module's parameters.

    Args:
        like: optimizer to use: None for AdamW (Adam if weight_decay is 0); a class or function, called with
            the parameters and lr=learning_rate; or an instance made with any parameters: its class and
            settings, learning rate included, are used for the module's parameters.
        module: module with the parameters to train.
        learning_rate: learning rate at its peak.
        weight_decay: weight decay of AdamW, for the weights of linear and convolution layers, not for biases,
            norms and embeddings.
        fused: use the fused kernel of AdamW.
    """
    if like is None:
        return torch.optim.AdamW(_groups(module, weight_decay), lr=learning_rate, fused=fused)
    parameters = list(module.parameters())
    if isinstance(like, torch.optim.Optimizer):
        known = inspect.signature(type(like)).parameters
        return type(like)(
            parameters, **{name: value for name, value in like.defaults.items() if name in known}
        )
    make: Callable[..., object] = like
    optimizer = make(parameters, lr=learning_rate)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigurationError(
            f"Expected optimizer to make a torch.optim.Optimizer of (parameters, lr=...), got {optimizer!r}."
        )
    return optimizer


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters that decay and those that do not."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            (
                decayed if name == "weight" and isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d) else plain
            ).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
