"""Summaries of sets of sets, such as subjects with trials: groups first, then the summaries of groups."""

from torch import Tensor

from sbi_models.networks.base import SummaryNetwork
from sbi_models.networks.layers.masks import check_axes
from sbi_models.networks.registry import register, resolve

_AXES_OF_GROUPS = 3


@register("nested_set")
class NestedSet(SummaryNetwork):
    """A summary network for the elements of each group, and one for the summaries of the groups.

    Args:
        elements: summary network of the elements of a group, (set_size, features): an instance, which is
            cloned, or a name.
        groups: summary network of the groups, whose features are the summaries of their elements.

    >>> import torch
    >>> from sbi_models.networks import DeepSet
    >>> network = NestedSet(DeepSet(summary_dim=4, widths=(8,)), DeepSet(summary_dim=3, widths=(8,)))
    >>> network.build((6, 20, 2))
    >>> tuple(network(torch.zeros(5, 6, 20, 2)).shape)
    (5, 3)
    """

    def __init__(
        self, elements: SummaryNetwork | str = "deep_set", groups: SummaryNetwork | str = "deep_set"
    ) -> None:
        super().__init__()
        self.elements: SummaryNetwork = resolve(elements, SummaryNetwork)  # type: ignore[type-abstract]
        self.groups: SummaryNetwork = resolve(groups, SummaryNetwork)  # type: ignore[type-abstract]
        self.summary_dim = self.groups.summary_dim

    def takes_any_length(self, name: str | None = None) -> bool:
        """Whether both networks do."""
        return self.elements.takes_any_length(name) and self.groups.takes_any_length(name)

    def _build(self, input_shape: tuple[int, ...]) -> None:
        check_axes(
            "NestedSet summarizes sets of sets",
            input_shape,
            ("groups", "set_size", "features"),
            "Add an axis of groups: x[:, None].",
        )
        self.elements.build(input_shape[1:])
        self.groups.build((input_shape[0], self.elements.summary_dim))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Summaries (n, summary_dim) of standardized groups (n, groups, set_size, features).

        The mask is (n, groups, set_size), True where an element counts, or (n, groups), True where a group
        does; a group without elements does not count.
        """
        n, groups = x.shape[:2]
        of_elements = mask if mask is not None and mask.ndim == _AXES_OF_GROUPS else None
        of_groups = mask if of_elements is None else of_elements.any(dim=2)
        inner = None if of_elements is None else of_elements.flatten(0, 1)
        summaries = self.elements(x.flatten(0, 1), inner)
        summary: Tensor = self.groups(summaries.reshape(n, groups, -1), of_groups)
        return summary
