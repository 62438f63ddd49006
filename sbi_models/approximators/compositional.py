"""Compositional approximator: the posterior of parameters given several observations at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self, Unpack, overload

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.base import APPROXIMATORS
from sbi_models.approximators.composition import METHODS, SIMULATING
from sbi_models.approximators.composition.checks import (
    ROWS,
    is_underfitted,
    predictable_share,
    underfitting_note,
)
from sbi_models.approximators.composition.items import ROWS_AT_A_TIME, DiffusionItems, Items
from sbi_models.approximators.composition.plan import Plan
from sbi_models.approximators.composition.prior_scores import (
    PriorScore,
    PriorScoreLike,
    prior_score,
    score_without_conditions,
)
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition.shared_bias import SharedBias, SharedBiasEstimate
from sbi_models.approximators.composition_options import (
    CompositionOptions,
    Simulate,
    check_composable,
    composed_conditions,
    noise_level,
    num_calibration_simulations,
)
from sbi_models.approximators.continuous import ContinuousApproximator
from sbi_models.approximators.rows import by_component, chunks
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import data_sets_in_words, distrust
from sbi_models.networks import DiffusionModel, InferenceNetwork
from sbi_models.networks.diffusion import GaussianDenoiser
from sbi_models.progress import Advance, progress_bar
from sbi_models.types import Array, Variables, VariablesLike

_NOISE = {True: 0.02, False: 0.05}
"""Default noise of the scores of networks with Gaussian preconditioning (True), and of others."""

_WORK_BEFORE_PROGRESS = 20_000


@APPROXIMATORS.register("compositional")
@known_arguments
class CompositionalApproximator(ContinuousApproximator):
    """Posterior of one theta given n items, p(theta)^(1-n) prod_i p(theta given x_i), from that given one.

    Arguments as for `ContinuousApproximator`; the inference network must be a `DiffusionModel`, whose scores
    are composed.

    Raises:
        ConfigurationError: for another network.

    >>> import numpy as np, sbi_models as bf
    >>> roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    >>> approximator = bf.approximators.CompositionalApproximator(
    ...     adapter=bf.adapters.default_adapter(roles),
    ...     roles=roles,
    ...     inference_network=bf.networks.DiffusionModel(widths=(8,)),
    ... )
    >>> rng = np.random.default_rng(1)
    >>> approximator.build({"theta": rng.normal(size=(64, 2)), "x": rng.normal(size=(64, 2))}, seed=1)
    >>> approximator.compositional_sample(  # given one observation of each of 3 thetas
    ...     num_samples=5, conditions={"x": np.zeros((3, 1, 2))}, seed=2
    ... )["theta"].shape
    (3, 5, 2)
    """

    kind = "compositional"

    inference_network: DiffusionModel

    def __init__(self, *, inference_network: InferenceNetwork, **arguments: Any) -> None:
        check_composable(inference_network)
        super().__init__(inference_network=inference_network, **arguments)
        if self.inference_network.built_with is not None:
            self.shared_bias = SharedBias(self.inference_network.theta_dim)

    @classmethod
    def like(cls, trained: ContinuousApproximator) -> Self:
        """Compositional approximator with copies of a trained diffusion model and of its moments."""
        network = trained.inference_network
        check_composable(network)
        assert isinstance(network, DiffusionModel)
        return cls.from_settings(
            trained._settings(),
            {name: value.detach().cpu().clone() for name, value in trained.state_dict().items()},
        )

    @classmethod
    def from_settings(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The approximator of a file, also of an earlier one, which knows less or more of shared errors."""
        tensors = {
            name: value for name, value in tensors.items() if not name.startswith("shared_bias.local.")
        }
        unknown = SharedBias(settings["inference_network"]["built_with"]["theta_dim"]).state_dict()
        return super().from_settings(
            settings, {f"shared_bias.{name}": value for name, value in unknown.items()} | tensors
        )

    @overload
    def compositional_sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        simulate: Simulate | None = ...,
        return_diagnostics: Literal[False] = ...,
        **options: Unpack[CompositionOptions],
    ) -> Variables: ...

    @overload
    def compositional_sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        simulate: Simulate | None = ...,
        return_diagnostics: Literal[True],
        **options: Unpack[CompositionOptions],
    ) -> tuple[Variables, list[CompositionReport]]: ...

    def compositional_sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        simulate: Simulate | None = None,
        return_diagnostics: bool = False,
        **options: Unpack[CompositionOptions],
    ) -> Variables | tuple[Variables, list[CompositionReport]]:
        """Draw from the posterior given all items of each data set.

        Args:
            num_samples: draws for each data set.
            conditions: raw variables of shape (num_datasets, n_compositional, ...): one theta, and
                n_compositional >= 1 observations of it.
            simulate: simulations for fixed parameters, which remove the errors that all items share;
                `CompositionalWorkflow` passes its simulator. None composes without.
            return_diagnostics: also return a `CompositionReport` for each data set.
            options: see `CompositionOptions`.

        Returns:
            Name to array of shape (num_datasets, num_samples, width), raw space; a warning is issued where an
            answer should not be trusted.

        Raises:
            ConfigurationError: for an unknown method, or if the prior is neither given nor learned.
            DataError: if the conditions do not have those axes.
            NotFittedError: before a training.
        """
        drawn, reports = self.compose(
            num_samples=num_samples, conditions=conditions, simulate=simulate, **options
        )
        warn_of_compositions(reports)
        drawn = by_component(drawn) if options.get("split", False) else drawn
        return (drawn, reports) if return_diagnostics else drawn

    def compose(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        simulate: Simulate | None = None,
        **options: Unpack[CompositionOptions],
    ) -> tuple[Variables, list[CompositionReport]]:
        """`compositional_sample` with a report for each data set, without warnings; `split` has no effect."""
        num_samples, seed = positive_int(num_samples, "num_samples"), seeding.resolve(options.get("seed"))
        method = options.get("method", "calibrated")
        self._check_built()
        compose = METHODS.named(method)
        shapes = {name: self.shapes[name] for name in self.condition_names}
        flat, numbers = composed_conditions(conditions, shapes, self.any_length)
        num_datasets, most = len(numbers), max(numbers)
        noise = noise_level(options.get("noise"), self._default_noise)
        learned = self._learned_mean if self.shared_bias.is_known and noise == self._default_noise else None
        plan = Plan(
            noise,
            num_calibration_simulations(options.get("calibration_simulations"), most),
            seed,
            learned,
            is_underfitted(float(self.shared_bias.unused)),
        )
        prior = self._prior(options.get("compute_prior_score"), most)
        was_training = self.training
        self.eval()
        given = self.given(flat)
        parts, reports = [], []
        calibrates = simulate is not None and bool(plan.simulations) and most > 1 and method in SIMULATING
        steps = plan.simulations if calibrates else 1
        show = None if num_datasets * (most + steps) > _WORK_BEFORE_PROGRESS else False
        with progress_bar("compose", num_datasets * steps, show=show) as advance:
            for row, item_conditions in enumerate(torch.split(given, numbers)):
                asked = num_calibration_simulations(options.get("calibration_simulations"), numbers[row])
                plan = replace(plan, seed=seeding.derive(seed, "composition", row), simulations=asked)
                fresh = None
                if prior is None or numbers[row] == 1:
                    draws, report = self._alone(item_conditions, num_samples, plan.seed)
                else:
                    items = DiffusionItems(self.inference_network, item_conditions, seed=plan.seed)
                    fresh = (
                        partial(self._fresh, _counted(simulate, advance), items)
                        if simulate is not None and calibrates
                        else None
                    )
                    draws, report = compose(
                        items, prior, self._prior_moments(), num_samples, plan, fresh=fresh
                    )
                if fresh is None:
                    report = replace(
                        report, notes=report.notes + underfitting_note(float(self.shared_bias.unused))
                    )
                parts.append(draws)
                reports.append(report)
                advance(0 if calibrates else 1)
        self.train(was_training)
        return self._to_raw(torch.stack(parts)), reports

    # ---- what the training leaves behind ------------------------------------

    def _make_layers(self, adapted: dict[str, Tensor]) -> None:
        super()._make_layers(adapted)
        self.shared_bias = SharedBias(self.inference_network.theta_dim)

    @torch.no_grad()
    def learn_shared_bias(self, simulations: Iterable[VariablesLike]) -> None:
        """Learn the shared error of the scores of all items from simulations, raw variables (n, ...) each.

        See `SharedBias`.
        """
        was_training = self.training
        self.eval()
        theta, residuals = [], []
        whitened: list[Tensor] = []
        features: list[Tensor] = []
        for part in simulations:
            prepared = self.prepare(part)
            for rows in chunks(prepared, None):
                batch = {key: value[rows] for key, value in prepared.items()}
                items = DiffusionItems(self.inference_network, self._conditions(batch), seed=0)
                theta.append(batch["inference_variables"].to("cpu", torch.float64))
                scores = items.own_scores(theta[-1], self._default_noise)
                residuals.append(scores - self._offset(theta[-1]))
                if len(whitened) * len(scores) < ROWS:
                    whitened.append(
                        torch.einsum("nij,ni->nj", torch.linalg.cholesky(items.gaussians()[1]), scores)
                    )
                    features.append(items.features)
        self.shared_bias.fit(torch.cat(theta), torch.cat(residuals))
        self.shared_bias.unused.fill_(predictable_share(torch.cat(features), torch.cat(whitened)))
        self.train(was_training)

    def _learned_mean(self, theta: Tensor) -> SharedBiasEstimate:
        """The mean score of an item at theta (m, d), as the training left it."""
        learned = self.shared_bias(theta)
        return SharedBiasEstimate(self._offset(theta) + learned.correction, learned.variance)

    def _offset(self, theta: Tensor) -> Tensor:
        """Score at theta (m, d) of the network without conditions; zero if it was not trained for that."""
        network = self.inference_network
        return (
            score_without_conditions(network, theta, self._default_noise)
            if network.knows_prior
            else torch.zeros_like(theta)
        )

    @property
    def _default_noise(self) -> float:
        return _NOISE[self.inference_network.is_gaussian]

    # ---- checks and parts ---------------------------------------------------

    def _prior(self, given: PriorScoreLike | None, num_items: int) -> PriorScore | None:
        """Score of the prior, checked by one call; None where none is needed."""
        if num_items == 1 and given is None:
            return None
        score = prior_score(given, self)
        score(torch.zeros(2, self.inference_network.theta_dim, dtype=torch.float64))
        return None if num_items == 1 else score

    def _prior_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the prior in standardized space.

        These are 0 and the identity, or, without standardization, those of the network.
        """
        network = self.inference_network
        d, parameters = network.theta_dim, network.no_conditions
        if (
            "inference_variables" not in self.standardizer.widths
            and isinstance(network.denoiser, GaussianDenoiser)
            and parameters is not None
        ):
            mean, factor = network.denoiser.gaussian(parameters.detach())
            return mean.detach().double().cpu(), (factor @ factor.mT).detach().double().cpu()
        return torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)

    def _alone(self, given: Tensor, num_samples: int, seed: int) -> tuple[Tensor, CompositionReport]:
        """Draws of the posterior of a single item, by the sampler of the network."""
        with torch.no_grad():
            draws = self.standardized_draws(num_samples, given, None, seed)[0]
        return draws.to("cpu", torch.float64), CompositionReport(method="sample", num_items=1)

    def _fresh(
        self, simulate: Simulate, like: DiffusionItems, theta: Tensor, seed: int
    ) -> Iterator[tuple[Tensor, Items]]:
        """Items simulated at theta (k, d), standardized space, in blocks, with their row numbers."""
        for start in range(0, len(theta), ROWS_AT_A_TIME):
            raw = {
                name: value.detach().cpu().numpy()
                for name, value in self.raw_of(theta[start : start + ROWS_AT_A_TIME]).items()
            }
            simulated, rows = simulate(raw, seeding.derive(seed, start))
            yield (
                start + torch.as_tensor(rows),
                DiffusionItems(self.inference_network, self.given(simulated), seed=seed, like=like),
            )


def _counted(simulate: Simulate, advance: Advance) -> Simulate:
    """The simulator, with what it has done shown as progress."""

    def counted(fixed: Variables, seed: int) -> tuple[Variables, Array]:
        simulated = simulate(fixed, seed)
        advance(len(next(iter(fixed.values()))))
        return simulated

    return counted


def warn_of_compositions(reports: Sequence[CompositionReport]) -> None:
    """One warning for all data sets, with the reasons of the first that has any."""
    doubted = [row for row, report in enumerate(reports) if report.warnings]
    if doubted:
        which = data_sets_in_words(doubted, len(reports))
        distrust(
            f"The composed posterior of {which} should not be trusted. "
            f"{' '.join(reports[doubted[0]].warnings)}"
        )
