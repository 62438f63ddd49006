"""Neural likelihood estimation (NLE): a surrogate simulator learned from few simulations.

An ensemble learns p(x | theta) from the simulations, which is often far simpler than the posterior: a smooth
mean and simple noise, with one mode where the posterior has several. The prior is known exactly. Drawing
theta from the prior and x from the neural likelihood gives any number of simulations, and a posterior network
that is trained on these cannot overfit; what remains are the errors of the likelihood.

Neural likelihoods: G. Papamakarios, D. Sterratt, I. Murray, Sequential neural likelihood, AISTATS 2019,
arXiv:1805.07226; posteriors trained on them: S. T. Radev et al., JANA: Jointly amortized neural approximation
of complex Bayesian models, UAI 2023, arXiv:2302.09125; M. Gloeckler, M. Deistler, J. H. Macke, Variational
methods for simulation-based inference, ICLR 2022, arXiv:2203.04176.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.approximators import (
    Approximator,
    ContinuousApproximator,
    EnsembleApproximator,
    LikelihoodApproximator,
)
from sbi_models.networks import AutoregressiveMixture
from sbi_models.simulators import Simulator
from sbi_models.training.settings import TrainingOptions, TrainingSettings
from sbi_models.types import Array, FloatArray, Variables
from sbi_models.workflows.auto import schedules
from sbi_models.workflows.auto.transforms import Bounds, adapter_of, is_count, log_likelihood, regressors
from sbi_models.workflows.construction import Recipe, roles_of
from sbi_models.workflows.workflow import Workflow

_KINDS = {"normal": 1, "mixture": 8}
"""Number of mixture components of each data component, by kind of network.

