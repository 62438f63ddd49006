"""Workflow of neural likelihood estimation (NLE): a learned likelihood, and posteriors for any prior."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Unpack

from torch.distributions import Distribution

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.approximators import Approximator, EnsembleApproximator, LikelihoodApproximator
from sbi_models.approximators.element_likelihood import (
    likelihood_members,
)
from sbi_models.approximators.validation import as_variables, check_strays
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.datasets import Augmentations
from sbi_models.errors import ConfigurationError
from sbi_models.networks import RatioNetwork
from sbi_models.simulators import Simulator
from sbi_models.training.checkpoints import model_file
from sbi_models.training.history import History, OnEpochEnd
from sbi_models.training.settings import TrainingOptions, TrainingSettings
from sbi_models.types import Variables, VariablesLike
from sbi_models.workflows.auto import schedules
from sbi_models.workflows.construction import (
    InferenceNetworkLike,
    Names,
    Recipe,
    SummaryNetworkLike,
    roles_of,
)
from sbi_models.workflows.likelihood.choices import AUTO, Chosen, choice_of
from sbi_models.workflows.likelihood.construction import (
    agreeing,
    check_names,
    continuous_priors,
    likelihood_info,
    prior_of_file,
)
from sbi_models.workflows.likelihood.inference import LikelihoodInference

_AUTO: TrainingOptions = {"initial_learning_rate": 2e-3, "ema": 0.999}
_LEAST_WEIGHT = 0.02
"""Weight of a member of the automatic mixture below which it is left out."""


@known_arguments
class LikelihoodWorkflow(LikelihoodInference):
    """Neural likelihood estimation: learns p(observables | parameters), and draws posteriors for any prior.

    Roles are swapped: observables are what has a density, parameters are conditions. What is learned from
    single elements is right for any number of them, whose log densities are added.

    Args:
        simulator: source of training data. Where its prior is torch distributions, posteriors have that prior
            by default.
        parameters: raw names of the parameters, (n, width) each.
        observables: raw names of the data, of which one element or all is learned, (n, width) each.
        conditions: raw names of what is known beside each element, such as a stimulus or an exposure.
        iid: what data are. None: one vector of observables. "elements": any number of elements that are
            independent given the parameters, of which a simulation is one. "sets": the same, where a
            simulation is a set of elements, (n, N, width).
        network: inference network with a density: instance, class or name. Or a loaded
            `LikelihoodApproximator`, or an ensemble of them, whose roles are its own. "auto": transforms of
            observables and parameters are chosen by the simulations, categories and counts get probabilities,
            and `fit_offline` chooses a training and weights a normal and a mixture network by held-out
            simulations. "ratio": a classifier learns p(observables | parameters) / p(observables), for data
            without a density worth learning, such as images; `log_likelihood` and the evidence of reports
            lack log p(observables) then.
        summary_network: summary network of the observable of "ratio", (n, height, width) or (n, time, width):
            instance, class or name.
        ensemble_size: number of networks with initial weights of their own, whose densities are averaged;
            None is one, or what "auto" chooses.
        adapter: adapter from raw variables to roles; the default one keeps to the supports of torch priors.
        prior: torch distribution of the parameter in the simulations, or a dict of them, where the simulator
            has functions in their place. A saved likelihood has kept it, if it is of a class of
            `torch.distributions`.
        standardize: roles to standardize, or "all", or None.
        info: JSON that travels with the saved approximator.
        training: optimizer, learning rate, checkpoints, seed, and further settings of `TrainingSettings`.

    Attributes:
        reports: reports on the data sets of the last call of `sample`.

    Raises:
        ConfigurationError: for arguments that are misspelt or do not fit together, and discrete parameters.

    >>> import numpy as np, torch, sbi_models as bf
    >>> def observe(rate, rng):
    ...     return {"x": rng.exponential(1 / rate)}
    >>> simulator = bf.make_simulator([{"rate": torch.distributions.Gamma(4.0, 2.0)}, observe])
    >>> workflow = bf.LikelihoodWorkflow(
    ...     simulator,
    ...     parameters="rate",
    ...     observables="x",
    ...     iid="elements",
    ...     network=bf.networks.AutoregressiveMixture(2, trunk_width=8, head_width=8),
    ...     seed=1,
    ... )
    >>> history = workflow.fit_offline(workflow.simulate(256, seed=1), epochs=2)
    >>> trials = np.ones((1, 5, 1))  # one data set of five elements
    >>> workflow.log_likelihood({"rate": np.ones((1, 1)), "x": trials}).shape
    (1,)
    >>> draws = workflow.sample(num_samples=10, conditions={"x": trials}, seed=2)
    >>> draws["rate"].shape
    (1, 10, 1)
    """

    def __init__(
        self,
        simulator: Simulator | None = None,
        *,
        parameters: Names | None = None,
        observables: Names | None = None,
        conditions: Names | None = None,
        iid: Literal["elements", "sets"] | None = None,
        network: InferenceNetworkLike | Approximator = AUTO,
        summary_network: SummaryNetworkLike | None = None,
        ensemble_size: int | None = None,
        adapter: Adapter | None = None,
        prior: Distribution | Mapping[str, Distribution] | None = None,
        standardize: Names | None = "all",
        info: dict[str, Any] | None = None,
        **training: Unpack[TrainingOptions],
    ) -> None:
        self._choice = choice_of(network, summary_network)
        settings = TrainingSettings(**({**_AUTO, **training} if self._choice else training))
        self.reports = []
        self._explicit = frozenset(training)
        if isinstance(network, Approximator):
            approximator: Approximator = network
            first = likelihood_members(network)[0][1]
            names = agreeing(first, parameters, observables, conditions, iid)
            self.priors = {**prior_of_file(network), **continuous_priors(prior, simulator, names)}
            super().__init__(approximator=approximator, simulator=simulator, settings=settings)
            return
        roles = roles_of(observables, parameters, None)
        names, elements = (
            roles["inference_conditions"],
            roles_of(conditions, None, None)["inference_variables"],
        )
        check_names(names, roles["inference_variables"], iid)
        self.priors = continuous_priors(prior, simulator, names)
        self._info = {**(info or {}), **likelihood_info(iid, elements, self.priors)}
        self._roles = {**roles, "inference_conditions": [*names, *elements]}
        self._standardize = standardize
        self._adapter = adapter
        size = 1 if ensemble_size is None else positive_int(ensemble_size, "ensemble_size")
        self._fixed_size = ensemble_size is not None
        one: InferenceNetworkLike = network if self._choice is None else self._choice.network()
        networks = {str(k): one for k in range(size)}
        super().__init__(
            approximator=self._assembled(networks, adapter), simulator=simulator, settings=settings
        )

    # ---- construction -------------------------------------------------------

    def _assembled(
        self, networks: Mapping[str, InferenceNetworkLike], adapter: Adapter | None
    ) -> Approximator:
        """An approximator with these networks, or an ensemble of several."""
        recipe = Recipe(
            self._roles,
            None,
            adapter=adapter,
            summary_mask=None,
            missing=None,
            prior=None,
            standardize=self._standardize,
        )
        members = {
            name: recipe.approximator(network, None, self._info, LikelihoodApproximator)
            for name, network in networks.items()
        }
        for member in members.values():
            if not (member.has_density or isinstance(member.inference_network, RatioNetwork)):
                raise ConfigurationError(
                    f"Expected a network with a density, got {type(member.inference_network).__name__}. Use "
                    "AutoregressiveMixture, CouplingFlow, FlowMatching or DiffusionModel."
                )
        if len(members) == 1:
            return next(iter(members.values()))
        return EnsembleApproximator(members, info=self._info)

    def _checked(self, data: VariablesLike, what: str) -> Variables:
        names = self.approximator.inference_names + self.approximator.condition_names
        variables = as_variables(data, names, what=what, may_miss=self.approximator.inference_names)
        likelihood_members(self.approximator)[0][1].elements(variables, what)
        check_strays({**data, **variables}, names, what)
        return variables

    def _build(self, data: Variables) -> None:
        if self._choice is not None and not self.approximator.is_built:
            first = likelihood_members(self.approximator)[0][1]
            members = self.approximator.members.items()
            chosen = Chosen({name: member.inference_network for name, member in members}, self._adapter)
            self.approximator = self._assembled(*self._choice.for_data(first, chosen, data, self.priors))
        super()._build(data)

    # ---- training -----------------------------------------------------------

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
            epochs: passes over the data; None is 100, or with "auto" and "ratio" chosen by their number.
            batch_size: elements in one step; None is 32, or with "auto" and "ratio" chosen.
            validation_data: held-out simulations or their number, as for `Workflow.fit_offline`. With "auto"
                and "ratio", None holds out a tenth of the data.
            data, augmentations, on_epoch_end: arguments as for `Workflow.fit_offline`.
        """
        if self._choice is None:
            return super().fit_offline(
                data,
                100 if epochs is None else epochs,
                32 if batch_size is None else batch_size,
                validation_data=validation_data,
                augmentations=augmentations,
                on_epoch_end=on_epoch_end,
            )
        variables = self._checked(data, "training data")
        held_out = self._validation_variables(validation_data)
        if held_out is None:
            variables, held_out = schedules.split_off(variables, seeding.derive(self.seed, "held out"))
        first = likelihood_members(self.approximator)[0][1]
        number = int(first.elements(variables, "training data")[1].sum())
        schedule = schedules.for_simulations(number)
        chosen = schedule.epochs(number) if epochs is None else positive_int(epochs, "epochs")
        if not self.approximator.is_built and not self._fixed_size:
            networks = self._choice.for_simulations(schedule.dropout)
            self.approximator = self._assembled(networks, self._adapter)
        usual = self.settings
        self.settings = replace(
            usual,
            ema=usual.ema if "ema" in self._explicit else schedule.ema,
            early_stopping=usual.early_stopping
            if "early_stopping" in self._explicit
            else schedule.patience(chosen),
        )
        try:
            super().fit_offline(
                variables,
                chosen,
                min(schedule.batch_size, len(next(iter(variables.values()))))
                if batch_size is None
                else batch_size,
                validation_data=held_out,
                augmentations=augmentations,
                on_epoch_end=on_epoch_end,
            )
        finally:
            self.settings = usual
        if self._choice.is_weighted:
            self._weigh(held_out)
        return self._trained_history

    def _weigh(self, held_out: Variables) -> None:
        """Weight the members by some held-out simulations, and leave out those without use."""
        if not isinstance(self.approximator, EnsembleApproximator):
            return
        first = likelihood_members(self.approximator)[0][1]
        weights = self.approximator.stack(schedules.some_of(first.elements(held_out, "held-out data")[0]))
        self.approximator.weights = {
            name: weight if weight >= _LEAST_WEIGHT else 0.0 for name, weight in weights.items()
        }
        file = model_file(self.settings)
        if file is not None:
            self.approximator.save(file)
