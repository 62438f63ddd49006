"""`inference_network="auto"`: transforms, networks and training chosen by the simulations at hand.

1. Some simulations are held out, for early stops and for the choice below; they are part of the data.
2. Bounds of the parameters and scales of the data are estimated (`transforms.py`).
3. One posterior is trained on the simulations themselves.
4. Where the prior can be drawn from and one simulation is a few numbers, a likelihood is learned from the
   same simulations (`neural_likelihood.py`), and a second posterior is trained on draws of it.
5. The one with the higher log density of the held-out simulations is kept.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any, TypedDict

import numpy as np

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.adapters.transforms import Discrete
from sbi_models.approximators import Approximator, ContinuousApproximator, files
from sbi_models.approximators.discrete import declared_components, found_steps, tell_found
from sbi_models.approximators.rows import as_tensors
from sbi_models.datasets import Augment, Augmentations
from sbi_models.networks import AutoregressiveMixture
from sbi_models.simulators import Simulator
from sbi_models.training.history import History, OnEpochEnd
from sbi_models.training.settings import TrainingOptions, TrainingSettings
from sbi_models.types import Variables
from sbi_models.workflows.auto import neural_likelihood, schedules
from sbi_models.workflows.auto.neural_likelihood import NeuralLikelihood
from sbi_models.workflows.auto.transforms import Bounds, adapter_of, data_scales, in_words, parameter_bounds
from sbi_models.workflows.construction import Recipe, SummaryNetworkLike
from sbi_models.workflows.workflow import Workflow

_logger = logging.getLogger(__name__)
_PRIOR_DRAWS = 200_000
_SYNTHETIC = 500_000

_WIDEST = 32
"""Largest number of components of one simulation whose likelihood is learned; each has a network."""


class AutomaticOptions(TypedDict):
    """Arguments of a `BasicWorkflow` that stay the choice of the user with `inference_network="auto"`.

    And what the file of a learned likelihood says, prior and support.
    """

    summary_network: SummaryNetworkLike | None
    adapter: Adapter | None
    summary_mask: str | Mapping[str, str] | None
    missing: Mapping[str, str] | None
    info: dict[str, Any] | None
    likelihood_info: dict[str, Any]


class Automatic:
    """Automatic choice of transforms, network and training of a `BasicWorkflow`.

    Args:
        roles: raw names by role.
        given: arguments of the user: summary network, mask, missing values, adapter and info. An adapter that
            only declares parameters discrete leaves all other choices open.

    Attributes:
        choices: choices of the last training, name to text or number, as they are logged.
        likelihood: `LikelihoodWorkflow` of the likelihood that the last training has learned, for log
            likelihoods and posteriors under other priors; None if there is none, or for whole numbers.
        learned: networks of this likelihood.
    """

    def __init__(self, roles: dict[str, list[str]], given: AutomaticOptions) -> None:
        self.roles, self.given = roles, given
        self.declarations: tuple[Discrete, ...] = ()
        steps = () if given["adapter"] is None else given["adapter"].transforms
        inferred = set(roles["inference_variables"])
        if steps and all(isinstance(step, Discrete) and inferred.issuperset(step.names) for step in steps):
            self.declarations = tuple(_discrete_steps(Adapter(steps)))
            self.given = {**given, "adapter": None}
        self.declared = {name for step in self.declarations for name in step.names}
        self.choices: dict[str, Any] = {}
        self.likelihood: Any = None
        self.learned: NeuralLikelihood | None = None

    def fit_offline(
        self,
        workflow: Workflow,
        data: Variables,
        validation: Variables | None,
        augmentations: Augmentations | None,
        on_epoch_end: OnEpochEnd | None,
    ) -> tuple[Workflow, History]:
        """Train on checked simulations; returns the best candidate and the history of its training."""
        self.learned = None
        seed = workflow.seed
        if validation is None:
            data, validation = schedules.split_off(data, seeding.derive(seed, "held out"))
        number = len(next(iter(data.values())))
        inferred, observed = self.roles["inference_variables"], self.roles["inference_conditions"]
        prior = neural_likelihood.prior_of(workflow.simulator, inferred, observed)
        everything = {name: np.concatenate([data[name], validation[name]]) for name in (*inferred, *observed)}
        discrete = self._discrete(workflow, everything, inferred)
        bounds, scales = self._transforms(
            workflow,
            everything,
            prior,
            inferred,
            observed,
            discrete=declared_components(discrete, everything),
        )
        self.choices = {
            "simulations": number,
            "held out": len(next(iter(validation.values()))),
            **in_words(bounds, scales),
            **{name: step.kind for step in _discrete_steps(discrete) for name in step.names},
        }
        adapter = self.given["adapter"] or _with_priors(
            workflow, Adapter((*discrete.transforms, *adapter_of(bounds, scales).transforms))
        )
        schedule = schedules.for_simulations(number)
        patience = schedule.patience(schedule.epochs(number))
        direct = self._workflow(workflow, adapter, schedule, patience, "direct")
        direct.fit_offline(
            data,
            schedule.epochs(number),
            schedule.batch_size,
            validation_data=validation,
            augmentations=augmentations,
            on_epoch_end=on_epoch_end,
        )
        candidates = {"simulations": direct}
        reason = _why_not_learned(
            {name: data[name] for name in (*inferred, *observed)},
            observed,
            prior,
            has_summary=bool(self.roles["summary_variables"]),
            has_adapter=self.given["adapter"] is not None,
            has_augmentations=augmentations is not None,
            has_missing=bool(self.given["missing"]),
        )
        if reason is None:
            assert prior is not None
            learned = self.learned = neural_likelihood.estimate_likelihood(
                data,
                validation,
                parameters=inferred,
                observed=observed,
                bounds=bounds,
                scales=scales,
                info=self.given["likelihood_info"],
                seed=seeding.derive(seed, "likelihood"),
                name=f"{workflow.settings.checkpoint_name}.likelihood",
                options=_options(workflow),
            )
            self.choices["likelihood"] = f"{learned.kind}, {len(learned.members)} networks"
            schedule = schedules.for_synthetic_data(number)
            indirect = self._workflow(workflow, adapter, schedule, None, "synthetic")
            indirect.certified_by = data
            indirect.fit_offline(
                self._synthetic(learned, prior, seed, direct.approximator),
                schedule.epochs(_SYNTHETIC),
                schedule.batch_size,
                validation_data=validation,
                on_epoch_end=on_epoch_end,
            )
            candidates["learned likelihood"] = indirect
        return self._best(candidates, validation, reason)

    def _synthetic(
        self, likelihood: NeuralLikelihood, prior: Simulator, seed: int, trained: Approximator
    ) -> Variables:
        """Simulations of the prior and the neural likelihood, without categories of no simulation."""
        drawn = prior.sample(_SYNTHETIC, seed=seeding.derive(seed, "prior"), progress=False)
        parameters = {name: drawn[name] for name in self.roles["inference_variables"]}
        if isinstance(trained, ContinuousApproximator) and trained.discrete_variables:
            inside = trained.adapter.inside(as_tensors(parameters)).numpy()
            parameters = {name: value[inside] for name, value in parameters.items()}
        return likelihood.draw(parameters, seed=seeding.derive(seed, "synthetic"))

    def _best(
        self, candidates: "Mapping[str, _Candidate]", validation: Variables, reason: str | None
    ) -> tuple[Workflow, History]:
        """The candidate with the lowest held-out loss, and the history of its training."""
        losses = {
            name: -float(candidate.log_prob(validation).mean()) for name, candidate in candidates.items()
        }
        best = min(losses, key=lambda name: losses[name])
        self.choices |= {
            "trained on": best,
            **{f"held-out loss: {name}": round(loss, 4) for name, loss in losses.items()},
        }
        if reason is not None:
            self.choices["no learned likelihood"] = reason
        _logger.info("auto: %s", "; ".join(f"{name}: {value}" for name, value in self.choices.items()))
        approximator = candidates[best].approximator
        approximator.info = files.as_json({**approximator.info, "auto": self.choices})
        history = candidates[best].history
        assert history is not None
        return candidates[best], history

    def _discrete(self, workflow: Workflow, data: Variables, inferred: list[str]) -> Adapter:
        """Steps that declare parameters discrete: those of the user, or what is found in all simulations.

        Parameters with a torch distribution are left to it.
        """
        if self.given["adapter"] is not None:
            return Adapter()
        names = [name for name in inferred if name not in workflow.priors and name not in self.declared]
        found = found_steps(data, names)
        tell_found(found)
        return Adapter((*self.declarations, *found))

    def _transforms(
        self,
        workflow: Workflow,
        data: Variables,
        prior: Simulator | None,
        inferred: list[str],
        observed: list[str],
        *,
        discrete: Collection[tuple[str, int]],
    ) -> tuple[dict[str, Bounds], dict[str, str]]:
        """Bounds of parameters and scales of data, unless adapter or prior of the user say them."""
        plain = [name for name in inferred if data[name].ndim == 2]
        if self.given["adapter"] is not None or not plain:
            return {}, {}
        draws = [data]
        if prior is not None:
            draws.append(
                prior.sample(_PRIOR_DRAWS, seed=seeding.derive(workflow.seed, "bounds"), progress=False)
            )
        names = [name for name in plain if name not in workflow.priors]
        bounds = {
            name: _without(
                parameter_bounds(np.concatenate([part[name] for part in draws])),
                [k for owner, k in discrete if owner == name],
            )
            for name in names
        }
        shaped = [
            name for name in observed if data[name].ndim == 2 and name not in (self.given["missing"] or {})
        ]
        return bounds, data_scales(
            shaped, data, np.concatenate([data[name] for name in plain], axis=1)
        ) if shaped else {}

    def _workflow(
        self,
        workflow: Workflow,
        adapter: Adapter,
        schedule: schedules.TrainingSchedule,
        patience: int | None,
        stem: str,
    ) -> "_Candidate":
        network = AutoregressiveMixture(dropout=schedule.dropout)
        settings: TrainingOptions = {
            **_options(workflow),
            "initial_learning_rate": schedule.learning_rate,
            "ema": schedule.ema,
            "early_stopping": patience,
            "checkpoint_name": f"{workflow.settings.checkpoint_name}.{stem}",
            "seed": seeding.derive(workflow.seed, stem),
        }
        recipe = Recipe(
            self.roles,
            None,
            adapter=adapter if adapter.transforms else None,
            summary_mask=self.given["summary_mask"],
            missing=self.given["missing"],
            prior=None,
            standardize="all",
        )
        return _Candidate(
            approximator=recipe.approximator(network, self.given["summary_network"], self.given["info"]),
            simulator=None,
            settings=TrainingSettings(**settings),
        )


class _Candidate(Workflow):
    """Candidate workflow of the automatic choice."""

    certified_by: Variables | None = None
    """Simulations that certificates are learned from, in place of those of the training."""

    def _as_trained(
        self, known: Variables, validation: Variables | None, augment: Augment | None
    ) -> tuple[Variables, Variables | None]:
        return super()._as_trained(
            known if self.certified_by is None else self.certified_by, validation, augment
        )


def _options(workflow: Workflow) -> TrainingOptions:
    """Training settings that candidates take over."""
    names = (
        "checkpoint_filepath",
        "restore",
        "accelerator",
        "devices",
        "strategy",
        "precision",
        "compile",
        "threads",
        "progress",
    )
    return {name: getattr(workflow.settings, name) for name in names}  # type: ignore[return-value]


def _with_priors(workflow: Workflow, adapter: Adapter) -> Adapter:
    """The adapter, after the supports of torch distributions."""
    before = Adapter()
    for name, prior in workflow.priors.items():
        before = before.constrain(name, prior=prior)
    return Adapter((*before.transforms, *adapter.transforms))


def _discrete_steps(adapter: Adapter) -> list[Discrete]:
    return [step for step in adapter.transforms if isinstance(step, Discrete)]


def _without(bounds: Bounds, components: Collection[int]) -> Bounds:
    """Bounds without those of discrete components."""
    lower, upper = ([None if k in components else bound for k, bound in enumerate(ends)] for ends in bounds)
    return lower, upper


def _why_not_learned(
    data: Variables,
    observed: list[str],
    prior: Simulator | None,
    *,
    has_summary: bool,
    has_adapter: bool,
    has_augmentations: bool,
    has_missing: bool,
) -> str | None:
    """Reason for learning no likelihood; None if one is learned."""
    if has_summary:
        return "data go through a summary network"
    if prior is None:
        return "there is no simulator whose first functions draw the parameters alone"
    if has_augmentations:
        return "there are augmentations"
    if has_adapter:
        return "there is an adapter of the user"
    if has_missing or any(value.ndim != 2 for value in data.values()):
        return "values may be missing" if has_missing else "variables are not of shape (n, d)"
    width = sum(data[name].shape[1] for name in observed)
    return None if width <= _WIDEST else f"one simulation is {width} numbers, more than {_WIDEST}"
