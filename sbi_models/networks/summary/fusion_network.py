"""Summaries of several variables of different kinds, each by a network of its own."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.networks.base import SummaryNetwork
from sbi_models.networks.layers import MLP
from sbi_models.networks.registry import register, resolve


@register("fusion_network")
class FusionNetwork(SummaryNetwork):
    """A summary network for each raw variable, and an MLP that joins their summaries.

    Unlike the other summary networks it takes dicts by name: `build({"x": (20, 1), "y": (8, 8, 3)})`,
    `forward({"x": ..., "y": ...})`.

    Args:
        backbones: raw name of a variable to the summary network that takes it, an instance, which is cloned,
            or a name.
        head_widths: hidden widths of the network that joins the summaries.
        summary_dim: width of the joint summary.

    >>> network = FusionNetwork({"x": "deep_set", "y": "time_series_network"}, summary_dim=4)
    >>> network.build({"x": (20, 1), "y": (12, 2)})
    >>> tuple(network({"x": torch.zeros(3, 20, 1), "y": torch.zeros(3, 12, 2)}).shape)
    (3, 4)
    """

    def __init__(
        self,
        backbones: Mapping[str, SummaryNetwork | str] | None = None,
        head_widths: Sequence[int] = (64,),
        summary_dim: int = 16,
    ) -> None:
        super().__init__()
        if (
            not isinstance(backbones, Mapping)
            or not backbones
            or not all(isinstance(b, SummaryNetwork | str) for b in backbones.values())
        ):
            raise ConfigurationError(
                "Expected backbones as a dict of variables to summary networks, such as {'x': "
                f"DeepSet()}}, got {backbones!r}."
            )
        # By name, and not as given: dicts of a file may come back in another order.
        self.input_names = tuple(sorted(backbones))
        self.backbones = {name: resolve(backbones[name], SummaryNetwork) for name in self.input_names}  # type: ignore[type-abstract]
        nested = [name for name, backbone in self.backbones.items() if backbone.input_names]
        if nested:
            raise ConfigurationError(
                "Expected networks of one input as backbones, got a FusionNetwork for "
                f"{nested[0]!r}. List its parts."
            )
        self.head_widths, self.summary_dim = tuple(head_widths), summary_dim

    def takes_any_length(self, name: str | None = None) -> bool:
        """Whether the network of an input does."""
        return name in self.backbones and self.backbones[name].takes_any_length()

    def _build(self, input_shape: Mapping[str, tuple[int, ...]]) -> None:
        self._check_names(input_shape)
        self.parts = nn.ModuleList(self.backbones.values())
        for name, part in zip(self.input_names, self.parts, strict=True):
            try:
                part.build(input_shape[name])  # type: ignore[operator]
            except DataError as error:
                raise DataError(f"Variable {name!r}: {error}") from None
        width = sum(part.summary_dim for part in self.parts)  # type: ignore[misc]
        self.head = MLP(width, self.head_widths, self.summary_dim).keep_scale()

    def forward(self, x: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """Summaries (n, summary_dim) of standardized x {name: (n, *input_shape[name])}.

        Masks are {name: as its network takes it}, for some inputs.
        """
        self._check_names(x)
        masks = mask or {}
        summaries = [
            part(x[name], masks.get(name)) for name, part in zip(self.input_names, self.parts, strict=True)
        ]
        summary: Tensor = self.head(torch.cat(summaries, dim=-1))
        return summary

    def _check_names(self, given: Mapping[str, object]) -> None:
        if not isinstance(given, Mapping):
            raise DataError(
                f"FusionNetwork: expected a dict of variables {', '.join(self.input_names)}, got "
                f"{type(given).__name__}."
            )
        for name in self.input_names:
            if name not in given:
                raise DataError(f"FusionNetwork: variable {name!r} is missing. {suggest(name, given)}")
        for name in given:
            if name not in self.input_names:
                raise DataError(
                    f"FusionNetwork has no backbone for variable {name!r}. {suggest(name, self.input_names)}"
                )
