"""Workflow of compositional inference: one theta, several observations of it."""

import logging
from collections.abc import Iterable, Sequence
from typing import Literal, Self, Unpack, overload

import numpy as np

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.approximators import CompositionalApproximator, ContinuousApproximator
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition_options import CompositionOptions, check_composable
from sbi_models.approximators.compositional import warn_of_compositions
from sbi_models.approximators.rows import by_component
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import ConfigurationError, NotFittedError
from sbi_models.networks import DiffusionModel, InferenceNetwork, resolve
from sbi_models.simulators import Simulator
from sbi_models.types import Array, Variables, VariablesLike
from sbi_models.workflows.auto.neural_likelihood import prior_of
from sbi_models.workflows.auto.transforms import real_line
from sbi_models.workflows.basic import BasicWorkflow
from sbi_models.workflows.composed_likelihood import LikelihoodOfItems
from sbi_models.workflows.construction import BasicOptions, InferenceNetworkLike, changes
from sbi_models.workflows.likelihood.workflow import LikelihoodWorkflow

_logger = logging.getLogger(__name__)

_DROPPED = 0.15

_ROW = "row number"

_PRIOR_DRAWS = 20_000
"""Number of prior draws that bounds are estimated from."""


@known_arguments
class CompositionalWorkflow(BasicWorkflow):
    """Compositional inference: the posterior of one theta given several observations of it.

    After each training it learns what the scores of all items have in common as errors, from half as many new
    simulations as an online training has used (2 000 to 1 000 000), or from the data of an offline one.

    Args:
        simulator: source of training data; it also calibrates compositions.
        inference_network: a `DiffusionModel`, or its name; what it leaves open is set for composition:
            drop_conditions=0.15, so that the prior is learned, and preconditioning="gaussian". Or a
            `CompositionalApproximator`, such as a loaded one.
        options: further arguments as for `BasicWorkflow`.

    Raises:
        ConfigurationError: for a network other than a `DiffusionModel`, and as `BasicWorkflow` does.

    >>> import numpy as np, sbi_models as bf
    >>> def prior(batch_size, rng):
    ...     return {"theta": rng.normal(size=(batch_size, 2))}
    >>> def observe(theta, rng):
    ...     return {"x": theta + 0.1 * rng.normal(size=theta.shape)}
    >>> simulator = bf.make_simulator([prior, observe], is_batched=True, block_size=10_000)
    >>> workflow = bf.CompositionalWorkflow(
    ...     simulator,
    ...     inference_variables="theta",
    ...     inference_conditions="x",
    ...     inference_network=bf.networks.DiffusionModel(widths=(8,), steps=4),  # the default is larger
    ...     seed=1,
    ... )
    >>> history = workflow.fit_offline(workflow.simulate(64, seed=1), epochs=2)
    >>> one = workflow.sample(num_samples=5, conditions={"x": np.zeros((3, 2))}, seed=2)
    >>> one["theta"].shape  # given each of 3 observations alone
    (3, 5, 2)
    >>> workflow.compositional_sample(
    ...     num_samples=5, conditions={"x": np.zeros((1, 3, 2))}, calibration_simulations=0, seed=2
    ... )["theta"].shape  # given the 3 observations of one theta
    (1, 5, 2)
    """

    _kind = CompositionalApproximator

    approximator: CompositionalApproximator

    def __init__(
        self,
        simulator: Simulator | None = None,
        *,
        inference_network: InferenceNetworkLike | CompositionalApproximator = "diffusion_model",
        **options: Unpack[BasicOptions],
    ) -> None:
        if not isinstance(inference_network, CompositionalApproximator):
            inference_network = _composable(inference_network)
        super().__init__(simulator, inference_network=inference_network, **options)

    @classmethod
    def from_basic_workflow(cls, workflow: BasicWorkflow, simulator: Simulator | None = None) -> Self:
        """A compositional workflow with a copy of a trained one's networks, settings and history.

        Args:
            workflow: trained workflow with a `DiffusionModel`.
            simulator: simulator; None takes that of the workflow.

        Raises:
            ConfigurationError: if its network is no `DiffusionModel`.
            NotFittedError: if it has not been trained.
        """
        if not isinstance(workflow, BasicWorkflow):
            raise ConfigurationError(f"Expected a BasicWorkflow, got {type(workflow).__name__}.")
        trained = workflow.approximator
        assert isinstance(trained, ContinuousApproximator)
        check_composable(trained.inference_network)
        if not trained.is_built:
            raise NotFittedError(
                "Expected a trained workflow, got one that was never fitted. Call its fit_online, "
                "fit_offline or fit_disk first."
            )
        copy = CompositionalApproximator.like(trained)
        composing = cls(workflow.simulator if simulator is None else simulator, inference_network=copy)
        composing.settings, composing.seed, composing.threads = (
            workflow.settings,
            workflow.seed,
            workflow.threads,
        )
        composing.priors, composing.history = workflow.priors, workflow.history
        return composing

    def _build(self, data: Variables) -> None:
        """Also bound the parameters whose prior is a plain function, and that no adapter step changes."""
        approximator = self.approximator
        if not approximator.is_built:
            before = Adapter()
            for name, draws in self._prior_draws(data).items():
                if not changes(approximator.adapter, name):
                    before = Adapter((*before.transforms, *real_line(name, draws).transforms))
            approximator.adapter = Adapter((*before.transforms, *approximator.adapter.transforms))
            for step in before.transforms:
                _logger.info("bounds found from draws of the prior: %s", step.config())
        super()._build(data)

    def _prior_draws(self, data: Variables) -> Variables:
        """Draws of the prior of each inferred variable without a torch distribution.

        They are those of the data, and of the simulator if it draws parameters alone.
        """
        names = [name for name in self.approximator.inference_names if name not in self.priors]
        parts = [data]
        prior = prior_of(self.simulator, names, list(self.approximator.condition_names)) if names else None
        if prior is not None:
            parts.append(prior.sample(_PRIOR_DRAWS, seed=seeding.derive(self.seed, "bounds"), progress=False))
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _after_training(self, simulations: Iterable[Variables]) -> None:
        self.approximator.learn_shared_bias(simulations)

    @overload
    def compositional_sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        likelihood: LikelihoodWorkflow | None = ...,
        return_diagnostics: Literal[False] = ...,
        **options: Unpack[CompositionOptions],
    ) -> Variables: ...

    @overload
    def compositional_sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        likelihood: LikelihoodWorkflow | None = ...,
        return_diagnostics: Literal[True],
        **options: Unpack[CompositionOptions],
    ) -> tuple[Variables, Sequence[CompositionReport]]: ...

    def compositional_sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        likelihood: LikelihoodWorkflow | None = None,
        return_diagnostics: bool = False,
        **options: Unpack[CompositionOptions],
    ) -> Variables | tuple[Variables, Sequence[CompositionReport]]:
        """Draw from the posterior given all items of each data set.

        See `CompositionalApproximator.compositional_sample`, and `CompositionOptions` for the options.

        The simulator, if there is one, calibrates the composition (calibration_simulations=0: not). A prior
        that was given as torch distributions, here or in the simulator, need not be given again.

        Args:
            num_samples: draws for each data set.
            conditions: raw variables of shape (num_datasets, n_compositional, ...).
            likelihood: trained `LikelihoodWorkflow` of the same parameters, whose observables and conditions
                are those of this workflow, with iid="elements" or "sets". Its posterior given all items is
                drawn as well, and returned for each data set unless its chains or its posterior
                simulation-based calibration speak against it. It needs the density of the prior, as torch
                distributions. Reports are then `ComparedReport`, with both answers.
            return_diagnostics: also return a report for each data set.
            options: see `CompositionOptions`.
        """
        names = self.approximator.inference_names
        if options.get("compute_prior_score") is None and all(name in self.priors for name in names):
            options["compute_prior_score"] = {name: self.priors[name] for name in names}
        simulate = None if self.simulator is None else self._at_parameters
        num_samples = positive_int(num_samples, "num_samples")
        options["seed"] = seed = seeding.resolve(options.get("seed"))
        given = None
        if likelihood is not None:
            given = LikelihoodOfItems(
                self.approximator,
                likelihood,
                conditions,
                prior=options.get("compute_prior_score"),
                known={name: self.priors[name] for name in names if name in self.priors},
            )
        reports: Sequence[CompositionReport]
        draws, reports = self.approximator.compose(
            num_samples=num_samples, conditions=conditions, simulate=simulate, **options
        )
        if given is not None:
            tests = simulate is not None and options.get("calibration_simulations") != 0
            draws, reports = given.compared(draws, reports, simulate=simulate if tests else None, seed=seed)
        warn_of_compositions(reports)
        draws = by_component(draws) if options.get("split", False) else draws
        return (draws, reports) if return_diagnostics else draws

    def _at_parameters(self, fixed: Variables, seed: int) -> tuple[Variables, Array]:
        """Successful simulations, one at each row of parameters (k, ...), and their row numbers."""
        number = len(next(iter(fixed.values())))
        simulated = self._simulator().sample(number, seed=seed, progress=False, workers=None, **fixed)
        rows = {_ROW: np.arange(number)}
        successes = self._successes({**simulated, **rows})
        return successes, successes.pop(_ROW)


def _composable(network: InferenceNetworkLike) -> DiffusionModel:
    """A diffusion model, with what it leaves open set for composition."""
    resolved: InferenceNetwork = resolve(network, InferenceNetwork)  # type: ignore[type-abstract]
    check_composable(resolved)
    assert isinstance(resolved, DiffusionModel)
    open_settings = {
        "drop_conditions": _DROPPED,
        "preconditioning": "gaussian" if resolved.prediction == "velocity" else "unit",
    }
    return type(resolved)(
        **{
            **resolved.config,
            **{name: value for name, value in open_settings.items() if resolved.config[name] is None},
        }
    )
