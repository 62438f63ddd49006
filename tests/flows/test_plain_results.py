"""Results of tasks that a run finds in its work folder are data: what would have code imported or called is
not read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer, PickleSerializer, Serializer
from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

from sbi_models.pipeline.json_results import only_plain_json


class Writes:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Path]:
    """The folder of results of a run."""
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: tmp_path}):
        yield tmp_path


def write(folder: Path, result: Any, serializer: Serializer) -> Path:
    """A result as Prefect keeps it under the key "train-1"."""
    record = ResultRecord(
        result=result, metadata=ResultRecordMetadata(serializer=serializer, storage_key="train-1")
    )
    (folder / "train-1").write_bytes(record.serialize())
    return folder / "train-1"


def test_plain_json_stays(results: Path) -> None:
    """What tasks leave is read, and a key without a result is a key."""
    path = write(results, {"model": "m", "loss": [0.1, None], "n": {"a": 1}}, JSONSerializer())
    before = path.read_bytes()
    assert only_plain_json("train-1") == "train-1"
    assert path.read_bytes() == before
    assert ResultRecord.deserialize(before).result["n"] == {"a": 1}
    assert only_plain_json("train-2") == "train-2"


def test_a_pickle_is_removed_and_not_executed(results: Path, tmp_path: Path) -> None:
    """A result that names the pickle serializer, which Prefect would obey whatever is configured, is removed
    before it is read."""
    path = write(results, Writes(tmp_path / "executed"), PickleSerializer())
    content = path.read_bytes()
    only_plain_json("train-1")
    assert not path.exists()
    assert not (tmp_path / "executed").exists()
    ResultRecord.deserialize(content)  # what happens without this
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "serializer",
    [
        {"jsonlib": "cloudpickle"},
        {"object_decoder": "os.system"},
        {"object_decoder": None},
        {"loads_kwargs": {"cls": "x"}},
    ],
)
def test_another_json_is_removed(results: Path, serializer: dict[str, Any]) -> None:
    """A result that names another library or decoder of JSON, which Prefect would import, is removed."""
    path = write(results, {"model": "m"}, JSONSerializer())
    record = json.loads(path.read_bytes())
    record["metadata"]["serializer"] |= serializer
    path.write_text(json.dumps(record))
    only_plain_json("train-1")
    assert not path.exists()


@pytest.mark.parametrize(
    "result",
    [
        {"a": [{"__class__": "os.system", "data": "true"}]},
        {"__exc_type__": "builtins.SystemExit", "message": "x"},
    ],
)
def test_json_that_names_classes_is_removed(results: Path, result: Any) -> None:
    """Objects by which Prefect's decoder imports what they name are removed, wherever they are."""
    path = write(results, result, JSONSerializer())
    only_plain_json("train-1")
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\x80\x04N.", b'{"metadata": {}, "result": "1"}', b"[" * 100_000],
    ids=list("abcdef"),
)
def test_what_is_no_result_is_removed(results: Path, content: bytes) -> None:
    """Prefect gives what is no record to the configured serializer; here it is removed."""
    (results / "train-1").write_bytes(content)
    only_plain_json("train-1")
    assert not (results / "train-1").exists()
