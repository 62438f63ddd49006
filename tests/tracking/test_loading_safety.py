"""A registered model can be trusted as far as its file can: what was changed, or names what it should not, is
refused, and never run."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sbi_models import load, seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator, files
from sbi_models.errors import ModelFileError, SbiModelsError
from sbi_models.networks import CouplingFlow, DeepSet
from sbi_models.tracking import Store, Tracker, register
from sbi_models.tracking.addresses import HASH_TAG, sha256

ROLES = {"inference_variables": ["theta"], "summary_variables": ["x"]}


@pytest.fixture
def approximator() -> ContinuousApproximator:
    random = seeding.generator(0, "safety test")
    made = ContinuousApproximator(
        adapter=default_adapter(ROLES),
        roles=ROLES,
        inference_network=CouplingFlow(),
        summary_network=DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)),
    )
    made.build({"theta": random.normal(size=(64, 2)), "x": random.normal(size=(64, 5, 1))}, seed=0)
    return made


@pytest.fixture
def registered(
    store: Store, approximator: ContinuousApproximator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The file of models:/safe@champion in the store, which `load` finds."""
    run_id = Tracker.start(store, "npe", "first", "key").run_id
    register(store, "safe", approximator.save(tmp_path / "file"), run_id, aliases=["champion"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    (file,) = (store.root / "mlruns" / "artifacts").rglob("approximator.safetensors")
    load("models:/safe@champion")
    return file


def replace(store: Store, registered: Path, file: Path) -> None:
    """Put another file in the place of the registered one, with its hash, as one could who may write to the
    store."""
    shutil.copyfile(file, registered)
    store.client.set_model_version_tag("safe", "1", HASH_TAG, sha256(registered))


def test_one_changed_bit_is_refused(store: Store, registered: Path) -> None:
    """A bit of a tensor or of the header flipped: the hash of the registration tells, and without it the
    file's own checksum does."""
    content = registered.read_bytes()
    for place in (20, len(content) - 2):
        damaged = bytearray(content)
        damaged[place] ^= 1
        registered.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="was changed since"):
            load("models:/safe@champion")
        store.client.set_model_version_tag("safe", "1", HASH_TAG, sha256(registered))
        with pytest.raises(ModelFileError, match=r"not a readable approximator|checksum does not match"):
            load("models:/safe@champion")
        registered.write_bytes(content)
        store.client.set_model_version_tag("safe", "1", HASH_TAG, sha256(registered))
    load("models:/safe@champion")


def test_another_schema_is_refused(
    store: Store,
    registered: Path,
    approximator: ContinuousApproximator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A registered file of another schema version is refused with both versions."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "SCHEMA_VERSION", 99)
        replace(store, registered, approximator.save(tmp_path / "other"))
    with pytest.raises(ModelFileError, match="has schema version 99, this version of sbi_models reads"):
        load("models:/safe@champion")


def _network(role: str) -> Callable[[dict, str], dict]:
    return lambda settings, name: {role: settings[role] | {"name": name}}


EVIL_MODULE = "module_that_writes_a_file"
NAMES = [
    "os:system",
    "os.system",
    "builtins.exec",
    "builtins:eval",
    "subprocess.Popen",
    EVIL_MODULE,
    f"{EVIL_MODULE}:Network",
    "../../etc/passwd",
]
PLACES: dict[str, Callable[[dict, str], dict]] = {
    "inference network": _network("inference_network"),
    "summary network": _network("summary_network"),
    "adapter": lambda settings, name: {
        "adapter": [{"kind": name, "config": {"cmd": f"touch {name}", "command": "id"}}]
    },
}


@pytest.mark.nightly_cases("summary network", "kind")
@pytest.mark.parametrize("place", [*PLACES, "kind"])
def test_what_a_file_names_is_neither_imported_nor_executed(
    store: Store,
    registered: Path,
    approximator: ContinuousApproximator,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A whole file with a right checksum that names functions or modules instead of registered classes is
    refused; nothing of it runs."""
    tmp_path = store.root
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{EVIL_MODULE}.py").write_text(
        f"open({str(tmp_path / 'executed')!r}, 'w').close()\nclass Network: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    settings, tensors = approximator._settings(), approximator.state_dict()
    before = set(sys.modules)
    for name in NAMES:
        if place == "kind":
            file = files.write(tmp_path / "evil", name, settings, tensors)
        else:
            file = files.write(
                tmp_path / "evil", approximator.kind, settings | PLACES[place](settings, name), tensors
            )
        replace(store, registered, file)
        with pytest.raises(ModelFileError, match=r"unknown (kind|network|adapter transform)") as caught:
            load("models:/safe@champion")
        assert repr(name) in str(caught.value)
    assert not (tmp_path / "executed").exists()
    assert EVIL_MODULE not in sys.modules
    assert not [
        module
        for module in set(sys.modules) - before
        if not module.startswith(("sbi_models", "mlflow", "torch", "numpy"))
    ]


def test_arguments_of_classes_are_data(
    store: Store,
    registered: Path,
    approximator: ContinuousApproximator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts in settings, such as code, stay texts: a network with unknown or nonsensical arguments is
    refused, and `info` is given back."""
    settings, tensors = approximator._settings(), approximator.state_dict()
    code = "__import__('os').system('touch executed')"
    monkeypatch.chdir(tmp_path)
    config = next(key for key, value in settings["inference_network"].items() if isinstance(value, dict))
    for extra in ({"subnet": code}, {code: 1}):
        network = settings["inference_network"] | {config: settings["inference_network"][config] | extra}
        replace(
            store,
            registered,
            files.write(
                tmp_path / "evil", approximator.kind, settings | {"inference_network": network}, tensors
            ),
        )
        with pytest.raises(SbiModelsError, match=r"Unknown subnet|has no argument"):
            load("models:/safe@champion")
    replace(
        store,
        registered,
        files.write(tmp_path / "info", approximator.kind, settings | {"info": {"note": code}}, tensors),
    )
    loaded = load("models:/safe@champion", certify=False)
    assert json.loads(json.dumps(loaded.info)) == {"note": code}
    assert np.isfinite(
        loaded.sample(num_samples=2, conditions={"x": np.zeros((1, 5, 1))}, seed=1)["theta"]
    ).all()
    assert not (tmp_path / "executed").exists()
