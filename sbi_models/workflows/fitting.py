"""Fits of a workflow: training batches from memory, a simulator or files, and one training of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.calibration import FEWEST
from sbi_models.approximators.validation import as_variables, check_strays
from sbi_models.arguments import positive_int
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
    SimulationFiles,
    SimulationStore,
)
from sbi_models.datasets.offline import raw_tensors
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.ragged import content, fine_rows
from sbi_models.simulators import Simulator
from sbi_models.training.checkpoints import PartCheckpoint, checkpoint_of
from sbi_models.training.environment import on_own_threads
from sbi_models.training.fingerprint import described
from sbi_models.training.fit import fit
from sbi_models.training.fit_plan import FitPlan
from sbi_models.training.history import History, OnEpochEnd
from sbi_models.training.member_parts import Part
from sbi_models.training.settings import TrainingSettings, is_first_process
from sbi_models.types import Array, Variables, VariablesLike
from sbi_models.workflows.certificate_calibration import leave_certificates

_ROWS_FOR_MOMENTS = 4096
_FEWEST_ROWS_FOR_MOMENTS = 256
_ROWS_FOR_MOMENTS_ON_DISK = 65_536
_WEIGHT_DECAY = 5e-3
_VALIDATION_BATCH = 1024
_FEWEST_ROWS_AFTER, _MOST_ROWS_AFTER, _ROWS_AT_ONCE = 2_000, 1_000_000, 16_384
_FEWEST_ROWS_FOR_CERTIFICATES, _MOST_ROWS_FOR_CERTIFICATES = 500, 6_000
_ROWS_AHEAD = 512
"""Least number of simulations in one call of the simulator while training online.

