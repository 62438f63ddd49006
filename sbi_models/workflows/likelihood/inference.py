"""Inference with a learned likelihood: log likelihoods, and posterior draws and maxima for any prior."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from sbi_models import diagnostics, seeding
from sbi_models.approximators.element_likelihood import (
    ElementLikelihood,
    element_log_likelihood,
    likelihood_function,
    likelihood_members,
)
from sbi_models.approximators.rows import by_component
from sbi_models.approximators.validation import as_variables
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.types import Array, FloatArray, Variables, VariablesLike
from sbi_models.workflows.likelihood.posterior import LikelihoodPosterior, Method, warn_of_posteriors
from sbi_models.workflows.likelihood.prior import resolved_prior
from sbi_models.workflows.likelihood.report import PosteriorReport
from sbi_models.workflows.other_prior import PriorLike
from sbi_models.workflows.workflow import Workflow

if TYPE_CHECKING:
    from sbi_models.diagnostics import Verdict


@known_arguments
class LikelihoodInference(Workflow):
    """A workflow with a learned likelihood, however it was trained."""

    priors: Mapping[str, Distribution]
    reports: list[PosteriorReport]
    """Reports on the data sets of the last call of `sample`."""

    # ---- likelihood ---------------------------------------------------------

    def log_likelihood(self, data: VariablesLike, *, batch_size: int | None = None) -> FloatArray:
        """Log likelihood of data sets at parameters, in nats, raw space, (n_datasets,).

        The sum over the elements of each data set, in float64; -inf for parameters outside of the support.

        Args:
            data: parameters (n_datasets, width) and observables, raw space. With `iid`, observables are
                (n_datasets, N, width) for any N, or a list of n_datasets arrays (N_i, width); conditions of
                elements likewise, or (n_datasets, width) for what all elements of a data set share.
            batch_size: data sets at once; memory is bounded without it, too.
        """
        return element_log_likelihood(self.approximator, data, batch_size=batch_size)

    def log_likelihood_fn(self, x: VariablesLike) -> Callable[[Tensor], Tensor]:
        """Log likelihood of one data set as a function of parameters, for gradients and other samplers.

        Args:
            x: observables of one data set, and conditions of elements, as for `log_likelihood` with a leading
                axis of 1.

        Returns:
            A function of a tensor (n, d), raw space, the parameters side by side in the order of
            `parameters`, that gives (n,) in nats, float64, differentiable; -inf outside of the support.
        """
        return likelihood_function(ElementLikelihood(self.approximator, x))

    def log_density_of(
        self, parameters: Sequence[str], conditions: Sequence[str]
    ) -> Callable[..., FloatArray]:
        """The log likelihood as a function of variables by name, such as `importance_sample` takes.

        Args:
            parameters: names of the parameters, which must be those of the likelihood.
            conditions: names of the data, among which must be its observables and conditions of elements.

        Returns:
            A function of variables (S, ...), raw space, that gives (S,) in nats.

        Raises:
            ConfigurationError: for a likelihood of other variables.
        """
        first = likelihood_members(self.approximator)[0][1]
        first._check_built()
        own, data = first.parameter_names, (*first.inference_names, *first.element_conditions)
        if set(own) != set(parameters) or not set(data) <= set(conditions):
            raise ConfigurationError(
                f"Expected a likelihood of {', '.join(conditions)} given {', '.join(parameters)}, got one of "
                f"{', '.join(data)} given {', '.join(own)}."
            )

        def log_density(**variables: Array) -> FloatArray:
            theta = {name: variables[name].reshape(len(variables[name]), -1) for name in own}
            x = {name: variables[name] for name in data}
            if any(value.strides[0] for value in x.values()):
                return self.log_likelihood({**theta, **x})
            one = self.log_likelihood_fn({name: value[:1] for name, value in x.items()})  # repeated data
            with torch.no_grad():
                logs = one(torch.as_tensor(np.concatenate(list(theta.values()), axis=1)))
            return np.asarray(logs.numpy())

        return log_density

    # ---- posterior ----------------------------------------------------------

    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
        prior: PriorLike | None = None,
        method: Method = "auto",
        proposal: Workflow | None = None,
    ) -> Variables:
        """Posterior draws of every data set; `reports` has figures, and a TrustWarning tells of doubts.

        Args:
            num_samples: draws for each data set.
            conditions: observables, and conditions of elements, as for `log_likelihood`.
            split: return each component of a parameter of width d as a variable of its own.
            batch_size: data sets that are drawn side by side; None is 64. Each has its own random numbers.
            seed: seed of the draws.
            prior: torch distribution of the parameter, or a dict of them by parameter; the prior of the
                simulations where there is none.
            method: "importance" weights draws of the proposal by prior times likelihood, Pareto-smoothed.
                "mcmc" runs many chains by gradients, tempered from the prior. "auto" does the first where
                there is a proposal, and the second for data sets whose weights have too heavy a tail.
            proposal: trained workflow of the same parameters, whose draws are weighted.

        Returns:
            Name to array of shape (num_datasets, num_samples, width), raw space.

        Raises:
            ConfigurationError: if no density of the prior is known, or it is discrete.
            DataError: for data that do not fit, or that have no likelihood at any parameters.
        """
        posterior = self._posterior(conditions, prior)
        draws, self.reports = posterior.sample(
            positive_int(num_samples, "num_samples"),
            method=method,
            proposal=proposal,
            conditions=conditions,
            at_once=None if batch_size is None else positive_int(batch_size, "batch_size"),
            seed=seeding.resolve(seed),
        )
        warn_of_posteriors(self.reports)
        return by_component(draws) if split else draws

    def map(
        self,
        conditions: VariablesLike,
        *,
        prior: PriorLike | None = None,
        space: Literal["raw", "unbounded"] = "raw",
        seed: int | None = None,
    ) -> Variables:
        """Parameters of the highest posterior density (MAP), name to (n_datasets, width).

        The density depends on the space: that of raw parameters, or of what the supports of the prior are
        mapped to, which is all real numbers; there it cannot lie on a bound. Found by BFGS from the best of
        many prior draws.

        Args:
            conditions: data as for `sample`.
            prior: prior as for `sample`.
            space: space of the density that is maximized; results are in raw space anyway.
            seed: seed of the draws.
        """
        if space not in ("raw", "unbounded"):
            raise ConfigurationError(f"Unknown space {space!r}. {suggest(str(space), ('raw', 'unbounded'))}")
        posterior = self._posterior(conditions, prior)
        return posterior.maximum(is_raw=space == "raw", seed=seeding.resolve(seed))

    def _posterior(self, conditions: VariablesLike, prior: PriorLike | None) -> LikelihoodPosterior:
        first = likelihood_members(self.approximator)[0][1]
        first._check_built()
        widths = {name: first.shapes[name][0] for name in first.parameter_names}
        chosen = resolved_prior(prior, self.priors, first.parameter_names, widths)
        return LikelihoodPosterior(chosen, ElementLikelihood(self.approximator, conditions))

    # ---- diagnostics --------------------------------------------------------

    def posterior_verdict(
        self,
        test_data: VariablesLike | int = 100,
        num_samples: int = 200,
        *,
        num_elements: int | None = None,
        variable_names: Sequence[str] | None = None,
        false_alarms: float = 0.01,
        seed: int | None = None,
    ) -> "Verdict":
        """Verdict on the posterior that the likelihood implies under the prior of its simulations.

        Simulation-based calibration: posteriors of test simulations against the parameters that made them,
        as `verdict` of a posterior's workflow, while `verdict` here judges the observables given the
        parameters. Draws with doubts are told by a TrustWarning.

        Args:
            test_data: data sets with their true parameters, or how many to simulate; 20 or more.
            num_samples: draws for each of them.
            num_elements: number of elements of each data set that is simulated, for iid="elements", where a
                simulation is one element; None is 1. Small errors of the density of an element add up, so
                that as many as the real data have tell most.
            variable_names: a name for every component of the parameters, in order.
            false_alarms: the probability that a right posterior is called flawed.
            seed: seed of simulations and draws.

        Raises:
            ConfigurationError: as of `sample`, and for a number of elements where they are not simulated.
        """
        seed = seeding.resolve(seed)
        first = likelihood_members(self.approximator)[0][1]
        is_number = not isinstance(test_data, Mapping)
        if num_elements is not None and not (is_number and first.iid == "elements"):
            raise ConfigurationError(
                'Expected num_elements with iid="elements" and a number as test_data, got it with '
                f"iid={first.iid!r}{'' if is_number else ' and simulations'}. Leave it out."
            )
        data = test_data if isinstance(test_data, Mapping) else self._test_simulations(test_data, seed)
        if num_elements is not None:
            data = self.with_elements(data, num_elements, seed=seeding.derive(seed, "elements"))
        truth = as_variables(data, first.parameter_names, what="test data")
        draws = self.sample(num_samples=num_samples, conditions=data, seed=seeding.derive(seed, "test draws"))
        return diagnostics.judge(
            draws,
            truth,
            variable_names=variable_names,
            false_alarms=false_alarms,
            seed=seeding.derive(seed, "verdict"),
        )

    def with_elements(self, data: VariablesLike, num_elements: int, *, seed: int | None = None) -> Variables:
        """Simulations with as many elements for the parameters of each row, for iid="elements".

        Args:
            data: simulations, whose parameters are taken, raw space.
            num_elements: number of elements.
            seed: seed of the simulations.

        Returns:
            Parameters (n, width), and observables and conditions of elements (n, num_elements, width).
        """
        number = positive_int(num_elements, "num_elements")
        first = likelihood_members(self.approximator)[0][1]
        parameters = as_variables(data, first.parameter_names, what="data")
        n = len(next(iter(parameters.values())))
        fixed: dict[str, Any] = {name: np.repeat(value, number, axis=0) for name, value in parameters.items()}
        drawn = self._simulator().sample(n * number, seed=seed, progress=False, **fixed)
        names = (*first.inference_names, *first.element_conditions)
        return parameters | {name: drawn[name].reshape(n, number, -1) for name in names}

    def log_score(self, test_data: VariablesLike | int, *, seed: int | None = None) -> float:
        """Mean log likelihood of held-out simulations at their parameters, in nats a simulation.

        The higher the better, for likelihoods of the same observables; its difference to that of the true
        density is the mean Kullback-Leibler divergence from it. Of network="ratio" it is the mean log ratio,
        an estimate of the information that data have about parameters.

        Args:
            test_data: simulations that were not trained on, or how many to draw from the simulator.
            seed: seed of these simulations.
        """
        if not isinstance(test_data, Mapping):
            test_data = self._test_simulations(test_data, seeding.resolve(seed))
        return float(self.log_likelihood(test_data).mean())

    def _check_draws(self, samples: Variables | None) -> None:
        first = likelihood_members(self.approximator)[0][1]
        if samples is None and not first.has_draws:
            raise ConfigurationError(
                "Expected a learned density, whose draws of observables are compared with simulations, got "
                "a ratio, which has none. Judge its posteriors: workflow.posterior_verdict(200)."
            )

    def _tested(
        self, test_data: VariablesLike | int, num_samples: int, samples: Variables | None, seed: int | None
    ) -> tuple[Variables, Variables]:
        """Draws and true values of the observables; simulations that are sets are cut into their elements."""
        seed = seeding.resolve(seed)
        if not isinstance(test_data, Mapping):
            test_data = self._test_simulations(test_data, seed)
        first = likelihood_members(self.approximator)[0][1]
        if first.iid == "sets":
            test_data = first.elements(test_data, "test data")[0]
        return super()._tested(test_data, num_samples, samples, seed)
