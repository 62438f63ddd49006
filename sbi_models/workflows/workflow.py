"""The body shared by all workflows: checking arguments, training, sampling, diagnosing."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.calibration import FEWEST
from sbi_models.approximators.validation import as_variables, check_strays
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.datasets import (
    Augment,
    Augmentations,
    Batches,
    DiskBatches,
    LoadFunction,
    OnlineBatches,
    PerFile,
    PreparedBatches,
    RingBatches,
    Sharing,
    SimulationFiles,
    SimulationStore,
)
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.simulators import Simulator, make_simulator
from sbi_models.training.devices import is_first_process
from sbi_models.training.environment import on_own_threads
from sbi_models.training.fingerprint import described
from sbi_models.training.history import History
from sbi_models.training.member_parts import Part, Trained
from sbi_models.training.settings import TrainingSettings
from sbi_models.types import Array, Estimates, Variables, VariablesLike
from sbi_models.workflows.certificate_calibration import leave_certificates
from sbi_models.workflows.certification import Certified
from sbi_models.workflows.diagnostics import Diagnosed
from sbi_models.workflows.importance_resampling import Corrected

if TYPE_CHECKING:
    from sbi_models.training.callbacks import Checkpoint, OnEpochEnd

_ROWS_FOR_MOMENTS = 4096
_FEWEST_ROWS_FOR_MOMENTS = 256
_ROWS_FOR_MOMENTS_ON_DISK = 65_536
_WEIGHT_DECAY = 5e-3
_VALIDATION_BATCH = 1024
_FEWEST_ROWS_AFTER, _MOST_ROWS_AFTER, _ROWS_AT_ONCE = 2_000, 1_000_000, 16_384
_FEWEST_ROWS_FOR_CERTIFICATES, _MOST_ROWS_FOR_CERTIFICATES = 500, 6_000
_ROWS_AHEAD = 512
"""Simulations that a call of the simulator makes at least while training online, where rows do not depend on
their batch."""


@known_arguments
class Workflow(Diagnosed, Certified, Corrected):
    """Trains one approximator; subclasses say how it is made."""

    def __init__(
        self, *, approximator: Approximator, simulator: Simulator | None, settings: TrainingSettings
    ) -> None:
        assert settings.seed is not None
        self.approximator = approximator
        self.simulator = None if simulator is None else make_simulator(simulator)
        self.settings, self.seed, self.threads = settings, settings.seed, settings.threads
        self.history: History | None = None
        self._fits, self._best_loss = 0, math.inf
        self._sharing = Sharing(len(approximator.members))
        """How the members of an ensemble share the data of the present fit."""
        self.batched: bool | None = None
        """Whether the members of an ensemble train as one batched module."""
        self.parts: list[Part] = []
        """Of the members of an ensemble that have trained apart here since the last whole fit."""
        self._members: tuple[str, ...] | None = None
        """Those that train in the present fit; None is all."""
        self._put_together: Sequence[Part] = ()
        """The parts that the present fit puts together instead of training."""

    # ---- training -----------------------------------------------------------

    @on_own_threads
    def fit_offline(
        self,
        data: VariablesLike,
        epochs: int = 100,
        batch_size: int = 32,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        on_epoch_end: "OnEpochEnd | None" = None,
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
            on_epoch_end: called with the epoch (from 1) and its losses.

        Returns:
            The history: `history.history["loss"]`, and `["val_loss"]` with validation data, one value an
            epoch.
        """
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        augment = self._augment(augmentations)
        variables = self._checked(data, "training data")
        n = len(next(iter(variables.values())))
        windows = self._windows(n, batch_size, "of the data")
        validation = self._validation_variables(validation_data)
        self._build(variables)
        order = seeding.derive(self._fit_seed, "batches")
        batches: Batches | PreparedBatches
        if augment is None:
            batches = Batches(
                self.approximator.prepare(variables, what="training data"), batch_size, order, windows
            )
        else:
            raw = {
                name: torch.as_tensor(np.array(value))
                for name, value in data.items()
                if np.ndim(value) and len(value) == n
            }
            batches = PreparedBatches(
                Batches(raw, batch_size, order, windows),
                self.approximator.prepare,
                augment,
                self._sharing.trained,
            )
        return self._fit(
            batches,
            epochs,
            validation,
            [variables],
            known=lambda: variables,
            augment=augment,
            weight_decay=_WEIGHT_DECAY,
            on_epoch_end=on_epoch_end,
        )

    @on_own_threads
    def fit_online(
        self,
        epochs: int = 100,
        num_batches_per_epoch: int = 100,
        batch_size: int = 32,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        workers: int | None = None,
        on_epoch_end: "OnEpochEnd | None" = None,
    ) -> History:
        """Train on simulations that are drawn while training, ahead of their use; `workers` changes nothing
        but the speed.

        Args:
            epochs, batch_size, validation_data, augmentations, on_epoch_end: as for `fit_offline`.
            num_batches_per_epoch: steps of an epoch.
            workers: None simulates in a thread where all functions are batched and take `rng`, and otherwise
                in this process until one other process, started if seconds of simulation are left, takes
                over. 1 simulates in this process, each batch when it is needed. An integer from 2, or -1 for
                one a core, simulates in that many other processes, for slow functions.

        Returns:
            The history, as for `fit_offline`.
        """
        self._check_fit("fit_online")
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        num_batches = positive_int(num_batches_per_epoch, "num_batches_per_epoch")
        augment, simulator = self._augment(augmentations), self._simulator()
        # One simulation tells what they are before there are thousands; if some may fail, it may be the one.
        first = (
            {} if simulator.failures.allowed else self._checked(self._simulated(1, "moments"), "simulations")
        )
        validation = self._validation_variables(validation_data, workers)
        if not self.approximator.is_built:
            number = min(
                _ROWS_FOR_MOMENTS,
                max(_FEWEST_ROWS_FOR_MOMENTS, epochs * num_batches * self._sharing.ring(batch_size)),
            )
            self._build(self._checked(self._simulated(number, "moments", workers), "simulations"))
        ring = self._sharing.ring(batch_size)
        at_once = 1 if simulator.meta else max(1, _ROWS_AHEAD // ring)
        in_thread = workers is None and simulator.suits_a_thread
        stream = partial(
            simulator.stream,
            seed=seeding.derive(self._fit_seed, "online simulations"),
            workers=1 if in_thread else workers,
        )
        with closing(
            OnlineBatches(stream, num_batches, ring, at_once, epochs=epochs, in_thread=in_thread)
        ) as raw:
            raw.fingerprint += "".join(
                f", {name} {sha256(value.tobytes()).hexdigest()[:16]}" for name, value in first.items()
            )
            prepared = PreparedBatches(raw, self._prepared_successes, augment)
            batches = (
                prepared if self._sharing.is_common else RingBatches(prepared, self._sharing, batch_size)
            )
            more = self._new_rows(epochs * num_batches * ring, workers)
            number = min(
                _MOST_ROWS_FOR_CERTIFICATES,
                max(_FEWEST_ROWS_FOR_CERTIFICATES, epochs * num_batches * ring // 10),
            )
            return self._fit(
                batches,
                epochs,
                validation,
                more,
                known=lambda: self._simulated(number, "certificates", workers),
                augment=augment,
                weight_decay=0.0,
                on_epoch_end=on_epoch_end,
            )

    @on_own_threads
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
        on_epoch_end: "OnEpochEnd | None" = None,
    ) -> History:
        """Train on simulations in files, a few of them in memory at a time; for data larger than memory.

        Every file is checked before training. Standardization takes its moments from files chosen at random,
        65 536 simulations or all.

        Args:
            root: folder of the files, or one that the simulation store has written; or a store, such as the
                first rows of one.
            pattern: which files; `**/*.npz` looks into folders below.
            load_fn: reads a file of a format other than .pkl (arrays only), .npz and .safetensors: a dict of
                names to arrays.
            batch_size: simulations in one step.
            epochs: passes over the files.
            simulations_per_file: "one" (arrays without a leading axis) or "many" (with one); None tells by
                the shapes in the first file.

        Other arguments and result as for `fit_offline`.
        """
        self._check_fit("fit_disk")
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        augment = self._augment(augmentations)
        names = self.approximator.inference_names + self.approximator.condition_names
        may_miss = self.approximator.may_miss
        files = SimulationFiles.find(
            root, pattern, names, load_fn=load_fn, per_file=simulations_per_file, may_miss=may_miss
        )
        windows = self._windows(sum(files.rows), batch_size, f"in {root}")
        validation = self._validation_variables(validation_data)
        self._build(files.some(_ROWS_FOR_MOMENTS_ON_DISK, seeding.derive(self.seed, "moments")))
        raw = DiskBatches(files, batch_size, seeding.derive(self._fit_seed, "batches"), windows)
        batches = PreparedBatches(raw, self.approximator.prepare, augment, self._sharing.trained)
        seed = seeding.derive(self._fit_seed, "after training")
        return self._fit(
            batches,
            epochs,
            validation,
            (files.some(number, seed) for number in [_ROWS_FOR_MOMENTS_ON_DISK]),
            known=lambda: files.some(_MOST_ROWS_FOR_CERTIFICATES, seeding.derive(seed, "certificates")),
            augment=augment,
            weight_decay=_WEIGHT_DECAY,
            on_epoch_end=on_epoch_end,
        )

    def _build(self, data: Variables) -> None:
        """Make the layers of the approximator from simulations, unless there are some."""
        self.approximator.build(data, seed=self.seed)

    def _check_fit(self, method: str) -> None:
        """Refuse a way to train that a kind of workflow does not have."""

    @property
    def _fit_seed(self) -> int:
        """Of the order of data, the simulations and the noise of this fit; another one for each fit of the
        workflow."""
        return self.seed if self._fits == 0 else seeding.derive(self.seed, "fit", self._fits)

    def _windows(self, num_rows: int, batch_size: int, where: str) -> list[Array] | None:
        """The rows of finite data that each member trains on; None if all train on all."""
        n = self._sharing.window(num_rows)
        if batch_size > n:
            each = "" if n == num_rows else f" that a member has of the {num_rows}"
            raise DataError(
                f"Expected a batch_size of at most the {n} simulations{each} {where}, got {batch_size}."
            )
        return self._sharing.windows(num_rows, self._fit_seed)

    def _augment(self, augmentations: Augmentations | None) -> Augment | None:
        return None if augmentations is None else Augment(augmentations, self._fit_seed)

    def _checked(self, data: VariablesLike, what: str) -> Variables:
        """The variables with a role, checked."""
        names = self.approximator.inference_names + self.approximator.condition_names
        variables = as_variables(data, names, what=what, may_miss=self.approximator.may_miss)
        check_strays(data, names, what)
        return variables

    def _simulated(self, number: int, purpose: str, workers: int | None = None) -> Variables:
        """Simulations other than those to train on."""
        simulator, seed = self._simulator(), seeding.derive(self.seed, purpose)
        if workers is None:
            return self._successes(
                simulator.sample(
                    number, seed=seed, progress=self.settings.progress is not False and number > 1
                )
            )
        with closing(simulator.stream([(0, number)], seed=seed, workers=workers)) as stream:
            return self._successes(next(stream))

    def _references(self, number: int, seed: int) -> Variables:
        return self._successes(self._simulator().sample(number, seed=seed, progress=False))

    def _successes(self, simulations: Variables) -> Variables:
        """The rows that did not fail, if the policy of the simulator lets some fail, which are NaN then."""
        if not self._simulator().failures.allowed:
            return simulations
        names = self.approximator.inference_names + self.approximator.condition_names
        kept = [name for name in names if name in simulations and name not in self.approximator.may_miss]
        fine = np.all(
            [~np.isnan(simulations[name]).reshape(len(simulations[name]), -1).any(axis=1) for name in kept],
            axis=0,
        )
        return {name: value[fine] for name, value in simulations.items()}

    def _prepared_successes(self, simulations: Variables) -> dict[str, torch.Tensor]:
        return self.approximator.prepare(self._successes(simulations))

    def _validation_variables(
        self, validation_data: VariablesLike | int | None, workers: int | None = None
    ) -> Variables | None:
        if validation_data is None:
            return None
        if not isinstance(validation_data, Mapping):
            number = positive_int(validation_data, "validation_data (if not a dict)")
            validation_data = self._simulated(number, "validation simulations", workers)
        return self._checked(validation_data, "validation data")

    def _fit(
        self,
        batches: Batches | PreparedBatches | RingBatches,
        epochs: int,
        validation: Variables | None,
        simulations: Iterable[Variables],
        *,
        known: Callable[[], Variables],
        augment: Augment | None,
        weight_decay: float,
        on_epoch_end: "OnEpochEnd | None",
    ) -> History:
        # Lightning takes seconds to import and is needed for nothing but training.
        from sbi_models.training.trainer import train  # noqa: PLC0415

        prepared = (
            None if validation is None else self.approximator.prepare(validation, what="validation data")
        )
        checkpoint = self._checkpoint()
        with self.approximator.without_certificate():
            trained = train(
                self.approximator,
                batches,
                None if prepared is None else Batches(prepared, _VALIDATION_BATCH, seed=None),
                epochs,
                self.settings,
                seed=self._fit_seed,
                weight_decay=weight_decay,
                augmentations=described(None if augment is None else augment.described_by),
                batched=self.batched,
                members=self._members,
                parts=self._put_together,
                checkpoint=checkpoint,
                on_epoch_end=on_epoch_end,
            )
        checkpoint = checkpoint if is_first_process(self.settings) else None
        self.history = history = trained.history
        if self._members is not None:
            self._leave_part(trained, checkpoint)
            return history
        self._after_training(simulations)
        usual, held_out = self._as_trained(known(), validation, augment)
        seed = seeding.derive(self._fit_seed, "certificates")
        leave_certificates(
            self.approximator,
            usual,
            held_out,
            checkpoint,
            save_best_only=self.settings.save_best_only,
            seed=seed,
        )
        self._best_loss = min(self._best_loss, history.best_loss)
        self._fits, self.parts = self._fits + 1, []
        return history

    def _as_trained(
        self, known: Variables, validation: Variables | None, augment: Augment | None
    ) -> tuple[Variables, Variables | None]:
        """Simulations and held-out ones as the training saw them; augmented ones are their own held-out
        ones."""
        if augment is None or len(next(iter(known.values()))) < FEWEST:
            return known, validation
        return self._checked(
            augment({name: np.array(value) for name, value in known.items()}), "augmented simulations"
        ), None

    def _leave_part(self, trained: Trained, checkpoint: "Checkpoint | None") -> None:
        """What an ensemble does with members that have trained apart."""

    def _after_training(self, simulations: Iterable[Variables]) -> None:
        """What a kind of workflow does with a trained approximator before it is saved, with simulations that
        are made if it looks."""

    def _new_rows(self, trained_on: int, workers: int | None) -> Iterator[Variables]:
        """New simulations, some at a time: half as many as an online training has used, in bounds."""
        number = min(_MOST_ROWS_AFTER, max(_FEWEST_ROWS_AFTER, trained_on // 2))
        for k, start in enumerate(range(0, number, _ROWS_AT_ONCE)):
            yield self._simulated(min(_ROWS_AT_ONCE, number - start), f"after training, part {k}", workers)

    def _checkpoint(self) -> "Checkpoint | None":
        from sbi_models.training.callbacks import checkpoint_of  # noqa: PLC0415 - imports Lightning

        return checkpoint_of(self.settings, fit=self._fits, to_beat=self._best_loss)

    def _simulator(self) -> Simulator:
        if self.simulator is None:
            raise ConfigurationError(
                "This needs a simulator, and the workflow has none. Pass simulator= to the "
                "workflow, or data instead."
            )
        return self.simulator

    # ---- inference ----------------------------------------------------------

    def simulate(self, num_simulations: int, *, seed: int | None = None) -> Variables:
        """Simulations of the workflow's simulator: name to array of shape (num_simulations, ...), raw
        space."""
        return self._simulator().sample(num_simulations, seed=seed)

    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> Variables:
        """Posterior draws; see `ContinuousApproximator.sample`."""
        return self.approximator.sample(
            num_samples=num_samples, conditions=conditions, split=split, batch_size=batch_size, seed=seed
        )

    def log_prob(self, data: VariablesLike, *, batch_size: int | None = None) -> Array:
        """Posterior log densities in nats; see `ContinuousApproximator.log_prob`."""
        return self.approximator.log_prob(data, batch_size=batch_size)

    def estimate(
        self, conditions: VariablesLike, *, split: bool = False, batch_size: int | None = None
    ) -> Estimates:
        """Point estimates and parameters of scoring rules; see `ScoringRuleApproximator.estimate`."""
        return self.approximator.estimate(conditions=conditions, split=split, batch_size=batch_size)
