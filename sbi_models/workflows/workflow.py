"""The body shared by all workflows: checking arguments, training, sampling, diagnosing."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sbi_models import seeding
from sbi_models.approximators import ContinuousApproximator
from sbi_models.approximators.intake import as_variables, positive_int
from sbi_models.datasets import (
    Augment,
    Augmentations,
    Batches,
    DiskBatches,
    LoadFunction,
    OnlineBatches,
    PerFile,
    PreparedBatches,
    SimulationFiles,
)
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.progress import progress_bar
from sbi_models.simulators import Simulator, make_simulator
from sbi_models.types import Array, Estimates, Variables, VariablesLike
from sbi_models.workflows.diagnosed import Diagnosed
from sbi_models.workflows.history import History
from sbi_models.workflows.surroundings import on_own_threads, quiet_lightning

if TYPE_CHECKING:
    from sbi_models.workflows.callbacks import Checkpoint, OnEpochEnd, Plan

_ROWS_FOR_MOMENTS = 4096
_ROWS_FOR_MOMENTS_ON_DISK = 65_536
_GRADIENT_NORM = 1.5
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


class Workflow(Diagnosed):
    """Trains one approximator; subclasses say how it is made."""

    def __init__(
        self,
        *,
        approximator: ContinuousApproximator,
        simulator: Simulator | None,
        initial_learning_rate: float,
        checkpoint_filepath: str | Path | None,
        checkpoint_name: str,
        save_best_only: bool,
        restore: bool,
        seed: int | None,
        accelerator: str,
        threads: int,
        progress: bool | None,
    ) -> None:
        if not initial_learning_rate > 0:
            raise ConfigurationError(f"Expected a positive initial_learning_rate, got {initial_learning_rate!r}.")
        if accelerator not in _ACCELERATORS:
            raise ConfigurationError(f"Unknown accelerator {accelerator!r}. {suggest(accelerator, _ACCELERATORS)}")
        if restore and checkpoint_filepath is None:
            raise ConfigurationError("restore=True needs checkpoint_filepath, the folder to restore from.")
        self.approximator = approximator
        self.simulator = None if simulator is None else make_simulator(simulator)
        self.initial_learning_rate = initial_learning_rate
        self.checkpoint_filepath = None if checkpoint_filepath is None else Path(checkpoint_filepath)
        self.checkpoint_name, self.save_best_only, self.restore = checkpoint_name, save_best_only, restore
        self.seed = seeding.resolve(seed)
        self.accelerator, self.progress = accelerator, progress
        self.threads = positive_int(threads, "threads")
        self.history: History | None = None

    # ---- training ------------------------------------------------------------------------------------------------------------------

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
            validation_data: held-out simulations, or how many to draw from the simulator; evaluated after each epoch with fixed noise.
            augmentations: a function of the raw batch, a dict of variable names to functions, or a list of functions of the batch; applied
                to training batches only, before the adapter, anew in every step.
            on_epoch_end: called with the epoch (from 1) and its losses.

        Returns:
            The history: `history.history["loss"]`, and `["val_loss"]` with validation data, one value an epoch.
        """
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        names = self.approximator.inference_names + self.approximator.condition_names
        variables = as_variables(data, names, what="training data")
        n = len(variables[names[0]])
        if batch_size > n:
            raise DataError(f"Expected a batch_size of at most the {n} simulations of the data, got {batch_size}.")
        self.approximator.build(variables, seed=self.seed)
        order = seeding.derive(self.seed, "batches")
        batches: Batches | PreparedBatches
        if augmentations is None:
            batches = Batches(self.approximator.prepare(variables, what="training data"), batch_size, order)
        else:
            raw = {name: torch.as_tensor(np.array(value)) for name, value in data.items() if np.ndim(value) and len(value) == n}
            batches = PreparedBatches(Batches(raw, batch_size, order), self.approximator.prepare, Augment(augmentations, self.seed))
        return self._fit(batches, epochs, self._validation(validation_data, batch_size), 5e-3, on_epoch_end)

    @on_own_threads
    def fit_online(
        self,
        epochs: int = 100,
        num_batches_per_epoch: int = 100,
        batch_size: int = 32,
        *,
        validation_data: VariablesLike | int | None = None,
        augmentations: Augmentations | None = None,
        on_epoch_end: "OnEpochEnd | None" = None,
    ) -> History:
        """Train on simulations that are drawn while training; arguments and result as for `fit_offline`."""
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        num_batches = positive_int(num_batches_per_epoch, "num_batches_per_epoch")
        simulator = self._simulator()
        self.approximator.build(simulator.sample(_ROWS_FOR_MOMENTS, seed=seeding.derive(self.seed, "moments")), seed=self.seed)
        table = seeding.derive(self.seed, "online simulations")
        at_once = 1 if simulator.meta else max(1, simulator.block_size // batch_size)
        raw = OnlineBatches(partial(simulator.rows, seed=table, progress=False), num_batches, batch_size, at_once=at_once)
        augment = None if augmentations is None else Augment(augmentations, self.seed)
        batches = PreparedBatches(raw, self.approximator.prepare, augment)
        return self._fit(batches, epochs, self._validation(validation_data, batch_size), 0.0, on_epoch_end)

    @on_own_threads
    def fit_disk(
        self,
        root: str | Path,
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

        Every file is checked before training. Standardisation takes its moments from files chosen at random, 65 536 simulations or all.

        Args:
            root: folder of the files, or one that the simulation store has written.
            pattern: which files; `**/*.npz` looks into folders below.
            load_fn: reads a file of a format other than .pkl (arrays only), .npz and .safetensors: a dict of names to arrays.
            batch_size: simulations in one step.
            epochs: passes over the files.
            simulations_per_file: "one" (arrays without a leading axis) or "many" (with one); None tells by the shapes in the first file.

        Other arguments and result as for `fit_offline`.
        """
        epochs, batch_size = positive_int(epochs, "epochs"), positive_int(batch_size, "batch_size")
        names = self.approximator.inference_names + self.approximator.condition_names
        files = SimulationFiles.find(root, pattern, names, load_fn=load_fn, per_file=simulations_per_file)
        if batch_size > sum(files.rows):
            raise DataError(f"Expected a batch_size of at most the {sum(files.rows)} simulations in {root}, got {batch_size}.")
        self.approximator.build(files.some(_ROWS_FOR_MOMENTS_ON_DISK, seeding.derive(self.seed, "moments")), seed=self.seed)
        raw = DiskBatches(files, batch_size, seeding.derive(self.seed, "batches"))
        augment = None if augmentations is None else Augment(augmentations, self.seed)
        batches = PreparedBatches(raw, self.approximator.prepare, augment)
        return self._fit(batches, epochs, self._validation(validation_data, batch_size), 5e-3, on_epoch_end)

    def _validation(self, validation_data: VariablesLike | int | None, batch_size: int) -> Batches | None:
        if validation_data is None:
            return None
        if not isinstance(validation_data, Mapping):
            number = positive_int(validation_data, "validation_data (if not a dict)")
            validation_data = self._simulator().sample(number, seed=seeding.derive(self.seed, "validation simulations"))
        return Batches(self.approximator.prepare(validation_data, what="validation data"), max(batch_size, 1024), seed=None)

    def _fit(
        self,
        batches: Batches | PreparedBatches,
        epochs: int,
        validation: Batches | None,
        weight_decay: float,
        on_epoch_end: "OnEpochEnd | None",
    ) -> History:
        # Lightning takes seconds to import and is needed for nothing but training.
        import lightning.pytorch as pl  # noqa: PLC0415

        from sbi_models.approximators.training import TrainingModule  # noqa: PLC0415
        from sbi_models.workflows.callbacks import EpochEnd, SetEpoch, steps_done  # noqa: PLC0415

        module = TrainingModule(
            self.approximator,
            seed=self.seed,
            learning_rate=self.initial_learning_rate,
            weight_decay=weight_decay,
            total_steps=epochs * len(batches),
        )
        checkpoint = self._checkpoint()
        plan: Plan = {"epochs": epochs, "seed": self.seed, "initial_learning_rate": self.initial_learning_rate, "data": batches.fingerprint}
        plan |= {"networks": self.approximator.architecture, "validation": "none" if validation is None else validation.fingerprint}
        resume = checkpoint.resumable if checkpoint is not None and self.restore else None
        done = steps_done(resume, plan) if resume else 0
        history = History()
        with (
            quiet_lightning(),
            torch.random.fork_rng(),
            progress_bar("train", epochs * len(batches), done=done, show=self.progress) as advance,
        ):
            trainer = pl.Trainer(
                max_epochs=epochs,
                accelerator=self.accelerator,
                devices=1,
                callbacks=[SetEpoch(batches), EpochEnd(history, checkpoint, on_epoch_end, advance, plan)],
                gradient_clip_val=_GRADIENT_NORM,
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            try:
                trainer.fit(module, batches, validation, ckpt_path=resume, weights_only=True if resume else None)
            except SystemExit:
                if trainer.interrupted:  # Lightning ends the program on Ctrl-C, and with it a notebook
                    raise KeyboardInterrupt from None
                raise
        self.approximator.eval()
        if checkpoint is not None and not self.save_best_only:
            self.approximator.save(checkpoint.model_path)  # it may have been lost since a finished training wrote it
        self.history = history
        return history

    def _checkpoint(self) -> "Checkpoint | None":
        from sbi_models.workflows.callbacks import Checkpoint  # noqa: PLC0415 - imports Lightning

        if self.checkpoint_filepath is None:
            return None
        return Checkpoint(self.checkpoint_filepath, self.checkpoint_name, save_best_only=self.save_best_only)

    def _simulator(self) -> Simulator:
        if self.simulator is None:
            raise ConfigurationError("This needs a simulator, and the workflow has none. Pass simulator= to the workflow, or data instead.")
        return self.simulator

    # ---- inference -----------------------------------------------------------------------------------------------------------------

    def simulate(self, num_simulations: int, *, seed: int | None = None) -> Variables:
        """Simulations of the workflow's simulator: name to array of shape (num_simulations, ...), raw space."""
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
        return self.approximator.sample(num_samples=num_samples, conditions=conditions, split=split, batch_size=batch_size, seed=seed)

    def log_prob(self, data: VariablesLike, *, batch_size: int | None = None) -> Array:
        """Posterior log densities in nats; see `ContinuousApproximator.log_prob`."""
        return self.approximator.log_prob(data, batch_size=batch_size)

    def estimate(self, *, conditions: VariablesLike, split: bool = False, batch_size: int | None = None) -> Estimates:
        """Point estimates and parameters of scoring rules; see `ScoringRuleApproximator.estimate`."""
        return self.approximator.estimate(conditions=conditions, split=split, batch_size=batch_size)
