"""Missing values of a workflow: steps that fill NaN in conditions, and masks that tell the networks where."""

import json
from collections.abc import Mapping
from typing import Any

from sbi_models.adapters import Adapter
from sbi_models.errors import ConfigurationError, suggest

Roles = Mapping[str, list[str]]

CONDITIONS = ("summary_variables", "inference_conditions")


class MissingValues:
    """Conditions that may hold NaN, and the names of their masks.

    NaN is filled with the mean of the training data. A summary network gets the mask; conditions without a
    summary network get it as further conditions.

    Args:
        missing: condition to the name of its mask, which is 1 where there is a value and 0 where not.
        roles: raw names by role.
        adapter: adapter of the user, which the filling comes before.
        summary_mask: masks of summary inputs that the user has named besides.

    Raises:
        ConfigurationError: for names that are no conditions, masks whose names are taken, and steps or masks
            that say the same already.
    """

    def __init__(
        self,
        missing: Mapping[str, str] | None,
        roles: Roles,
        adapter: Adapter | None,
        summary_mask: str | Mapping[str, str] | None,
    ) -> None:
        self.masks = _checked(missing, roles)
        self.roles, self.summary_mask = roles, summary_mask
        steps = () if adapter is None else adapter.transforms
        filled = {step.config()["name"] for step in steps if step.kind == "nan_to_num"}
        for name, mask in self.masks.items():
            if name in filled:
                raise ConfigurationError(
                    f"Expected either missing or nan_to_num of the adapter for {name!r}, got both. Leave one "
                    "out."
                )
            if any(mask in step.makes() for step in steps):
                raise ConfigurationError(
                    f"Expected a new name for the mask of {name!r}, got {mask!r}, which the adapter makes."
                )
        self._in(CONDITIONS[0])

    def with_masks(self, roles: dict[str, list[str]]) -> dict[str, list[str]]:
        """Roles whose direct conditions have their masks beside them."""
        role = CONDITIONS[1]
        return roles | {role: [*roles.get(role, []), *self._in(role).values()]}

    def in_adapter(self, adapter: Adapter, inputs: tuple[str, ...]) -> tuple[Adapter, dict[str, str]]:
        """The adapter with steps for the missing values, and the mask of each summary input.

        Args:
            adapter: adapter that these steps come before.
            inputs: inputs of a summary network that takes several by name; none for another.

        Raises:
            ConfigurationError: if the adapter makes a role or an input without the mask.
        """
        filling = Adapter()
        for name, mask in self.masks.items():
            filling = filling.nan_to_num(name, value="mean", mask=mask)
        filled = Adapter((*filling.transforms, *adapter.transforms))
        return self._with_summary_masks(self._with_direct_masks(filled), inputs)

    def _with_direct_masks(self, adapter: Adapter) -> Adapter:
        role, masks = CONDITIONS[1], self._in(CONDITIONS[1])
        if not any(role in step.makes() for step in adapter.transforms):
            return adapter.route({role: [*self.roles[role], *masks.values()]}) if masks else adapter
        used = " ".join(json.dumps(step.config()) for step in adapter.transforms if step.kind != "nan_to_num")
        for name, mask in masks.items():
            if json.dumps(mask) not in used:
                raise ConfigurationError(
                    f"Expected the mask {mask!r} of {name!r} among the {role}, which the adapter joins, got "
                    "none. Join it too, or leave the joining out."
                )
        return adapter

    def _with_summary_masks(
        self, adapter: Adapter, inputs: tuple[str, ...]
    ) -> tuple[Adapter, dict[str, str]]:
        given = self.summary_mask
        masks = {CONDITIONS[0]: given} if isinstance(given, str) else dict(given or {})
        own = self._in(CONDITIONS[0])
        if inputs:
            for name in own:
                if name not in inputs:
                    raise ConfigurationError(
                        f"Expected missing values in the inputs of the summary network, {', '.join(inputs)}, "
                        f"got some in {name!r}, of which the adapter makes them. Fill them by adapter steps, "
                        "nan_to_num and those that make the inputs, and name the mask of each input in "
                        "summary_mask."
                    )
            return adapter, masks | own
        if len(own) > 1:
            joined = f"mask of {CONDITIONS[0]}"
            return adapter.concatenate(list(own.values()), into=joined), masks | {CONDITIONS[0]: joined}
        for mask in own.values():
            masks[CONDITIONS[0]] = mask
        return adapter, masks

    def _in(self, role: str) -> dict[str, str]:
        """Masks of the variables of a role; raises ConfigurationError if the user names others for it."""
        masks = {name: mask for name, mask in self.masks.items() if name in self.roles.get(role, [])}
        if masks and role == CONDITIONS[0] and self.summary_mask is not None:
            taken = isinstance(self.summary_mask, str) or any(
                name in self.summary_mask for name in (*masks, role)
            )
            if taken:
                raise ConfigurationError(
                    f"Expected either missing or summary_mask for {', '.join(map(repr, masks))}, got both. "
                    "Leave one out; padding can be NaN, too."
                )
        return masks


def _checked(missing: Any, roles: Roles) -> dict[str, str]:
    if missing is None:
        return {}
    conditions = [name for role in CONDITIONS for name in roles.get(role, [])]
    if not isinstance(missing, Mapping) or not all(
        isinstance(name, str) and name for pair in missing.items() for name in pair
    ):
        raise ConfigurationError(
            "Expected missing as conditions and the names of their masks, such as "
            f"{{{conditions[0]!r}: {conditions[0] + '_there'!r}}}, got {missing!r}."
        )
    for name in missing:
        if name not in conditions:
            inferred = name in roles.get("inference_variables", [])
            cure = (
                "It is inferred, and simulations have all of it." if inferred else suggest(name, conditions)
            )
            raise ConfigurationError(f"Expected a condition that may be missing, got {name!r}. {cure}")
    masks = list(missing.values())
    known = [name for names in roles.values() for name in names]
    for mask in masks:
        if mask in known or mask in roles or masks.count(mask) > 1:
            raise ConfigurationError(
                f"Expected a new name for each mask of missing values, got {mask!r}, which is taken."
            )
    return dict(missing)
