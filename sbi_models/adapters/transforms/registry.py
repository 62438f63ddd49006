"""Transforms by kind: what files may build, and nothing else."""

import inspect
from typing import Any, TypedDict

from sbi_models.adapters.transforms.affine import Scale, Shift, Standardize
from sbi_models.adapters.transforms.base import Transform
from sbi_models.adapters.transforms.broadcast import Broadcast
from sbi_models.adapters.transforms.interval import Constrain
from sbi_models.adapters.transforms.joining import Concatenate, Split
from sbi_models.adapters.transforms.missing import NanToNum
from sbi_models.adapters.transforms.naming import Drop, Keep, Rename
from sbi_models.adapters.transforms.one_hot import OneHot
from sbi_models.adapters.transforms.ordered import Ordered
from sbi_models.adapters.transforms.power import Log, Sqrt
from sbi_models.adapters.transforms.shapes import AsSet, AsTimeSeries, ExpandDims, Squeeze
from sbi_models.adapters.transforms.simplex import Simplex
from sbi_models.adapters.transforms.subsample import Subsample
from sbi_models.errors import ModelFileError, suggest
from sbi_models.safe_construction import check_arguments, misfit

_ALL: list[type[Transform]] = [
    *(Rename, Keep, Drop, Concatenate, Split),
    *(Log, Sqrt, Scale, Shift, Standardize, Constrain, Ordered, Simplex),
    *(ExpandDims, Squeeze, AsSet, AsTimeSeries, Broadcast),
    *(OneHot, NanToNum, Subsample),
]

KINDS: dict[str, type[Transform]] = {transform.kind: transform for transform in _ALL}


class _Entry(TypedDict):
    """A transform as `Adapter.to_json()` describes it."""

    kind: str
    config: dict[str, Any]


def transform_from_json(entry: dict[str, Any]) -> Transform:
    """A transform from its saved `{"kind": ..., "config": {...}}`; only kinds of this project are built, from
    arguments they know."""
    if found := misfit(entry, _Entry, "a transform"):
        raise ModelFileError(found)
    kind, config = entry["kind"], entry["config"]
    if kind not in KINDS:
        raise ModelFileError(
            f"The file names an unknown adapter transform {kind!r}. {suggest(str(kind), KINDS)}"
        )
    known = inspect.signature(KINDS[kind]).parameters
    for name in config:
        if name not in known:
            raise ModelFileError(
                f"The file gives the adapter transform {kind!r} an unknown argument {name!r}. "
                f"{suggest(name, known)}"
            )
    check_arguments(KINDS[kind], config, kind, sizes=False)
    return KINDS[kind](**config)
