"""Score of the prior in standardized space, from a function, torch distributions, or the network.

With z = S(A(theta)), adapter A and standardizer S, the density is p(z) = p(theta) |det d theta / d z|, so
that

    d log p / d z = (d theta / d z)^T d log p / d theta - d / d z log |det d z / d theta|
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from sbi_models.approximators.composition.items import time_of
from sbi_models.approximators.continuous import ContinuousApproximator
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.networks import DiffusionModel
from sbi_models.numeric_input import real_array
from sbi_models.torch_defaults import as_user, in_double_precision

PriorScore = Callable[[Tensor], Tensor]
"""d log p(z) / d z (m, d) at z (m, d), float64, standardized space."""

PriorScoreLike = Callable[..., Mapping[str, Any]] | Distribution | Mapping[str, Distribution]
"""Prior score as users pass it: a function, a torch distribution, or one for each variable."""

_NOISE = 0.05


def prior_score(prior: PriorScoreLike | None, approximator: ContinuousApproximator) -> PriorScore:
    """The prior score of what a user passed.

    Raises:
        ConfigurationError: for what is no prior of all inferred variables, or for None if the network never
            learned the prior.
    """
    if prior is None:
        return _of_network(approximator)
    names = approximator.inference_names
    if isinstance(prior, Distribution):
        if len(names) != 1:
            raise ConfigurationError(
                f"Expected a dict of torch distributions, one for each of {list(names)}, got one "
                "distribution."
            )
        prior = {names[0]: prior}
    if isinstance(prior, Mapping):
        return _of_distributions(dict(prior), approximator)
    if not callable(prior):
        raise ConfigurationError(
            "Expected compute_prior_score as a function of (data, t=None), a torch distribution, "
            f"or a dict of them, got {prior!r}."
        )
    return _of_function(prior, approximator)


def _of_network(approximator: ContinuousApproximator) -> PriorScore:
    network = approximator.inference_network
    assert isinstance(network, DiffusionModel)
    if not network.knows_prior:
        raise ConfigurationError(
            "Composition divides by the prior, which this network never learned: it was trained without "
            "dropped conditions. Pass compute_prior_score (a function, or the torch distribution of the "
            "prior), or train a DiffusionModel(drop_conditions=0.15)."
        )
    return lambda z: score_without_conditions(network, z, _NOISE)


def score_without_conditions(network: DiffusionModel, z: Tensor, noise: float) -> Tensor:
    """Score (m, d), float64, at z (m, d) with a little noise, by the network without conditions."""
    t, alpha = time_of(network, noise)
    with torch.no_grad():
        points = (alpha * z).to(next(network.parameters()))
        return alpha * network.score(points, points.new_full((1, 1), t), None).to("cpu", torch.float64)


def _of_distributions(priors: dict[str, Distribution], approximator: ContinuousApproximator) -> PriorScore:
    names = approximator.inference_names
    for name, prior in priors.items():
        if name not in names or not isinstance(prior, Distribution):
            raise ConfigurationError(
                f"Expected torch distributions of inferred variables, got {name!r}. "
                f"{suggest(str(name), names)}"
            )
    priors = {name: in_double_precision(prior) for name, prior in priors.items()}
    missing = [name for name in names if name not in priors]
    if missing:
        raise ConfigurationError(
            f"Expected the prior of every inferred variable, got none for {missing[0]!r}."
        )

    def log_density(raw: dict[str, Tensor]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for name, prior in priors.items():
            value, event = raw[name], prior.batch_shape + prior.event_shape
            value = value.reshape(-1, *event) if value[0].numel() == event.numel() else value
            support: Any = prior.support  # log_prob checks it only while PyTorch validates arguments
            if not bool(support.check(value.detach()).all()):
                raise DataError(
                    f"Expected points inside the support of the prior of {name!r}, got some outside: the "
                    "adapter does not keep draws there. Give the prior to the workflow, too, or use "
                    "adapter.constrain(name, prior=...)."
                )
            total = total + prior.log_prob(value).sum()
        return total

    def score(z: Tensor) -> Tensor:
        return _gradient(z, approximator, log_density)

    return score


def _of_function(
    function: Callable[..., Mapping[str, Any]], approximator: ContinuousApproximator
) -> PriorScore:
    parameters = inspect.signature(function).parameters.values()
    times = {p.name: 0.0 for p in parameters if p.name in ("t", "time") and p.default is p.empty}

    def log_density(raw: dict[str, Tensor]) -> Tensor:
        given = {name: value.detach().cpu().numpy() for name, value in raw.items()}
        scores = _checked(as_user(function, given, **times), given)
        total = torch.zeros((), dtype=torch.float64)
        for name, value in raw.items():  # linear in raw, with the score as its slope
            total = total + (value * torch.as_tensor(scores[name])).sum()
        return total

    def score(z: Tensor) -> Tensor:
        return _gradient(z, approximator, log_density)

    return score


def _checked(scores: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The result of the user's function, checked, float64, for raw variables."""
    if not isinstance(scores, Mapping):
        raise DataError(
            "Expected compute_prior_score to return a dict of variables to scores, got "
            f"{type(scores).__name__}."
        )
    checked = {}
    for name in scores:
        if name not in given:
            raise DataError(
                f"compute_prior_score returned {name!r}, which is not inferred. {suggest(str(name), given)}"
            )
    for name, value in given.items():
        if name not in scores:
            raise DataError(
                f"Expected compute_prior_score to return the score of {name!r}, got "
                f"{', '.join(map(repr, scores)) or 'nothing'}."
            )
        score = real_array(scores[name], f"the prior score of {name!r}").astype(np.float64)
        if score.shape != value.shape:
            raise DataError(
                f"Expected the prior score of {name!r} of the shape of its values {value.shape}, "
                f"got {score.shape}."
            )
        if not np.isfinite(score).all():
            raise DataError(
                f"Expected a finite prior score of {name!r}, got NaN or inf at "
                f"{int((~np.isfinite(score)).sum())} places."
            )
        checked[name] = score
    return checked


def _gradient(
    z: Tensor, approximator: ContinuousApproximator, log_density: Callable[[dict[str, Tensor]], Tensor]
) -> Tensor:
    """d / dz of a log density of raw variables and of the volume of the change to them, at z (m, d)."""
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        raw = approximator.raw_of(z)
        log_volume = approximator.adapter.log_abs_det(raw, "inference_variables").sum()
        (gradient,) = torch.autograd.grad(log_density(raw) - log_volume, z, allow_unused=True)
    gradient = torch.zeros_like(z) if gradient is None else gradient.detach()
    if not bool(gradient.isfinite().all()):
        raise DataError(
            "The prior score is not finite at a point of the posterior: it lies on the edge of "
            "the prior's support."
        )
    return gradient
