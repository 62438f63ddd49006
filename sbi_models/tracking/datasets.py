"""Data sets as inputs of MLflow runs: source, digest, shapes and types of the variables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.types import TensorSpec
from mlflow.types.schema import Schema

from sbi_models.datasets.schemas import kind_of
from sbi_models.ragged import leaves
from sbi_models.tracking.redaction import redacted
from sbi_models.types import Array

DIGEST_LENGTH = 36
CONTEXT_TAG = "mlflow.data.context"


def dataset_input(
    name: str, path_or_uri: Path | str, arrays: Mapping[str, Array], content_hash: str, context: str
) -> DatasetInput:
    """MLflow's record of a data set with `arrays` of shape (n, ...), whose own hash becomes the digest."""
    uri = redacted(str(path_or_uri))
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    dataset = Dataset(
        name=name,
        digest=content_hash[:DIGEST_LENGTH],
        source_type={"file": "local", "https": "http"}.get(scheme, scheme),
        source=json.dumps(
            {
                "url" if scheme in {"http", "https"} else "uri": uri
                if "://" in uri
                else Path(uri).resolve().as_uri()
            }
        ),
        schema=json.dumps({"mlflow_tensorspec": {"features": _schema(arrays).to_json(), "targets": None}})
        if arrays
        else None,
        profile=json.dumps(_profile(arrays)),
    )
    return DatasetInput(
        dataset, tags=[InputTag(CONTEXT_TAG, context), InputTag("sbi_models.content_hash", content_hash)]
    )


def _schema(arrays: Mapping[str, Array]) -> Schema:
    return Schema(
        [
            TensorSpec(np.dtype(kind["dtype"]), (-1, *(-1 if n is None else n for n in kind["shape"])), name)
            for name, kind in _kinds(arrays).items()
        ]
    )


def _profile(arrays: Mapping[str, Array]) -> dict[str, dict[str, object]]:
    """What MLflow's pages show: shape, number of values and bytes of each variable."""
    return {
        "features_shape": {
            name: [len(arrays[name]), *kind["shape"]] if np.ndim(arrays[name]) else []
            for name, kind in _kinds(arrays).items()
        },
        "features_size": {
            name: sum(leaf.size for leaf in leaves(np.asarray(array))) for name, array in arrays.items()
        },
        "features_nbytes": {
            name: sum(leaf.nbytes for leaf in leaves(np.asarray(array))) for name, array in arrays.items()
        },
    }


def _kinds(arrays: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Type and shape of a row of each variable; None for a length that differs."""
    return {name: kind_of(np.asarray(array)) for name, array in arrays.items()}
