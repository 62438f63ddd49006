"""Training settings of all workflows, checked before any work."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch

from sbi_models import seeding
from sbi_models.arguments import positive_int
from sbi_models.datasets import Augmentations
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.training.fingerprint import described, seed_of
from sbi_models.training.history import OnEpochEnd
from sbi_models.training.optimizers import OptimizerLike
from sbi_models.types import VariablesLike

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import Logger

_ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
_STRATEGIES = ("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

START_METHODS = {"ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}
"""Start methods of the strategies whose processes all end with the training.

With "ddp", this process is the first of those that train.
"""


class TrainingOptions(TypedDict, total=False):
    """Keyword arguments of every workflow; `TrainingSettings` has their meanings and defaults."""

    optimizer: OptimizerLike | None
    initial_learning_rate: float
    checkpoint_filepath: str | Path | None
    checkpoint_name: str
    save_best_only: bool
    restore: bool
    early_stopping: int | None
    ema: float | None
    seed: int | None
    accelerator: str
    devices: int | Literal["auto"]
    strategy: str
    precision: str
    compile: bool | str
    cuda_graphs: bool | None
    threads: int
    callbacks: "Sequence[pl.Callback]"
    logger: "Logger | Sequence[Logger] | bool"
    progress: bool | None


class FitOptions(TypedDict, total=False):
    """Keyword arguments of every fit; see `Workflow.fit_offline`."""

    validation_data: VariablesLike | int | None
    augmentations: Augmentations | None
    on_epoch_end: OnEpochEnd | None


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training, the same for every workflow.

    Attributes:
        optimizer: a class, or a function of (parameters, lr=...), or an instance made with any parameters,
            whose class and settings are taken over; None is Adam online, and AdamW with a decay of 5e-3 (not
            on biases and norms) on finite data.
        initial_learning_rate: peak of the schedule: linear warm-up over 5 % from a tenth of it, then a cosine
            to 0. An optimizer instance brings its own.
        checkpoint_filepath: a folder for the approximator and the state of its training after every epoch.
        checkpoint_name: stem of those files.
        save_best_only: keep the file of the approximator with the lowest loss (validation if there is one);
            in memory stays the last.
        restore: go on from the checkpoint if there is one.
        early_stopping: stop after so many epochs without a lower loss (validation if there is one), and go
            back to the best weights.
        ema: decay of an exponential moving average of the weights, such as 0.999; the average is validated,
            saved and sampled from.
        seed: seed of weights, order of data, and noise; None takes that of the checkpoint to restore, or one
            from NumPy's global state.
        accelerator: "auto", "cpu", "gpu": where to train; "gpu" is an error of every fit where there is none
            that PyTorch can use.
        devices: number of GPUs, or processes on a CPU, that share each batch of batch_size simulations;
            "auto" is all GPUs, or one CPU. Noise is drawn for whole batches, and gradients and losses are
            means over them, so that the result is that of one device up to rounding. Each process makes all
            batches, and simulates online ones, for itself. Not for members that train as one batch, nor with
            compile, dropout, batch normalization, or a loss that draws its own random numbers.
        strategy: strategy of Lightning that starts their processes. "ddp": the program is run once more for
            each further device, and goes on in all of them after the training; this, or a launcher such as
            torchrun or SLURM, is for scripts. "ddp_spawn" and "ddp_fork", also named "ddp_notebook":
            processes of the training alone, for programs of which training is a part; they tell this one of
            progress, ends of epochs and the result. "ddp_spawn" needs what can be pickled: a simulator,
            augmentations, callbacks and loggers that are no lambdas or local functions. "ddp_fork" needs a
            system that forks, and GPUs that this process has not used before. Callbacks and loggers of the
            user work in those processes, and do not come back. "auto" is "ddp", or "ddp_notebook" in an
            interactive Python.
        precision: "32-true", or "16-mixed" and "bf16-mixed" for accelerators that are faster in half
            precision.
        compile: compile the networks with torch.compile while training: True, or the name of a backend.
        cuda_graphs: whether to record, on one GPU, whole training steps, with the default optimizer in single
            precision, as CUDA graphs, and launch each at once; results change by rounding at most. None: if
            all modules are those of sbi_models and PyTorch, and fit into one, as all but scoring rules and
            Gaussian preconditioning do; True: also with modules of your own, which must compute the same
            function of their inputs in every step. Steps that cannot be recorded are taken as always, after a
            warning.
        threads: CPU threads of PyTorch while training. One is fastest for small networks, and makes the
            result the same on any number of cores.
        callbacks: Lightning callbacks; the metrics `loss` and `val_loss` are logged for them.
        logger: a Lightning logger, or several.
        progress: show a progress bar; None follows the environment variable SBI_MODELS_PROGRESS.
    """

    optimizer: OptimizerLike | None = None
    initial_learning_rate: float = 5e-4
    checkpoint_filepath: str | Path | None = None
    checkpoint_name: str = "model"
    save_best_only: bool = False
    restore: bool = False
    early_stopping: int | None = None
    ema: float | None = None
    seed: int | None = None
    accelerator: str = "auto"
    devices: int | Literal["auto"] = 1
    strategy: str = "auto"
    precision: str = "32-true"
    compile: bool | str = False
    cuda_graphs: bool | None = None
    threads: int = 1
    callbacks: "Sequence[pl.Callback]" = ()
    logger: "Logger | Sequence[Logger] | bool" = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.initial_learning_rate) and 0 < self.initial_learning_rate < math.inf):
            raise ConfigurationError(
                f"Expected a positive initial_learning_rate, got {self.initial_learning_rate!r}."
            )
        for name, known in (
            ("accelerator", _ACCELERATORS),
            ("strategy", _STRATEGIES),
            ("precision", _PRECISIONS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ConfigurationError(f"Unknown {name} {value!r}. {suggest(str(value), known)}")
        if self.restore and self.checkpoint_filepath is None:
            raise ConfigurationError("restore=True needs checkpoint_filepath, the folder to restore from.")
        if self.ema is not None and not (_is_number(self.ema) and 0 < self.ema < 1):
            raise ConfigurationError(
                f"Expected ema as a decay between 0 and 1, such as 0.999, or None, got {self.ema!r}."
            )
        if self.early_stopping is not None:
            positive_int(self.early_stopping, "early_stopping (a number of epochs, or None)")
        if not (
            self.optimizer is None
            or callable(self.optimizer)
            or isinstance(self.optimizer, torch.optim.Optimizer)
        ):
            raise ConfigurationError(
                "Expected optimizer as a class of torch.optim, a function of (parameters, lr=...) "
                f"or an instance, got {self.optimizer!r}."
            )
        backends = torch.compiler.list_backends(exclude_tags=()) if isinstance(self.compile, str) else ()
        if isinstance(self.compile, str) and self.compile not in backends:
            raise ConfigurationError(
                f"Unknown compile backend {self.compile!r}. {suggest(self.compile, backends)}"
            )
        positive_int(self.threads, "threads")
        if not isinstance(self.callbacks, Sequence):
            raise ConfigurationError(
                f"Expected callbacks as a list of Lightning callbacks, got {self.callbacks!r}."
            )
        if self.checkpoint_filepath is not None and Path(self.checkpoint_filepath).is_file():
            raise ConfigurationError(
                f"Expected checkpoint_filepath as a folder, got the file {self.checkpoint_filepath}."
            )
        seed = self.seed
        if seed is None and self.restore and self.checkpoint_filepath is not None:
            seed = seed_of(Path(self.checkpoint_filepath) / f"{self.checkpoint_name}.resume.ckpt")
        self._check_devices(seed)
        object.__setattr__(self, "seed", seeding.resolve(seed))
        object.__setattr__(self, "callbacks", tuple(self.callbacks))

    def _check_devices(self, seed: int | None) -> None:
        if self.devices != "auto":
            positive_int(self.devices, "devices (if not 'auto')")
        if seed is None and strategy_of(self) == "ddp":
            raise ConfigurationError(
                'Expected a seed with strategy "ddp", which runs the program in every process, '
                "got None. Pass seed=0."
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings that decide the result of a training."""
        return {
            "seed": self.seed,
            "initial_learning_rate": self.initial_learning_rate,
            "optimizer": described(self.optimizer),
            "ema": self.ema,
            "early_stopping": self.early_stopping,
            "precision": self.precision,
        }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_of_devices(settings: TrainingSettings) -> int:
    """Number of devices of a training; "auto" is all GPUs, or one CPU."""
    if settings.devices == "auto":
        return 1 if settings.accelerator == "cpu" else max(1, torch.cuda.device_count())
    return int(settings.devices)


def strategy_of(settings: TrainingSettings) -> str:
    """Name of the strategy in `TrainingSettings`, chosen if that is "auto"."""
    if settings.strategy != "auto" or number_of_devices(settings) == 1:
        return settings.strategy
    return "ddp_notebook" if hasattr(sys, "ps1") else "ddp"


def lightning_strategy(settings: TrainingSettings, *, all_have_gradients: bool) -> str:
    """Lightning's name of the strategy.

    Where some parameters may have no gradient in a step, Lightning must look for them.
    """
    name = strategy_of(settings)
    return name if name == "auto" or all_have_gradients else f"{name}_find_unused_parameters_true"


def is_first_process(settings: TrainingSettings) -> bool:
    """Whether this process may write files: the first of those that "ddp" starts, or the only one."""
    from lightning.pytorch.utilities import rank_zero_only  # noqa: PLC0415 - needed for nothing but training

    return strategy_of(settings) != "ddp" or getattr(rank_zero_only, "rank", 0) == 0
