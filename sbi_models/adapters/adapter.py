"""Adapter: an ordered, immutable list of transforms."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch

from sbi_models.adapters import transforms as steps
from sbi_models.adapters.history import WithHistory
from sbi_models.adapters.supports import steps_for
from sbi_models.adapters.transforms import (
    Names,
    Tensors,
    Transform,
    check_rebuilds,
    transform_from_json,
    transform_to_json,
)
from sbi_models.adapters.transforms.base import checked_names, require
from sbi_models.arguments import known_arguments
from sbi_models.errors import ConfigurationError, DataError, suggest

ROLES = ("inference_variables", "inference_conditions", "summary_variables")
"""Roles of variables: inferred, taken as conditions directly, or summarized first."""


@known_arguments
class Adapter(WithHistory):
    """Immutable list of transforms from raw variables to adapted ones and back; methods return new adapters.

    Variables are tensors (n, ...), rows first. Parameters keep an exact density through every step but
    one_hot, broadcast, nan_to_num and subsample.

    >>> adapter = Adapter().constrain("sigma", lower=0)
    >>> adapter = adapter.concatenate(["mu", "sigma"], into="inference_variables")
    >>> raw = {"mu": torch.zeros(4, 1), "sigma": torch.full((4, 1), 2.0)}
    >>> tuple(adapter.fitted(raw).forward(raw)["inference_variables"].shape)
    (4, 2)
    """

    def __init__(self, transforms: Iterable[Transform] = ()) -> None:
        super().__init__(transforms)

    def then(self, transform: Transform) -> "Adapter":
        """This adapter followed by one more step, such as a `Transform` of your own.

        Raises:
            ConfigurationError: unless it is an instance of `Transform`.
        """
        if not isinstance(transform, Transform):
            raise ConfigurationError(
                f"Expected a Transform, got {transform!r}. Use the methods of Adapter, or pass an instance."
            )
        return self.followed_by(transform)

    # ---- which variables there are ------------------------------------------

    def rename(self, name: str, *, to: str) -> "Adapter":
        """Give a variable another name."""
        return self.then(steps.Rename(name, to))

    def keep(self, names: Names) -> "Adapter":
        """Leave out all other variables; the way back does not restore them."""
        return self.then(steps.Keep(names))

    def drop(self, names: Names) -> "Adapter":
        """Leave out variables; the way back does not restore them."""
        return self.then(steps.Drop(names))

    def concatenate(self, names: Names, *, into: str) -> "Adapter":
        """Join variables along the last axis."""
        return self.then(steps.Concatenate(names, into))

    def split(self, name: str, *, into: Names, widths: list[int] | None = None) -> "Adapter":
        """Split a variable along the last axis, by default into equal parts."""
        return self.then(steps.Split(name, into, widths))

    # ---- values -------------------------------------------------------------

    def constrain(
        self,
        names: Names,
        *,
        lower: Any = None,
        upper: Any = None,
        to: Literal["interval", "simplex", "ordered"] = "interval",
        prior: Any = None,
        scale: Literal["probit", "logit"] | None = None,
    ) -> "Adapter":
        """Declare the support of variables: a half-line, an interval, a simplex, or ordered components.

        The networks see the whole real line, and draws lie inside the support.

        Args:
            names: variables of the same support.
            lower, upper: open bounds of an interval: numbers, or lists with one for each component of the
                last axis; None is no bound.
            to: "simplex" for proportions that sum to 1 along the last axis, "ordered" for components that
                increase along it.
            prior: a torch distribution whose support says it all, in place of the other arguments; an
                unbounded one adds no step.
            scale: scale of an interval with both bounds: "probit", the default, makes a uniform variable
                normal, "logit" makes it logistic.

        Raises:
            ConfigurationError: for an unknown support, or arguments that do not belong together.
        """
        if prior is not None:
            if lower is not None or upper is not None or to != "interval" or scale is not None:
                raise ConfigurationError(
                    f"Expected prior= alone, got {lower=}, {upper=}, {to=} and {scale=} beside it. "
                    "Leave them out."
                )
            return self.followed_by(*steps_for(names, prior))
        if to not in ("interval", "simplex", "ordered"):
            raise ConfigurationError(
                f"Unknown support {to!r} for constrain. "
                f"{suggest(str(to), ('interval', 'simplex', 'ordered'))}"
            )
        if to == "interval":
            return self.then(steps.Constrain(names, lower, upper, scale or "probit"))
        if lower is not None or upper is not None or scale is not None:
            raise ConfigurationError(
                f"Expected no bounds with to={to!r}, got {lower=}, {upper=} and {scale=}. Leave them out."
            )
        return self.then(steps.Simplex(names) if to == "simplex" else steps.Ordered(names))

    def log(self, names: Names) -> "Adapter":
        """Natural logarithm of positive variables."""
        return self.then(steps.Log(names))

    def sqrt(self, names: Names) -> "Adapter":
        """Square root of counts and other conditions; parameters are better served by log or constrain."""
        return self.then(steps.Sqrt(names))

    def scale(self, names: Names, *, by: Any) -> "Adapter":
        """Multiply by a number, or by one for each component."""
        return self.then(steps.Scale(names, by))

    def shift(self, names: Names, *, by: Any) -> "Adapter":
        """Add a number, or one for each component."""
        return self.then(steps.Shift(names, by))

    def standardize(self, names: Names, *, mean: Any = None, sd: Any = None) -> "Adapter":
        """Subtract the mean and divide by the standard deviation.

        Moments that are not given are computed once, from the first data, and frozen.
        """
        return self.then(steps.Standardize(names, mean, sd))

    def one_hot(self, names: Names, *, num_classes: int) -> "Adapter":
        """Classes 0 ... C - 1 to indicator vectors."""
        return self.then(steps.OneHot(names, num_classes))

    def nan_to_num(
        self, name: str, *, value: float | list[float] | Literal["mean"] = 0.0, mask: str | None = None
    ) -> "Adapter":
        """Replace missing values (NaN) by a number.

        Args:
            name: variable with missing values.
            value: number for all components of the last axis, a list with one for each, or "mean": their
                means in the first data that the adapter is fitted to, missing values aside.
            mask: name of a new variable that is 1 where there was a value and 0 where not.
        """
        return self.then(steps.NanToNum(name, value, mask))

    # ---- axes ---------------------------------------------------------------

    def expand_dims(self, names: Names, *, axis: int) -> "Adapter":
        """Insert an axis of length 1."""
        return self.then(steps.ExpandDims(names, axis))

    def squeeze(self, names: Names, *, axis: int) -> "Adapter":
        """Take out an axis of length 1."""
        return self.then(steps.Squeeze(names, axis))

    def broadcast(self, names: Names, *, to: str) -> "Adapter":
        """Repeat variables (n, d) along the middle axes of another one (n, m, c), to (n, m, d)."""
        return self.then(steps.Broadcast(names, to))

    def as_set(self, names: Names) -> "Adapter":
        """Numbers without an order, (n, m), to the sets (n, m, 1) that summary networks take."""
        return self.then(steps.AsSet(names))

    def as_time_series(self, names: Names) -> "Adapter":
        """Numbers in time, (n, m), to the series (n, m, 1) that summary networks take."""
        return self.then(steps.AsTimeSeries(names))

    def subsample(self, names: Names, *, size: int | float, seed: int = 0) -> "Adapter":
        """Keep a number or fraction of the elements along the axis after the rows, at fixed random positions.

        The positions are the same for all rows, in training and in inference; random subsets belong into
        augmentations.
        """
        return self.then(steps.Subsample(names, size, seed))

    def route(self, roles: Mapping[str, list[str]]) -> "Adapter":
        """This adapter, followed by a concatenation of the variables of each role that no step makes yet."""
        existing = {name for transform in self.transforms for name in transform.makes()}
        routed = self
        for role in ROLES:
            if roles.get(role) and role not in existing:
                routed = routed.concatenate(list(roles[role]), into=role)
        return routed

    # ---- use ----------------------------------------------------------------

    def check(self) -> None:
        """Check before a training that no step was lost and that a file can hold every one.

        Raises:
            ConfigurationError: if a step was added to an adapter that was thrown away, is not registered, or
                is not rebuilt by its `config`.
        """
        self.check_kept()
        for transform in self.transforms:
            check_rebuilds(transform)

    def fitted(self, batch: Tensors) -> "Adapter":
        """This adapter with names checked, and shapes and moments learned from raw data, (n, ...) each."""
        learned = []
        for transform in self.transforms:
            learned.append(transform.fitted(batch))
            batch = learned[-1].forward(batch)
        return Adapter(learned)

    def forward(self, batch: Tensors) -> Tensors:
        """Raw to adapted."""
        for transform in self.transforms:
            batch = transform.forward(batch)
        return batch

    def inverse(self, batch: Tensors) -> Tensors:
        """Adapted to raw, for any number of rows; variables that are not in the batch are passed over."""
        for transform in reversed(self.transforms):
            batch = transform.inverse(batch)
        return batch

    def log_abs_det(self, batch: Tensors, role: str) -> torch.Tensor:
        """Log |det d adapted / d raw| in nats of one adapted variable, such as a role; shape (n,), float64.

        Raises:
            DataError: if `forward(batch)` has no such variable, or a value lies on the edge of a support,
                where it is infinite.
            ConfigurationError: if a step on the way is no bijection.
        """
        batch = {name: value.to(torch.float64) for name, value in batch.items()}
        slopes = {name: torch.zeros_like(value) for name, value in batch.items()}
        for transform in self.transforms:
            after = transform.forward(batch)
            slopes, batch = transform.carried(batch, slopes), after
        if role not in slopes:
            raise DataError(f"Variable {role!r} is not among the adapted ones. {suggest(role, slopes)}")
        total = slopes[role].reshape(len(slopes[role]), -1).sum(dim=1)
        if not bool(total.isfinite().all()):
            self._refuse_density(role, total)
        return total

    def _refuse_density(self, role: str, total: torch.Tensor) -> None:
        without = [transform.kind for transform in self.transforms if not transform.has_density]
        if without and bool(total.isnan().all()):
            raise ConfigurationError(
                f"{role!r} has no density: some of its variables pass through "
                f"{', '.join(dict.fromkeys(without))}, which is no bijection. Use those steps for "
                "conditions only."
            )
        raise DataError(
            f"The log density of {role!r} is not finite in {int((~total.isfinite()).sum())} of {len(total)} "
            "rows: a value lies on the edge of the support of a transform, or is NaN. Drop those rows."
        )

    def inside(self, batch: Tensors, names: Names | None = None) -> torch.Tensor:
        """Booleans (n,): which rows of raw variables lie inside the support of every step.

        `forward` takes these.

        A posterior has no mass in the other rows: their log density is -inf. Rows with NaN are outside of any
        support with bounds.

        Args:
            batch: raw variables (n, ...).
            names: look at these alone, such as the inferred ones; by default at all. Where a step joins some
                of them with others, the others are needed too.
        """
        chosen = list(batch) if names is None else checked_names(names, "look at")
        require(chosen, batch, "inside")
        rows = {name: batch[name] for name in chosen}
        first = next(iter(rows.values()))
        alive = torch.arange(len(first), device=first.device)
        for transform in self.transforms:
            if not rows:
                break
            inside = transform.inside(rows)
            alive = alive[inside]
            rows = transform.forward({name: value[inside] for name, value in rows.items()})
        return torch.zeros(len(first), dtype=torch.bool, device=first.device).index_fill(0, alive, value=True)

    def to_json(self) -> list[dict[str, Any]]:
        """The transforms as JSON; raises ConfigurationError if one is not registered."""
        return [transform_to_json(transform) for transform in self.transforms]

    @classmethod
    def from_json(cls, entries: list[dict[str, Any]]) -> "Adapter":
        """The adapter that `to_json` described."""
        return cls(transform_from_json(entry) for entry in entries)


def default_adapter(roles: Mapping[str, list[str]], priors: Mapping[str, Any] | None = None) -> Adapter:
    """Adapter that concatenates the variables of each role along their last axis, under the name of the role.

    `priors` are torch distributions of variables, such as `Simulator.priors`: those of inferred variables
    constrain them to their support.

    >>> default_adapter({"inference_variables": ["mu", "sigma"], "summary_variables": ["x"]})
    Adapter(concatenate, concatenate)
    """
    adapter = Adapter()
    for name in roles.get("inference_variables", []):
        if name in (priors or {}):
            adapter = adapter.constrain(name, prior=(priors or {})[name])
    return adapter.route(roles)
