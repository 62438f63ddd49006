"""Loading of saved approximators: the class registered for the file's kind, rebuilt, tried and returned."""

from pathlib import Path
from typing import Any

from torch import Tensor

from sbi_models.approximators import files
from sbi_models.approximators.base import APPROXIMATORS, Approximator
from sbi_models.approximators.ensemble import EnsembleApproximator
from sbi_models.approximators.file_schema import misfit_of_settings
from sbi_models.approximators.file_trial import try_out
from sbi_models.errors import ModelFileError, SbiModelsError, suggest
from sbi_models.safe_construction import allotted


def load_approximator(path: str | Path) -> Approximator:
    """Read an approximator that `save` wrote.

    Raises:
        ModelFileError: if the file is missing, damaged, changed after it was written, of another schema or of
            an unknown kind, or says what cannot be built, drawn from or certified, or needs more memory than
            its own size. Nothing else is raised.
    """
    path = Path(path)
    kind, settings, tensors = files.read(path)
    if kind not in APPROXIMATORS:
        raise ModelFileError(
            f"{path.name} holds an approximator of unknown kind {kind!r}. {suggest(kind, APPROXIMATORS)}"
        )
    try:
        return _rebuilt(kind, settings, tensors)
    except Exception as error:  # whatever a constructor, a tensor or a network raises for what the file says
        reason = (
            str(error).removesuffix(".")
            if isinstance(error, SbiModelsError)
            else f"{type(error).__name__}: {error}"
        )
        raise ModelFileError(
            f"{path.name} cannot be used: {reason}. (Its checksum is right: the file is as it was written. "
            "If nothing above helps, write it again with approximator.save.)"
        ) from error


def _rebuilt(kind: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Approximator:
    """The approximator of a file; any exception if there is none."""
    if misfit := misfit_of_settings(settings, is_ensemble=kind == EnsembleApproximator.kind):
        raise ModelFileError(misfit)
    with allotted(sum(value.numel() for value in tensors.values())):
        approximator = APPROXIMATORS.named(kind).from_settings(settings, tensors)
    for name, value in approximator.state_dict().items():
        if name in tensors and tensors[name].dtype != value.dtype:
            raise ModelFileError(f"tensor {name}: expected {value.dtype}, got {tensors[name].dtype}")
    try_out(approximator)
    return approximator