The kind with the higher held-out density is taken.
"""

_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class NeuralLikelihood:
    """Mixture, with equal weights, of neural densities of data given parameters.

    Attributes:
        members: approximators by name, of data (their inference variables) given parameters (their
            conditions).
        counts: counts of each variable of data, which columns hold whole numbers.
        kind: "normal" or "mixture".
    """

    members: Mapping[str, LikelihoodApproximator]
    counts: Mapping[str, Array]
    kind: str

    @property
    def approximator(self) -> Approximator | None:
        """The mixture; None where whole numbers were spread, so that members have densities of others."""
        if any(whole.any() for whole in self.counts.values()):
            return None
        first = next(iter(self.members.values()))
        return first if len(self.members) == 1 else EnsembleApproximator(self.members, info=first.info)

    def draw(self, parameters: Variables, *, seed: int) -> Variables:
        """One simulation for each row of parameters (n, ...), raw space: parameters and data.

        Rows that are not finite are left out.
        """
        n = len(next(iter(parameters.values())))
        drawn: dict[str, FloatArray] = {}
        whose = np.arange(n) % len(self.members)
        for k, member in enumerate(self.members.values()):
            positions = np.flatnonzero(whose == k)
            for start in range(0, len(positions), _ROWS_AT_ONCE):
                rows = positions[start : start + _ROWS_AT_ONCE]
                given = {name: value[rows] for name, value in parameters.items()}
                values = _one_draw_each(member, given, seeding.derive(seed, k, start))
                for name, value in values.items():
                    drawn.setdefault(name, np.empty((n, value.shape[-1])))[rows] = value
        for name, whole in self.counts.items():
            drawn[name] = np.where(whole, np.floor(drawn[name]), drawn[name])
        finite = np.all([np.isfinite(value).all(axis=1) for value in drawn.values()], axis=0)
        return {name: value[finite] for name, value in (parameters | drawn).items()}


@torch.no_grad()
def _one_draw_each(member: ContinuousApproximator, given: Variables, seed: int) -> Variables:
    """One draw for each row, name to (n, d), raw space, all of one random stream.

    That is quicker than `sample`, which has a stream for each row.
    """
    standardized = member.inference_network.sample(
        1, member.given(given), torch.Generator().manual_seed(seed)
    )[:, 0]
    return {
        name: value.cpu().numpy() for name, value in member.raw_of(standardized.to(torch.float64)).items()
    }


def estimate_likelihood(
    data: Variables,
    validation: Variables,
    *,
    parameters: list[str],
    observed: list[str],
    bounds: Mapping[str, Bounds],
    scales: Mapping[str, str],
    info: dict[str, Any],
    seed: int,
    name: str,
    options: TrainingOptions,
) -> NeuralLikelihood:
    """Learn the likelihood from simulations, raw variables (n, d).

    Held-out simulations decide on early stops and on the kind of mixture. `info` is the JSON of the members.
    """
    counts = {key: np.array([is_count(column) for column in data[key].T]) for key in observed}
    spread, held_out = (
        _spread(part, counts, seeding.derive(seed, what))
        for part, what in ((data, "spread"), (validation, "held out"))
    )
    bounded = adapter_of(bounds, {})
    adapter = Adapter(
        (
            *(bounded.transforms if _better_bounded(data, parameters, observed, bounded, scales) else ()),
            *_steps(scales),
        )
    )
    number = len(data[parameters[0]])
    schedule = schedules.for_simulations(number)
    epochs = schedule.epochs(number)

    def member(kind: str, k: int) -> LikelihoodApproximator:
        network = AutoregressiveMixture(
            _KINDS[kind], trunk_blocks=1, head_blocks=1, dropout=schedule.dropout, order="given"
        )
        settings: TrainingOptions = {
            **options,
            "initial_learning_rate": schedule.learning_rate,
            "ema": schedule.ema,
            "early_stopping": schedule.patience(epochs),
            "checkpoint_name": f"{name}.{kind}-{k}",
            "seed": seeding.derive(seed, kind, k),
        }
        recipe = Recipe(
            roles_of(observed, parameters, None),
            None,
            adapter=adapter if adapter.transforms else None,
            summary_mask=None,
            missing=None,
            prior=None,
            standardize="all",
        )
        approximator = recipe.approximator(network, None, info, LikelihoodApproximator)
        assert isinstance(approximator, LikelihoodApproximator)
        workflow = Workflow(approximator=approximator, simulator=None, settings=TrainingSettings(**settings))
        workflow.fit_offline(spread, epochs, schedule.batch_size, validation_data=held_out)
        return approximator

    first = {kind: member(kind, 0) for kind in _KINDS}
    losses = {kind: -float(one.log_prob(held_out).mean()) for kind, one in first.items()}
    best = min(losses, key=lambda kind: losses[kind])
    members = {f"{best}-0": first[best]} | {
        f"{best}-{k}": member(best, k) for k in range(1, schedules.num_likelihood_networks(number))
    }
    return NeuralLikelihood(members, counts, best)


def _steps(scales: Mapping[str, str]) -> tuple[Any, ...]:
    return adapter_of({}, scales).transforms


def _spread(data: Variables, counts: Mapping[str, Array], seed: int) -> Variables:
    """Whole numbers k as numbers uniform in [k, k + 1), which have a density."""
    rng = seeding.generator(seed, "whole numbers")
    return dict(data) | {
        name: data[name] + np.where(whole, rng.uniform(size=data[name].shape), 0.0)
        for name, whole in counts.items()
    }


def _better_bounded(
    data: Variables, parameters: list[str], observed: list[str], bounded: Adapter, scales: Mapping[str, str]
) -> bool:
    """Whether data are more nearly linear in bounded parameters than in raw ones."""
    if not bounded.transforms:
        return False
    raw = {name: torch.as_tensor(data[name], dtype=torch.float64) for name in (*parameters, *observed)}
    given = {name: raw[name] for name in parameters}
    seen = bounded.fitted(given).forward(given)
    scaled = Adapter(_steps(scales)).forward({name: raw[name] for name in observed})
    values = np.concatenate([scaled[name].numpy() for name in observed], axis=1)
    as_inputs = [
        regressors(np.concatenate([part[name].numpy() for name in parameters], axis=1))
        for part in (raw, seen)
    ]
    return log_likelihood(values, as_inputs[1]) > log_likelihood(values, as_inputs[0])


def prior_of(simulator: Simulator | None, parameters: list[str], observed: list[str]) -> Simulator | None:
    """First functions of a simulator, if they draw the parameters without the data; else None."""
    if simulator is None or simulator.meta is not None:
        return None
    for number in range(1, len(simulator.calls)):
        part = simulator.first(number)
        drawn = part.sample(2, seed=0, progress=False)
        if any(name in drawn for name in observed):
            return None
        if all(name in drawn for name in parameters):
            return part
    return None
