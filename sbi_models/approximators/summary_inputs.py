"""Inputs of the summary network among the adapted variables, and their masks."""

from collections.abc import Mapping
from types import MappingProxyType

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
        masks: key to the mask's adapted variable, where the user named one.
        any_length: key to the raw variables of any length among its inputs, whose masks come with the data.
        axes: key to the number of axes of its mask after the rows: 2 for groups of elements.
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
        self.any_length: dict[str, list[str]] = {}
        self.axes = dict.fromkeys(self.names, 1)

    def allow_any_length(
        self, axes: Mapping[str, int], roles: Mapping[str, list[str]], network: SummaryNetwork | None
    ) -> None:
        """Declare which raw variables have axes of any length, and how many.

        Raises:
            DataError: for one that no summary network takes, or takes at one length only.
        """
        self.any_length, self.axes = {}, dict.fromkeys(self.names, 1)
        for name in axes:
            if network is None or name not in roles.get(SUMMARY, ()):
                raise DataError(
                    f"Expected data sets of one length in {name!r}, got several. Only what a summary network "
                    f"takes may differ in length: summary_variables=[{name!r}], summary_network='deep_set'."
                )
            key = SUMMARY if self.is_one else f"{SUMMARY}/{name}"
            if key not in self.names:
                raise DataError(
                    f"Expected {name!r}, whose data sets differ in length, as an input of the network, got "
                    f"{', '.join(self.names.values())}. Give it a network, and do not rename it."
                )
            self.any_length.setdefault(key, []).append(name)
            self.axes[key] = axes[name]
        for key in self.any_length:
            if network is not None and not network.takes_any_length(None if self.is_one else self.names[key]):
                raise DataError(
                    f"Expected data sets of one length for {type(network).__name__}, got several. Take a "
                    "network for any length, such as deep_set for sets or time_series_network for series; "
                    "one of your own says so by takes_any_length."
                )

    @property
    def masked(self) -> dict[str, str]:
        """Key to the name of its mask among prepared variables, for each input that has one."""
        return {key: masked(key) for key in self.names if key in self.masks or key in self.any_length}

    @property
    def is_one(self) -> bool:
        """True if the network takes one tensor, which is then the role of summary variables, joined."""
        return SUMMARY in self.names

    def of(
        self, adapted: dict[str, Tensor], there: Mapping[str, Tensor] = MappingProxyType({})
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs of the networks, by role or key, of adapted variables, and the masks (n, length) of some.

        `there` holds the masks of raw variables of any length, by name.
        """
        inputs = {role: adapted[role] for role in ROLES[:2] if role in adapted}
        for key, name in self.names.items():
            if name in adapted:
                inputs[key] = adapted[name]
            elif self.network:
                raise ConfigurationError(
                    f"The summary network takes {name!r}, which the adapter does not give. "
                    f"{suggest(name, adapted)}"
                )
        masks = {key: _mask(name, adapted, inputs[key]) for key, name in self.masks.items()}
        for key, names in self.any_length.items():
            mask = _common([there[name] for name in names], names, inputs[key])
            masks[key] = masks[key] & mask if key in masks else mask
        return inputs, masks

    def summaries(self, network: SummaryNetwork, prepared: dict[str, Tensor]) -> Tensor:
        """Summaries (n, summary_dim) of prepared variables."""
        masks = {self.names[key]: prepared[mask] for key, mask in self.masked.items()}
        if self.is_one:
            summary: Tensor = network(prepared[SUMMARY], masks.get(SUMMARY))
        else:
            summary = network({name: prepared[key] for key, name in self.names.items()}, masks or None)
        return summary


def masked(key: str) -> str:
    """Name of the mask of a key among prepared variables."""
    return f"mask of {key}"


def _common(masks: list[Tensor], names: list[str], value: Tensor) -> Tensor:
    """The mask of an input (n, length, ...) that raw variables of equal lengths are joined to."""
    first = masks[0]
    if any(mask.shape != first.shape or not bool((mask == first).all()) for mask in masks[1:]):
        raise DataError(
            f"Expected {' and '.join(map(repr, names))} of the same length in each data set, as inputs of "
            "one network, got others. Give each a network of its own: summary_network=FusionNetwork({...})."
        )
    if first.shape != value.shape[: first.ndim]:
        raise DataError(
            f"Expected the elements of {names[0]!r} to keep their places in the adapter, got "
            f"{tuple(value.shape)} for {tuple(first.shape)}. Leave out steps that change their number."
        )
    return first


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
