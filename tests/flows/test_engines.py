"""Simulation shards on every engine: the same to the bit, whatever the workers, and also if some of them
die."""

import os
from pathlib import Path
from typing import Any

import pytest
from small_run import small_experiment

from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.pipeline.engines import refuse_other_folders
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.prefect_server.for_one_run import local_prefect
from sbi_models.pipeline.steps.simulate import (
    missing_shards,
    simulate,
    simulate_missing,
    simulate_shard,
    stores_of,
)

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("flows-engines")]

SHARDS = {"simulate": {"training": 62 * 64, "validation": 64, "test": 64, "rows_per_shard": 64}}
"""64 files."""

KILLED = """
import os
from pathlib import Path

from sbi_models import make_simulator

FLAG = Path({flag!r})

def prior(rng): return {{"theta": rng.normal(size=2)}}

def likelihood(theta, rng):
    # Once in all: the first process that is not the first one and comes to it dies.
    if os.getpid() != {parent} and theta[0] > 2.5:
        try:
            FLAG.touch(exist_ok=False)
            os._exit(9)
        except FileExistsError:
            pass
    return {{"x": theta + rng.normal(size=2)}}

SIMULATOR = make_simulator([prior, likelihood])
"""


def _hashes(experiment: Experiment) -> dict[str, str]:
    """Simulate in the current folder, and hash the content."""
    with local_prefect():
        assert simulate_missing(question_of(experiment)) == 64 * 64
        assert len(list(Path.cwd().rglob("shard-*.safetensors"))) == 64
        assert simulate_missing(question_of(experiment)) == 0
    question = question_of(experiment)
    return simulate.fn(question, stores_of(question)).content_hash


def _alone(experiment: Experiment) -> dict[str, str]:
    """Simulate shard after shard without an engine."""
    question = question_of(experiment)
    for shard in missing_shards(question):
        simulate_shard.fn(question, shard)
    return simulate.fn(question, stores_of(question)).content_hash


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What every engine must give; leaves the current folder empty."""
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    hashes = _alone(small_experiment(SHARDS))
    (tmp_path / "engine").mkdir()
    monkeypatch.chdir(tmp_path / "engine")
    return hashes


@pytest.mark.parametrize(
    "engine",
    [{"kind": "threads", "workers": 3}, {"kind": "processes", "workers": 4}, {"kind": "dask", "workers": 2}],
)
def test_every_engine_gives_the_same_simulations(engine: dict[str, Any], alone: dict[str, str]) -> None:
    """64 shards on threads, four processes and a dask cluster have the content hashes of those that no engine
    made."""
    assert _hashes(small_experiment(SHARDS | {"engine": engine})) == alone


@pytest.mark.parametrize("engine", [{"kind": "processes", "workers": 2}, {"kind": "dask", "workers": 2}])
def test_a_worker_that_dies_changes_nothing(
    engine: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator that ends one of the workers, once: the shards that were lost are made again, and all are
    as they would have been."""
    source = tmp_path / "source"
    source.mkdir()
    name = f"deadly_{engine['kind']}"
    (source / f"{name}.py").write_text(KILLED.format(flag=str(tmp_path / "died"), parent=os.getpid()))
    plain = {
        "name": "deadly",
        "simulator": f"{name}:SIMULATOR",
        "inference_variables": ["theta"],
        "inference_conditions": ["x"],
    }
    settings = plain | SHARDS | {"folder": str(source), "register_as": {"name": "deadly"}}
    hashes = {}
    for where, kind in (("alone", {"kind": "threads"}), ("engine", engine)):
        (tmp_path / where).mkdir()
        monkeypatch.chdir(tmp_path / where)
        experiment = Experiment.model_validate(settings | {"engine": kind})
        hashes[where] = _alone(experiment) if where == "alone" else _hashes(experiment)
        assert (tmp_path / "died").exists() == (where == "engine")
    assert hashes["alone"] == hashes["engine"]


def test_an_error_of_the_simulator_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a simulator raises in a worker comes out as it is, and shards that were finished stay."""
    (tmp_path / "failing_engine.py").write_text(
        "from sbi_models import make_simulator\n"
        "def prior(rng): return {'theta': rng.normal(size=1)}\n"
        "def likelihood(theta, rng):\n"
        "    if theta[0] > 3.0: raise ValueError('too far out')\n"
        "    return {'x': theta}\n"
        "SIMULATOR = make_simulator([prior, likelihood])\n"
    )
    plain = {
        "name": "failing",
        "simulator": "failing_engine:SIMULATOR",
        "inference_variables": ["theta"],
        "inference_conditions": ["x"],
    }
    experiment = Experiment.model_validate(
        plain | SHARDS | {"folder": str(tmp_path), "register_as": {"name": "failing"}}
    )
    monkeypatch.chdir(tmp_path)
    with local_prefect(), pytest.raises(SimulationError, match="too far out"):
        simulate_missing(question_of(experiment))
    assert list(tmp_path.rglob("shard-*.safetensors"))


HANGS = """
import time
from sbi_models import make_simulator
from sbi_models.simulators import FailurePolicy

def prior(rng): return {"theta": rng.normal(size=1)}

def likelihood(theta, rng):
    if theta[0] > 2.5: time.sleep(3600)
    return {"x": theta + rng.normal(size=1)}

SIMULATOR = make_simulator([prior, likelihood], failures=FailurePolicy(timeout=1.0))
"""


@pytest.mark.parametrize("kind", ["threads", "processes", "dask"])
def test_a_simulator_that_hangs_ends_on_every_engine(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a timeout it is an error with the row and the function, on each of them, and no process of it is
    left."""
    name = f"hanging_{kind}"
    (tmp_path / f"{name}.py").write_text(HANGS)
    plain = {
        "name": name,
        "simulator": f"{name}:SIMULATOR",
        "inference_variables": ["theta"],
        "inference_conditions": ["x"],
    }
    small = {
        "simulate": {"training": 1024, "validation": 64, "test": 64, "rows_per_shard": 256},
        "engine": {"kind": kind, "workers": 2},
    }
    experiment = Experiment.model_validate(
        plain | small | {"folder": str(tmp_path), "register_as": {"name": name}}
    )
    monkeypatch.chdir(tmp_path)
    words = r"row \d+ of seed \d+: function 'likelihood' took longer than the timeout of 1 s"
    with local_prefect(), pytest.raises(SimulationError, match=words):
        simulate_missing(question_of(experiment))


def test_workers_that_do_not_share_the_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker of a cluster is asked about a file that was just made: all must see it; a scheduler that is
    not there is told."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    )
    with cluster:
        refuse_other_folders(cluster.scheduler_address, tmp_path)
        monkeypatch.setattr("sbi_models.pipeline.engines.os.path.exists", lambda path: "probe" not in path)
        with pytest.raises(
            ConfigurationError,
            match=r"Expected workers that share the folder .*, got 2 of 2 that do not see a file",
        ):
            refuse_other_folders(cluster.scheduler_address, tmp_path)
    monkeypatch.setattr("sbi_models.pipeline.engines._SECONDS_OF_A_CLUSTER", 1)
    with pytest.raises(ConfigurationError, match=r"Expected a dask scheduler at tcp://127.0.0.1:9, got: .*"):
        refuse_other_folders("tcp://127.0.0.1:9", tmp_path)
    assert not list(tmp_path.iterdir())