It applies where rows do not depend on their batch.
"""


class FitMixin:
    """Trains the approximator of a workflow by a plan, and makes the data that it needs for that."""

    approximator: Approximator
    simulator: Simulator | None
    settings: TrainingSettings
    seed: int
    history: History | None

    _fits: int
    """Number of finished fits of all members."""

    _best_loss: float
    """Lowest monitored loss of these fits."""

    @on_own_threads
    def _fit_offline(
        self,
        plan: FitPlan,
        data: VariablesLike,
        epochs: int,
        batch_size: int,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        on_epoch_end: OnEpochEnd | None = None,
    ) -> Part | None:
        """See `Workflow.fit_offline`; the part of members that have trained apart, or None."""
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        augment = self._augment(augmentations)
        variables = self._checked(data, "training data")
        n = len(next(iter(variables.values())))
        windows = self._windows(plan, n, batch_size, "of the data")
        validation = self._validation_variables(validation_data)
        self._build(variables)
        order = seeding.derive(self._fit_seed, "batches")
        batches: Batches | PreparedBatches
        if augment is None:
            prepared = self.approximator.prepare(variables, what="training data")
            batches = Batches(prepared, batch_size, order, windows, self.approximator.padded_inputs)
        else:
            raw = raw_tensors(data, n)
            batches = PreparedBatches(
                Batches(raw, batch_size, order, windows),
                self.approximator.prepare,
                augment,
                plan.sharing.trained,
                self.approximator.padded_inputs,
            )
        return self._fit(
            plan,
            batches,
            epochs,
            validation,
            simulations=[variables],
            known=lambda: variables,
            augment=augment,
            weight_decay=_WEIGHT_DECAY,
            on_epoch_end=on_epoch_end,
        )

    @on_own_threads
    def _fit_online(
        self,
        plan: FitPlan,
        epochs: int,
        num_batches_per_epoch: int,
        batch_size: int,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        workers: int | None,
        on_epoch_end: OnEpochEnd | None = None,
    ) -> Part | None:
        """See `Workflow.fit_online`; the part of members that have trained apart, or None."""
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
                max(_FEWEST_ROWS_FOR_MOMENTS, epochs * num_batches * plan.sharing.ring(batch_size)),
            )
            self._build(self._checked(self._simulated(number, "moments", workers), "simulations"))
        ring = plan.sharing.ring(batch_size)
        at_once = max(1, _ROWS_AHEAD // ring)
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
                f", {name} {sha256(content(value)).hexdigest()[:16]}" for name, value in first.items()
            )
            masks = self.approximator.padded_inputs
            prepared = PreparedBatches(raw, self._prepared_successes, augment, masks=masks)
            batches = prepared if plan.sharing.is_common else RingBatches(prepared, plan.sharing, batch_size)
            number = min(
                _MOST_ROWS_FOR_CERTIFICATES,
                max(_FEWEST_ROWS_FOR_CERTIFICATES, epochs * num_batches * ring // 10),
            )
            return self._fit(
                plan,
                batches,
                epochs,
                validation,
                simulations=self._new_rows(epochs * num_batches * ring, workers),
                known=lambda: self._simulated(number, "certificates", workers),
                augment=augment,
                weight_decay=0.0,
                on_epoch_end=on_epoch_end,
            )

    @on_own_threads
    def _fit_disk(
        self,
        plan: FitPlan,
        root: str | Path | SimulationStore,
        *,
        pattern: str,
        load_fn: LoadFunction | None,
        batch_size: int,
        epochs: int,
        simulations_per_file: PerFile | None,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        on_epoch_end: OnEpochEnd | None = None,
    ) -> Part | None:
        """See `Workflow.fit_disk`; the part of members that have trained apart, or None."""
        self._check_fit("fit_disk")
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        augment = self._augment(augmentations)
        names = self.approximator.inference_names + self.approximator.condition_names
        files = SimulationFiles.find(
            root,
            pattern,
            names,
            load_fn=load_fn,
            per_file=simulations_per_file,
            may_miss=self.approximator.may_miss,
            any_length=self.approximator.roles.get("summary_variables", ()),
        )
        windows = self._windows(plan, sum(files.rows), batch_size, f"in {root}")
        validation = self._validation_variables(validation_data)
        self._build(files.some(_ROWS_FOR_MOMENTS_ON_DISK, seeding.derive(self.seed, "moments")))
        raw = DiskBatches(files, batch_size, seeding.derive(self._fit_seed, "batches"), windows)
        prepare, masks = self.approximator.prepare, self.approximator.padded_inputs
        batches = PreparedBatches(raw, prepare, augment, plan.sharing.trained, masks)
        seed = seeding.derive(self._fit_seed, "after training")
        return self._fit(
            plan,
            batches,
            epochs,
            validation,
            simulations=(files.some(number, seed) for number in [_ROWS_FOR_MOMENTS_ON_DISK]),
            known=lambda: files.some(_MOST_ROWS_FOR_CERTIFICATES, seeding.derive(seed, "certificates")),
            augment=augment,
            weight_decay=_WEIGHT_DECAY,
            on_epoch_end=on_epoch_end,
        )

    def _build(self, data: Variables) -> None:
        """Make the layers of the approximator from simulations, unless there are some."""
        self.approximator.build(data, seed=self.seed)

    def _check_fit(self, method: str) -> None:
        """Hook: raise ConfigurationError for a fit method that a kind of workflow does not have."""

    @property
    def _fit_seed(self) -> int:
        """Seed of the order of data, the simulations and the noise of the next fit, another one for each."""
        return self.seed if self._fits == 0 else seeding.derive(self.seed, "fit", self._fits)

    def _windows(self, plan: FitPlan, num_rows: int, batch_size: int, where: str) -> list[Array] | None:
        """The rows of finite data that each member trains on; None if all train on all."""
        n = plan.sharing.window(num_rows)
        if batch_size > n:
            each = "" if n == num_rows else f" that a member has of the {num_rows}"
            raise DataError(
                f"Expected a batch_size of at most the {n} simulations{each} {where}, got {batch_size}."
            )
        return plan.sharing.windows(num_rows, self._fit_seed)

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

    def _successes(self, simulations: Variables) -> Variables:
        """The rows that did not fail, if the policy of the simulator lets some fail, which are NaN then."""
        if not self._simulator().failures.allowed:
            return simulations
        names = self.approximator.inference_names + self.approximator.condition_names
        required = [name for name in names if name in simulations and name not in self.approximator.may_miss]
        fine = np.all(
            [fine_rows(simulations[name], lambda part: ~np.isnan(part)) for name in required],
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
        plan: FitPlan,
        batches: Batches | PreparedBatches | RingBatches,
        epochs: int,
        validation: Variables | None,
        *,
        simulations: Iterable[Variables],
        known: Callable[[], Variables],
        augment: Augment | None,
        weight_decay: float,
        on_epoch_end: OnEpochEnd | None,
    ) -> Part | None:
        """Train by a plan, then learn what certificates need, unless some members have trained apart.

        Args:
            plan: the members that train, and how they share the data.
            batches: prepared training batches.
            epochs: passes over them.
            validation: checked held-out simulations, raw space.
            simulations: simulations for `_after_training`, which are made as they are iterated over.
            known: function that gives the simulations that certificates are learned from.
            augment: augmentations of the batches, which certificates see, too.
            weight_decay: weight decay of the default optimizer.
            on_epoch_end: listener of the user.

        Returns:
            The part of members that have trained apart; None after a fit of all.
        """
        prepared = (
            None if validation is None else self.approximator.prepare(validation, what="validation data")
        )
        checkpoint = checkpoint_of(self.settings, plan.members, fit=self._fits, to_beat=self._best_loss)
        trained = fit(
            self.approximator,
            batches,
            None
            if prepared is None
            else Batches(prepared, _VALIDATION_BATCH, seed=None, masks=self.approximator.padded_inputs),
            epochs,
            settings=self.settings,
            plan=plan,
            seed=self._fit_seed,
            weight_decay=weight_decay,
            augmentations=described(None if augment is None else augment.described_by),
            checkpoint=checkpoint,
            on_epoch_end=on_epoch_end,
        )
        checkpoint = checkpoint if is_first_process(self.settings) else None
        self.history = trained.history
        if plan.members is not None:
            part = Part.of(self.approximator, plan.members, trained)
            if isinstance(checkpoint, PartCheckpoint):
                checkpoint.save_part(part)
            return part
        self._after_training(simulations)
        usual, held_out = self._as_trained(known(), validation, augment)
        leave_certificates(
            self.approximator,
            usual,
            held_out,
            checkpoint,
            save_best_only=self.settings.save_best_only,
            seed=seeding.derive(self._fit_seed, "certificates"),
            contexts=() if self.simulator is None else self.simulator.context_names,
        )
        self._best_loss = min(self._best_loss, trained.history.best_loss)
        self._fits += 1
        return None

    def _as_trained(
        self, known: Variables, validation: Variables | None, augment: Augment | None
    ) -> tuple[Variables, Variables | None]:
        """Simulations and held-out ones, augmented as in the training.

        Augmented simulations are their own held-out ones.
        """
        if augment is None or len(next(iter(known.values()))) < FEWEST:
            return known, validation
        return self._checked(
            augment({name: np.array(value) for name, value in known.items()}), "augmented simulations"
        ), None

    def _after_training(self, simulations: Iterable[Variables]) -> None:
        """Hook after a training, before the approximator is saved.

        `simulations` are made as they are iterated over.
        """

    def _new_rows(self, trained_on: int, workers: int | None) -> Iterator[Variables]:
        """New simulations, some at a time: half as many as an online training has used, in bounds."""
        number = min(_MOST_ROWS_AFTER, max(_FEWEST_ROWS_AFTER, trained_on // 2))
        for k, start in enumerate(range(0, number, _ROWS_AT_ONCE)):
            yield self._simulated(min(_ROWS_AT_ONCE, number - start), f"after training, part {k}", workers)

    def _simulator(self) -> Simulator:
        if self.simulator is None:
            raise ConfigurationError(
                "This needs a simulator, and the workflow has none. Pass simulator= to the "
                "workflow, or data instead."
            )
        return self.simulator
