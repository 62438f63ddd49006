"""The body shared by all workflows: training, sampling, diagnosing and certifying one approximator."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from torch.distributions import Distribution

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.rows import by_component
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.datasets import Augmentations, LoadFunction, PerFile, Sharing, SimulationStore
from sbi_models.simulators import Simulator, make_simulator
from sbi_models.training.fit_plan import FitPlan
from sbi_models.training.history import History, OnEpochEnd
from sbi_models.training.settings import TrainingSettings
from sbi_models.types import Array, Estimates, Variables, VariablesLike
from sbi_models.workflows.certification import CertificationMixin
from sbi_models.workflows.diagnostics import DiagnosticsMixin
from sbi_models.workflows.fitting import FitMixin
from sbi_models.workflows.importance_resampling import ImportanceResamplingMixin
from sbi_models.workflows.other_prior import PriorLike, PriorRatio, PriorReport, draw_under


@known_arguments
class Workflow(FitMixin, DiagnosticsMixin, CertificationMixin, ImportanceResamplingMixin):
    """Trains one approximator; subclasses make it from their arguments.

    Args:
        approximator: approximator to train, sample and diagnose.
        simulator: source of training data, if there is one.
        settings: settings of every training.
    """

    priors: Mapping[str, Distribution] = MappingProxyType({})
    """Torch distributions of inferred variables, as far as they are known."""

    def __init__(
        self, *, approximator: Approximator, simulator: Simulator | None, settings: TrainingSettings
    ) -> None:
        assert settings.seed is not None
        self.approximator = approximator
        self.simulator = None if simulator is None else make_simulator(simulator)
        self.settings, self.seed, self.threads = settings, settings.seed, settings.threads
        self.history: History | None = None
        self.prior_reports: list[PriorReport] = []
        """Reports on the data sets of the last call of `sample` with a prior."""
        self._fits, self._best_loss = 0, math.inf

    # ---- training -----------------------------------------------------------

    @property
    def _plan(self) -> FitPlan:
        """The plan of a fit of all members on all data."""
        return FitPlan(Sharing(len(self.approximator.members)))

    @property
    def _trained_history(self) -> History:
        """The history of the last fit."""
        assert self.history is not None
        return self.history

    def fit_offline(
        self,
        data: VariablesLike,
        epochs: int = 100,
        batch_size: int = 32,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        on_epoch_end: OnEpochEnd | None = None,
    ) -> History:
        """Train on simulations in memory.

        Args:
            data: name to array of shape (n, ...), raw space; every variable with a role must be there.
            epochs: passes over the data.
            batch_size: simulations in one step.
            validation_data: held-out simulations, or how many to draw from the simulator; evaluated after
                each epoch with fixed noise.
            augmentations: a function of the raw batch, a dict of variable names to functions, or a list of
                functions of the batch; applied to training batches only, before the adapter, anew in every
                step.
            on_epoch_end: function that is called with the epoch (from 1) and its losses.

        Returns:
            The history: `history.history["loss"]`, and `["val_loss"]` with validation data, one value an
            epoch.
        """
        self._fit_offline(
            self._plan,
            data,
            epochs,
            batch_size,
            validation_data=validation_data,
            augmentations=augmentations,
            on_epoch_end=on_epoch_end,
        )
        return self._trained_history

    def fit_online(
        self,
        epochs: int = 100,
        num_batches_per_epoch: int = 100,
        batch_size: int = 32,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        workers: int | None = None,
        on_epoch_end: OnEpochEnd | None = None,
    ) -> History:
        """Train on simulations that are drawn while training, ahead of their use.

        `workers` changes nothing but the speed.

        Args:
            epochs, batch_size, validation_data, augmentations, on_epoch_end: arguments as for `fit_offline`.
            num_batches_per_epoch: number of steps of an epoch.
            workers: number of processes that simulate. None simulates in a thread where all functions are
                batched and take `rng`, and otherwise in this process until one other process, started if
                seconds of simulation are left, takes over. 1 simulates in this process, each batch when it is
                needed. An integer from 2, or -1 for one a core, simulates in that many other processes, for
                slow functions.

        Returns:
            The history, as for `fit_offline`.
        """
        self._fit_online(
            self._plan,
            epochs,
            num_batches_per_epoch,
            batch_size,
            validation_data=validation_data,
            augmentations=augmentations,
            workers=workers,
            on_epoch_end=on_epoch_end,
        )
        return self._trained_history

    def fit_disk(
        self,
        root: str | Path | SimulationStore,
        pattern: str = "*.pkl",
        load_fn: LoadFunction | None = None,
        batch_size: int = 32,
        epochs: int = 100,
        *,
        simulations_per_file: PerFile | None = None,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        on_epoch_end: OnEpochEnd | None = None,
    ) -> History:
        """Train on simulations in files, a few of them in memory at a time; for data larger than memory.

        Every file is checked before training. Standardization takes its moments from files chosen at random,
        65 536 simulations or all. What a summary network takes may differ in length between simulations: in
        files of many simulations as `sbi_models.datasets.to_arrays` writes it (in a pickle also as a list of
        arrays), in files of one simulation as it is.

        Args:
            root: folder of the files, or one that the simulation store has written; or a store, such as the
                first rows of one.
            pattern: pattern of the file names; `**/*.npz` looks into folders below.
            load_fn: function that reads a file of a format other than .pkl (arrays only), .npz and
                .safetensors: a dict of names to arrays.
            batch_size: simulations in one step.
            epochs: passes over the files.
            simulations_per_file: "one" (arrays without a leading axis) or "many" (with one); None tells by
                the shapes in the first file.

        Other arguments and result as for `fit_offline`.
        """
        self._fit_disk(
            self._plan,
            root,
            pattern=pattern,
            load_fn=load_fn,
            batch_size=batch_size,
            epochs=epochs,
            simulations_per_file=simulations_per_file,
            validation_data=validation_data,
            augmentations=augmentations,
            on_epoch_end=on_epoch_end,
        )
        return self._trained_history

    def _references(self, number: int, seed: int) -> Variables:
        return self._successes(self._simulator().sample(number, seed=seed, progress=False))

    # ---- inference ----------------------------------------------------------

    def simulate(self, num_simulations: int, *, seed: int | None = None) -> Variables:
        """Simulate: name to array of shape (num_simulations, ...), raw space."""
        return self._simulator().sample(num_simulations, seed=seed)

    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
        prior: PriorLike | None = None,
    ) -> Variables:
        """Posterior draws; see `ContinuousApproximator.sample`.

        Args:
            prior: another prior than that of the simulations: a torch distribution of the parameter, or a
                dict of them by parameter. Ten times as many draws are weighted by the ratio of both priors,
                and taken again in proportion; `prior_reports` says what they are worth, and a TrustWarning
                where that is too little.
            num_samples, conditions, split, batch_size, seed: arguments as for the approximator.

        Raises:
            ConfigurationError: for a prior that reaches beyond that of the simulations, or if the density of
                that is not known.
        """
        if prior is None:
            return self.approximator.sample(
                num_samples=num_samples, conditions=conditions, split=split, batch_size=batch_size, seed=seed
            )

        def draw(number: int, seed: int) -> Variables:
            return self.approximator.sample(
                num_samples=number, conditions=conditions, batch_size=batch_size, seed=seed
            )

        return self._drawn_under(prior, draw, num_samples=num_samples, split=split, seed=seed)

    def _drawn_under(
        self,
        prior: PriorLike,
        draw: Callable[[int, int], Variables],
        *,
        num_samples: int,
        split: bool,
        seed: int | None,
    ) -> Variables:
        known = {} if self.simulator is None else self.simulator.priors
        shapes = {name: self.approximator.shapes[name] for name in self.approximator.inference_names}
        draws, self.prior_reports = draw_under(
            PriorRatio(prior, {**known, **self.priors}, shapes),
            draw,
            positive_int(num_samples, "num_samples"),
            seeding.resolve(seed),
        )
        return by_component(draws) if split else draws

    def log_prob(self, data: VariablesLike, *, batch_size: int | None = None) -> Array:
        """Posterior log densities in nats; see `ContinuousApproximator.log_prob`."""
        return self.approximator.log_prob(data, batch_size=batch_size)

    def estimate(
        self, conditions: VariablesLike, *, split: bool = False, batch_size: int | None = None
    ) -> Estimates:
        """Point estimates and parameters of scoring rules; see `ScoringRuleApproximator.estimate`."""
        return self.approximator.estimate(conditions=conditions, split=split, batch_size=batch_size)
