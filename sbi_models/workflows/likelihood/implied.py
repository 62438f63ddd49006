"""The posterior that a saved likelihood implies, asked like an approximator of a posterior."""

from collections.abc import Mapping
from typing import Any

from sbi_models import seeding
from sbi_models.approximators import Approximator, EnsembleApproximator, LikelihoodApproximator
from sbi_models.approximators.element_likelihood import element_log_likelihood, likelihood_members
from sbi_models.arguments import positive_int
from sbi_models.simulators import Simulator
from sbi_models.types import FloatArray, Variables, VariablesLike
from sbi_models.workflows.likelihood.report import PosteriorReport
from sbi_models.workflows.likelihood.workflow import LikelihoodWorkflow


class ImpliedPosterior:
    """Posterior of a learned likelihood under the prior of its simulations, with the names of a posterior's.

    Args:
        approximator: a trained `LikelihoodApproximator`, or an ensemble of some.
        simulator: source of the prior; None takes the one that the file has kept.

    Attributes:
        inference_names: raw names of the parameters.
        condition_names: raw names of the observables, and of the conditions of elements.
        shapes: shape of one row of each variable; of one element of a set for data that are sets.
        any_length: 1 for each variable of data that are sets, which may have any number of elements.
    """

    has_draws = True
    may_miss: frozenset[str] = frozenset()

    def __init__(self, approximator: Approximator, simulator: Simulator | None = None) -> None:
        self.workflow = LikelihoodWorkflow(simulator, network=approximator)
        self.approximator, first = approximator, likelihood_members(approximator)[0][1]
        self.inference_names = first.parameter_names
        self.condition_names = (*first.inference_names, *first.element_conditions)
        are_sets = first.iid is not None
        self.any_length = dict.fromkeys(self.condition_names, 1) if are_sets else {}
        self.shapes = {
            name: (1, *shape) if name in self.any_length else shape for name, shape in first.shapes.items()
        }

    @property
    def info(self) -> Mapping[str, Any]:
        """JSON of the saved file."""
        return self.approximator.info

    def drawn(
        self, *, num_samples: int, conditions: VariablesLike, seed: int | None = None
    ) -> tuple[Variables, list[PosteriorReport]]:
        """Draws, name to (num_datasets, num_samples, width), raw space, and a report on each data set."""
        posterior = self.workflow._posterior(
            {name: conditions[name] for name in self.condition_names if name in conditions}, None
        )
        return posterior.sample(
            positive_int(num_samples, "num_samples"),
            method="auto",
            proposal=None,
            conditions=conditions,
            at_once=None,
            seed=seeding.resolve(seed),
        )

    def sample(self, *, num_samples: int, conditions: VariablesLike, seed: int | None = None) -> Variables:
        """Draws as of `drawn`; a TrustWarning tells of doubts."""
        return self.drawn(num_samples=num_samples, conditions=conditions, seed=seed)[0]

    def log_likelihood(self, data: VariablesLike) -> FloatArray:
        """Log likelihood of data sets at parameters, in nats (num_datasets,), as of `LikelihoodWorkflow`."""
        return element_log_likelihood(self.approximator, data)


def is_likelihood(approximator: Approximator) -> bool:
    """Whether an approximator is a learned likelihood, or an ensemble of some."""
    if isinstance(approximator, EnsembleApproximator):
        return all(map(is_likelihood, approximator.members.values()))
    return isinstance(approximator, LikelihoodApproximator)


def as_posterior(approximator: Approximator) -> Approximator | ImpliedPosterior:
    """What has posterior draws: the approximator itself, or the posterior that a likelihood implies."""
    return ImpliedPosterior(approximator) if is_likelihood(approximator) else approximator
