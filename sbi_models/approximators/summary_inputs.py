"""Inputs of the summary network among the adapted variables, and their masks."""

from collections.abc import Mapping

from torch import Tensor

from sbi_models.adapters import ROLES
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.networks import SummaryNetwork

SUMMARY = "summary_variables"


class SummaryInputs:
    """Inputs of a summary network by key: `summary_variables`, or `summary_variables/NAME` of several.

    The network names several inputs in its `input_names`.

    Args:
        network: the summary network, if there is one.
        masks: input, as its network names it, to the adapted variable that tells which of its elements count.

    Attributes:
        names: key to the adapted variable.
        masks: key to the mask's adapted variable, where there is one.
    """

    def __init__(self, network: SummaryNetwork | None, masks: Mapping[str, str]) -> None:
        self.network = network is not None
        several = () if network is None else network.input_names
        self.names = {f"{SUMMARY}/{name}": name for name in several} or {SUMMARY: SUMMARY}
        keys = {name: key for key, name in self.names.items()}
        for name, mask in masks.items():
            if name not in keys or network is None:
                raise ConfigurationError(
                    f"There is no summary input {name!r} for the mask {mask!r}. {suggest(name, keys)}"
                )
        self.masks = {keys[name]: mask for name, mask in masks.items()}

    @property
    def is_one(self) -> bool:
        """True if the network takes one tensor, which is then the role of summary variables, joined."""
        return SUMMARY in self.names

    def of(self, adapted: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs of the networks, by role or key, of adapted variables, and the masks (n, length) of some."""
        inputs = {role: adapted[role] for role in ROLES[:2] if role in adapted}
        for key, name in self.names.items():
            if name in adapted:
                inputs[key] = adapted[name]
            elif self.network:
                raise ConfigurationError(
                    f"The summary network takes {name!r}, which the adapter does not give. "
                    f"{suggest(name, adapted)}"
                )
        return inputs, {key: _mask(name, adapted, inputs[key]) for key, name in self.masks.items()}

    def summaries(self, network: SummaryNetwork, prepared: dict[str, Tensor]) -> Tensor:
        """Summaries (n, summary_dim) of prepared variables."""
        masks = {name: prepared[masked(key)] for key, name in self.names.items() if key in self.masks}
        if self.is_one:
            summary: Tensor = network(prepared[SUMMARY], masks.get(SUMMARY))
        else:
            summary = network({name: prepared[key] for key, name in self.names.items()}, masks or None)
        return summary


def masked(key: str) -> str:
    """Name of the mask of a key among prepared variables."""
    return f"mask of {key}"


def _mask(name: str, adapted: dict[str, Tensor], value: Tensor) -> Tensor:
    """The mask (n, length) of an input (n, length, ...), True where an element counts."""
    if name not in adapted:
        raise ConfigurationError(
            f"The mask {name!r} is not among what the adapter gives. {suggest(name, adapted)}"
        )
    mask = adapted[name] > 0.5
    mask = mask.all(dim=-1) if mask.ndim == value.ndim and mask.ndim > 2 else mask
    if mask.shape != value.shape[:2] and (value.ndim < 4 or mask.shape != value.shape[:3]):
        raise DataError(
            f"Expected the mask {name!r} of shape {tuple(value.shape[:2])}, one number an element, "
            f"got {tuple(mask.shape)}."
        )
    return mask
