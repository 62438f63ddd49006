"""Importance weights of an amortized posterior's draws, by prior and learned likelihood."""

from typing import Any

import numpy as np
import torch

from sbi_models import seeding
from sbi_models.approximators.element_likelihood import ElementLikelihood
from sbi_models.approximators.validation import as_variables
from sbi_models.errors import ConfigurationError
from sbi_models.types import Array, FloatArray, Variables, VariablesLike
from sbi_models.workflows.importance_weights import weighted_draws
from sbi_models.workflows.likelihood.prior import Prior
from sbi_models.workflows.resampling import log_mean_weight, resampled
from sbi_models.workflows.workflow import Workflow

_PROPOSALS_PER_DRAW = 10


class WeightedDraws:
    """Draws of an amortized posterior of all data sets, weighted by prior times likelihood, resampled.

    Args:
        proposal: trained workflow whose inference variables are the parameters.
        conditions: data, raw space, as both the proposal and the likelihood take them.
        prior: prior of the posterior.
        likelihood: learned likelihood of the data.
        num_samples: draws for each data set.
        seed: seed of the draws.

    Attributes:
        draws: name to (n, num_samples, width), raw space.
        pareto_k: shape of the tail of the weights (n,).
        effective: effective number of draws by smoothed weights (n,).
        log_evidence: log mean weight (n,), in nats.
    """

    def __init__(
        self,
        proposal: Workflow,
        conditions: VariablesLike,
        prior: Prior,
        likelihood: ElementLikelihood,
        *,
        num_samples: int,
        seed: int,
    ) -> None:
        approximator, names = proposal.approximator, tuple(prior.distributions)
        if set(approximator.inference_names) != set(names):
            raise ConfigurationError(
                f"Expected a proposal that infers {', '.join(map(repr, names))}, got one of "
                f"{', '.join(map(repr, approximator.inference_names))}."
            )
        observed = as_variables(
            conditions, approximator.condition_names, what="conditions", may_miss=approximator.may_miss
        )
        number = _PROPOSALS_PER_DRAW * num_samples
        parts = [
            weighted_draws(
                approximator,
                {name: value[k][None] for name, value in observed.items()},
                _nothing,
                num_samples=number,
                batch_size=None,
                seed=seeding.derive(seed, "proposals", k),
            )
            for k in range(likelihood.number)
        ]
        proposed = {name: np.concatenate([draws[name] for draws, _ in parts]) for name in names}
        log_inverse = np.concatenate([weights for _, weights in parts])
        weights = log_inverse + _log_joint(proposed, prior, likelihood)
        self.log_evidence = log_mean_weight(weights)
        self.draws, self.effective, self.pareto_k = resampled(proposed, weights, num_samples, seed)


def _nothing(**variables: Array) -> FloatArray:
    """Log density 0 of every draw, so that log weights are minus the log density of the proposal."""
    first: Any = next(iter(variables.values()))
    return np.zeros(len(first))


def _log_joint(draws: Variables, prior: Prior, likelihood: ElementLikelihood) -> FloatArray:
    """Log prior plus log likelihood (n, S) of draws, name to (n, S, width), raw space."""
    n, s = next(iter(draws.values())).shape[:2]
    raw = {
        name: torch.as_tensor(draws[name], dtype=torch.float64).reshape(n * s, -1)
        for name in prior.distributions
    }
    with torch.no_grad():
        total = prior.log_prob(raw) + likelihood(raw, torch.arange(n).repeat_interleave(s))
    return np.asarray(torch.where(total.isnan(), -torch.inf, total).reshape(n, s).numpy())
