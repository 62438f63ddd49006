"""The steps of an adapter, one theme a file."""

from sbi_models.adapters.transforms.affine import Scale, Shift, Standardize
from sbi_models.adapters.transforms.base import Elementwise, Names, PerVariable, Tensors, Transform
from sbi_models.adapters.transforms.broadcast import Broadcast
from sbi_models.adapters.transforms.discrete import AsCategorical, AsCount, Discrete, Law
from sbi_models.adapters.transforms.interval import Constrain
from sbi_models.adapters.transforms.joining import Concatenate, Split
from sbi_models.adapters.transforms.missing import NanToNum
from sbi_models.adapters.transforms.naming import Drop, Keep, Rename
from sbi_models.adapters.transforms.one_hot import OneHot
from sbi_models.adapters.transforms.ordered import Ordered
from sbi_models.adapters.transforms.power import Log, Sqrt
from sbi_models.adapters.transforms.registry import (
    KINDS,
    check_rebuilds,
    register_transform,
    transform_from_json,
    transform_to_json,
)
from sbi_models.adapters.transforms.shapes import AsSet, AsTimeSeries, ExpandDims, Squeeze
from sbi_models.adapters.transforms.simplex import Simplex
from sbi_models.adapters.transforms.subsample import Subsample

__all__ = [
    "KINDS",
    "AsCategorical",
    "AsCount",
    "AsSet",
    "AsTimeSeries",
    "Broadcast",
    "Concatenate",
    "Constrain",
    "Discrete",
    "Drop",
    "Elementwise",
    "ExpandDims",
    "Keep",
    "Law",
    "Log",
    "Names",
    "NanToNum",
    "OneHot",
    "Ordered",
    "PerVariable",
    "Rename",
    "Scale",
    "Shift",
    "Simplex",
    "Split",
    "Sqrt",
    "Squeeze",
    "Standardize",
    "Subsample",
    "Tensors",
    "Transform",
    "check_rebuilds",
    "register_transform",
    "transform_from_json",
    "transform_to_json",
]
