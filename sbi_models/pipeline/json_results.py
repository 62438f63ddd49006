"""Results of tasks that a later run may read: JSON that names no code.

Prefect keeps the result of a task in a file that says itself how it is to be read: by which serializer, with
which functions, and inside of JSON as which classes. Whoever can write such a file, or sends a project with
one in it, would have the next run import and call what it names. Tasks of this project return numbers, text,
lists and dicts; what names anything else is not theirs.
"""

import json
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH

_SERIALISER = {
    "type": "json",
    "jsonlib": "json",
    "object_encoder": "prefect.serializers.prefect_json_object_encoder",
    "object_decoder": "prefect.serializers.prefect_json_object_decoder",
    "dumps_kwargs": {},
    "loads_kwargs": {},
}
"""As Prefect describes the one that tasks are declared with."""

_NAMES_OF_CODE = {"__class__", "__exc_type__"}
"""Keys by which Prefect's decoder imports classes."""


def only_plain_json(key: str) -> str:
    """The key; a result under it that is not plain JSON is removed, and its task runs again."""
    path = Path(PREFECT_RESULTS_LOCAL_STORAGE_PATH.value()).expanduser() / key
    if path.is_file() and not _is_plain(path.read_bytes()):
        path.unlink()
    return key


def _is_plain(content: bytes) -> bool:
    try:
        record = json.loads(content)
        return (
            record["metadata"]["serializer"] == _SERIALISER
            and not _names_code(record)
            and not _names_code(json.loads(record["result"]))
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _names_code(value: Any) -> bool:
    if isinstance(value, dict):
        return not _NAMES_OF_CODE.isdisjoint(value) or any(map(_names_code, value.values()))
    return isinstance(value, list) and any(map(_names_code, value))
