"""Workflow of amortized posterior estimation with one approximator."""

from collections.abc import Mapping
from typing import Any, Unpack

from torch.distributions import Distribution

from sbi_models.adapters import Adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.arguments import known_arguments
from sbi_models.datasets import Augmentations
from sbi_models.errors import ConfigurationError
from sbi_models.networks import AutoregressiveMixture
from sbi_models.simulators import Simulator
from sbi_models.training.checkpoints import model_file
from sbi_models.training.environment import check_accelerator
from sbi_models.training.history import History, OnEpochEnd
from sbi_models.training.settings import TrainingOptions, TrainingSettings
from sbi_models.types import VariablesLike
from sbi_models.workflows.auto.selection import Automatic, AutomaticOptions
from sbi_models.workflows.construction import (
    InferenceNetworkLike,
    Names,
    Recipe,
    SummaryNetworkLike,
    check_same_roles,
    priors_of,
    roles_of,
)
from sbi_models.workflows.likelihood.construction import is_discrete, known_continuous, likelihood_info
from sbi_models.workflows.likelihood.workflow import LikelihoodWorkflow
from sbi_models.workflows.workflow import Workflow

AUTO = "auto"
"""Name, in place of an inference network, that leaves the choice to `Automatic`."""


@known_arguments
class BasicWorkflow(Workflow):
    """Amortized posterior estimation with one inference network and at most one summary network.

    Args:
        simulator: source of training data.
        inference_variables: raw names of what to infer.
        summary_variables: raw names of what goes through the summary network.
        inference_conditions: raw names of what goes straight to the inference network.
        inference_network: instance, class or name; with a `ScoringRuleNetwork` the approximator is a
            `ScoringRuleApproximator`. Or an approximator, such as a loaded one, to go on training: then
            roles, adapter and summary network are its own. Or "auto", for `fit_offline`: transforms, network
            and training are chosen by the simulations, all data are standardized, and, where the simulator
            draws the parameters by themselves, a learned likelihood makes more of few simulations;
            `workflow.automatic.choices` says what was chosen. That likelihood is a `LikelihoodWorkflow`,
            `workflow.automatic.likelihood`, and is saved beside the model, as NAME.likelihood.safetensors.
        summary_network: instance, class or name; required exactly if there are summary variables.
        adapter: adapter from raw variables to roles; the default one concatenates the variables of each role
            along their last axis.
        summary_mask: name of the variable, raw or made by the adapter, that is 1 where an element of a set or
            series is there and 0 where it is padding or missing, shape (n, length); a dict of them by input
            for a network that takes several inputs.
        missing: conditions that may hold NaN, with new names for their masks, such as `{"x": "x_there"}`:
            NaN is filled with the mean of the training data, a summary network gets the mask, and other
            conditions get it beside them. An element of a set or series counts if all its features are
            there. Simulations must have gaps like the real data.
        prior: torch distribution of the inferred variable, or a dict of them by variable: the default adapter
            keeps draws inside their support. Torch distributions among the functions of the simulator are
            taken as such anyway, with an adapter of your own for the variables that none of its steps
            changes.
        standardize: roles to standardize, or "all", or None.
        info: JSON that travels with the saved approximator.
        training: optimizer, learning rate, checkpoints, seed, and further settings of `TrainingSettings`.

    Raises:
        ConfigurationError: for arguments that are misspelt or do not fit together.

    >>> import numpy as np, sbi_models as bf
    >>> def prior(rng):
    ...     return {"theta": rng.normal(size=2)}
    >>> def observe(theta, rng):
    ...     return {"x": theta + 0.1 * rng.normal(size=2)}
    >>> simulator = bf.make_simulator([prior, observe])
    >>> workflow = bf.BasicWorkflow(
    ...     simulator,
    ...     inference_variables="theta",
    ...     inference_conditions="x",
    ...     inference_network=bf.networks.CouplingFlow(depth=1, widths=(8,)),  # the default is larger
    ...     seed=1,
    ... )
    >>> history = workflow.fit_offline(workflow.simulate(64, seed=1), epochs=2)
    >>> draws = workflow.sample(num_samples=5, conditions={"x": np.zeros((3, 2))}, seed=2)
    >>> draws["theta"].shape
    (3, 5, 2)
    """

    _kind: type[ContinuousApproximator] | None = None
    """Class of the approximator; None goes by the inference network."""

    automatic: Automatic | None = None
    """Automatic choice of networks and training, with `inference_network="auto"`."""

    def __init__(
        self,
        simulator: Simulator | None = None,
        *,
        inference_variables: Names | None = None,
        summary_variables: Names | None = None,
        inference_conditions: Names | None = None,
        inference_network: InferenceNetworkLike | ContinuousApproximator = "coupling_flow",
        summary_network: SummaryNetworkLike | None = None,
        adapter: Adapter | None = None,
        summary_mask: str | Mapping[str, str] | None = None,
        missing: Mapping[str, str] | None = None,
        prior: Distribution | Mapping[str, Distribution] | None = None,
        standardize: Names | None = "inference_variables",
        info: dict[str, Any] | None = None,
        **training: Unpack[TrainingOptions],
    ) -> None:
        settings = TrainingSettings(**training)
        roles = roles_of(inference_variables, inference_conditions, summary_variables)
        if isinstance(inference_network, ContinuousApproximator):
            check_same_roles(roles, inference_network)
            self.priors = priors_of(prior, simulator, {**inference_network.roles})
            super().__init__(approximator=inference_network, simulator=simulator, settings=settings)
            return
        if isinstance(inference_network, str) and inference_network == AUTO:
            given: AutomaticOptions = {
                "summary_network": summary_network,
                "adapter": adapter,
                "summary_mask": summary_mask,
                "missing": missing,
                "info": info,
                "likelihood_info": likelihood_info(
                    None, [], known_continuous(prior, simulator, roles["inference_variables"])
                ),
            }
            self.automatic = Automatic(roles, given)
            inference_network, standardize = AutoregressiveMixture(), "all"
        recipe = Recipe(
            roles,
            simulator,
            adapter=adapter,
            summary_mask=summary_mask,
            missing=missing,
            prior=prior,
            standardize=standardize,
        )
        self.priors = recipe.priors
        approximator = recipe.approximator(inference_network, summary_network, info, self._kind)
        super().__init__(approximator=approximator, simulator=simulator, settings=settings)

    def fit_offline(
        self,
        data: VariablesLike,
        epochs: int | None = None,
        batch_size: int | None = None,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        on_epoch_end: OnEpochEnd | None = None,
    ) -> History:
        """Train on simulations in memory.

        Args:
            epochs: passes over the data; None is 100. With `inference_network="auto"` it is chosen, and so is
                the batch size.
            batch_size: simulations in one step; None is 32.
            validation_data: held-out simulations or their number, as for `Workflow.fit_offline`. With "auto",
                None holds out a tenth of the data.
            data, augmentations, on_epoch_end: arguments as for `Workflow.fit_offline`.

        Returns:
            The history. With "auto", it is that of the training whose posterior was kept.

        Raises:
            ConfigurationError: with "auto", if epochs or batch size are given.
            DataError: if data do not fit: a variable is missing, rows are unequal, values are not finite.
            TrainingError: if the loss is no longer finite.
        """
        if self.automatic is None:
            epochs, batch_size = 100 if epochs is None else epochs, 32 if batch_size is None else batch_size
            return super().fit_offline(
                data,
                epochs,
                batch_size,
                validation_data=validation_data,
                augmentations=augmentations,
                on_epoch_end=on_epoch_end,
            )
        if epochs is not None or batch_size is not None:
            raise ConfigurationError(
                'Expected no epochs and no batch_size with inference_network="auto", which chooses them, got '
                f"{epochs=} and {batch_size=}. Leave them out, or name a network."
            )
        check_accelerator(self.settings)
        variables = self._checked(data, "training data")
        best, self.history = self.automatic.fit_offline(
            self, variables, self._validation_variables(validation_data), augmentations, on_epoch_end
        )
        self.approximator = best.approximator
        learned = None if self.automatic.learned is None else self.automatic.learned.approximator
        if any(map(is_discrete, self.priors.values())):
            learned = None  # a posterior of discrete parameters is not drawn by gradients
        self.automatic.likelihood = (
            None if learned is None else LikelihoodWorkflow(self.simulator, network=learned)
        )
        self._best_loss, self._fits = best._best_loss, self._fits + 1
        file = model_file(self.settings)
        if file is not None:
            self.approximator.save(file)
            if learned is not None:
                learned.save(file.with_stem(f"{file.stem}.likelihood"))
        return self.history

    def _check_fit(self, method: str) -> None:
        if self.automatic is not None:
            raise ConfigurationError(
                'Expected fit_offline with inference_network="auto", which chooses by the simulations in '
                f"memory, got {method}. Call fit_offline(workflow.simulate(10_000)), or name a network."
            )
