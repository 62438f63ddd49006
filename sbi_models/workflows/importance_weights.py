"""Importance weights of posterior draws, from a known likelihood and prior."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.distributions import Distribution

from sbi_models.approximators import Approximator
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.simulators import Simulator
from sbi_models.torch_defaults import as_user
from sbi_models.types import Array, FloatArray, Variables

LogDensity = Callable[..., Any]
"""A function of variables by name, each of shape (S, ...) in raw space, that gives log densities in nats,
shape (S,)."""


@runtime_checkable
class LearnedLikelihood(Protocol):
    """A workflow with a learned likelihood: `LikelihoodWorkflow`."""

    @property
    def priors(self) -> Mapping[str, Distribution]:
        """Torch distributions of the parameters, as far as they are known."""
        ...

    def log_density_of(self, parameters: Sequence[str], conditions: Sequence[str]) -> LogDensity:
        """The log likelihood as a function of variables by name."""
        ...


def log_joint_of(
    approximator: Approximator,
    simulator: Simulator | None,
    priors: Mapping[str, Distribution],
    log_likelihood: LogDensity | LearnedLikelihood | None,
    log_prior: LogDensity | None,
) -> LogDensity | None:
    """log p(theta, x) as a function of all variables by name; None if it or the density is not known."""
    if isinstance(log_likelihood, LearnedLikelihood):
        priors = {**log_likelihood.priors, **priors}
        log_likelihood = log_likelihood.log_density_of(
            approximator.inference_names, approximator.condition_names
        )
    comparable = approximator.has_draws and all(
        member.has_density for member in approximator.members.values()
    )
    names = approximator.inference_names + approximator.condition_names
    if log_likelihood is None:
        if log_prior is not None:
            raise ConfigurationError(
                "Expected log_likelihood with log_prior, got log_prior alone. Pass both, or neither."
            )
        known = None if simulator is None else simulator.log_joint
        fits = known is not None and set(inspect.signature(known).parameters) <= set(names)
        return known if fits and comparable else None
    if not comparable:
        raise ConfigurationError(
            "Expected an approximator with draws and a density to weight its draws by "
            "log_likelihood, got one without. Leave it out."
        )
    prior = log_prior or _torch_prior(approximator.inference_names, priors)
    likelihood = log_likelihood

    def log_joint(**variables: Array) -> FloatArray:
        inferred = {name: variables[name] for name in approximator.inference_names}
        return np.asarray(
            _called(prior, inferred, "log_prior") + _called(likelihood, variables, "log_likelihood")
        )

    return log_joint


def _torch_prior(names: tuple[str, ...], priors: Mapping[str, Distribution]) -> LogDensity:
    missing = [name for name in names if name not in priors]
    if missing:
        raise ConfigurationError(
            f"Expected log_prior with log_likelihood, since the prior of {missing[0]!r} is not known as a "
            "torch distribution. Pass log_prior=, a function of the parameters by name."
        )
    return torch_log_prior({name: priors[name] for name in names})


def torch_log_prior(priors: Mapping[str, Distribution]) -> LogDensity:
    """Log density of independent torch distributions as a function of their parameters by name.

    It takes raw values of shape (S, ...) and gives (S,) in nats, -inf outside of the support.
    """

    def log_prior(**inferred: Array) -> FloatArray:
        total = np.zeros(len(next(iter(inferred.values()))))
        for name, values in inferred.items():
            one = priors[name]
            shape = one.batch_shape + one.event_shape
            given = torch.as_tensor(values).reshape(len(values), *shape)
            support: Any = one.support
            inside = support.check(given).reshape(len(values), -1).all(dim=1)
            density = np.full(len(values), -np.inf)
            if bool(inside.any()):
                known = one.log_prob(given[inside]).reshape(int(inside.sum()), -1).sum(dim=1)
                density[inside.numpy()] = known.numpy()
            total += density
        return total

    return log_prior


def log_weights(
    approximator: Approximator,
    observed: Variables,
    log_joint: LogDensity,
    *,
    num_samples: int,
    batch_size: int | None,
    seed: int,
) -> FloatArray:
    """Log importance weights log p(theta, x) - log q(theta given x), (num_datasets, num_samples)."""
    return weighted_draws(
        approximator, observed, log_joint, num_samples=num_samples, batch_size=batch_size, seed=seed
    )[1]


def weighted_draws(
    approximator: Approximator,
    observed: Variables,
    log_joint: LogDensity,
    *,
    num_samples: int,
    batch_size: int | None,
    seed: int,
) -> tuple[Variables, FloatArray]:
    """Draws, name to (num_datasets, num_samples, width), and their log importance weights.

    These are log p(theta, x) - log q(theta given x), of shape (num_datasets, num_samples).
    """
    draws = approximator.sample(
        num_samples=num_samples, conditions=observed, batch_size=batch_size, seed=seed
    )
    rows = []
    for i in range(len(next(iter(observed.values())))):
        theta = {
            name: draws[name][i].reshape(num_samples, *approximator.shapes[name])
            for name in approximator.inference_names
        }
        x = {
            name: np.broadcast_to(value[i], (num_samples, *value.shape[1:]))
            for name, value in observed.items()
        }
        known = _called(log_joint, theta | x, "log_likelihood")
        if known.shape != (num_samples,) or np.isnan(known).any() or np.isposinf(known).any():
            raise DataError(
                f"Expected log densities of shape ({num_samples},) without NaN or inf, one for each draw, "
                f"got shape {known.shape}{' with some' if known.shape == (num_samples,) else ''}. Mind the "
                "shapes that the function is given: (S, ...) each."
            )
        rows.append(known - approximator.log_prob(theta | x, batch_size=batch_size))
    return draws, np.stack(rows)


def _called(function: LogDensity, variables: Mapping[str, Array], what: str) -> FloatArray:
    """A function of the user, called with those of the variables that it names."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return np.asarray(as_user(function, **variables), dtype=float)
    for parameter in parameters:
        if parameter.name not in variables and parameter.default is parameter.empty:
            raise ConfigurationError(
                f"{what} takes {parameter.name!r}, which is no variable here. "
                f"{suggest(parameter.name, variables)}"
            )
    taken = {
        parameter.name: variables[parameter.name] for parameter in parameters if parameter.name in variables
    }
    return np.asarray(as_user(function, **taken), dtype=float)
