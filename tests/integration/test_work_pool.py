"""The deployments of prefect.yaml on a work pool: a worker runs them in the folder in which they were
deployed."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from clients import call
from processes import environment_without, serving, wait_until
from servers import QUIET, answers, prefect_server

from sbi_models.tracking import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
SMALL = {
    "simulate": {"training": 4096, "validation": 512, "test": 64},
    "infer": {"num_samples": 200, "predictive_replicates": 0},
    "diagnose": {"num_samples": 50},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of the API of a Prefect server."""
    with prefect_server(tmp_path) as (url, process, log):
        wait_until(lambda: answers(f"{url}/api/health"), process, log)
        yield f"{url}/api"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the flows and prefect.yaml of this project, whose experiments are made small."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flows").symlink_to(PROJECT / "flows")
    content = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    for deployment in content["deployments"]:
        deployment["parameters"]["experiment"] |= SMALL
        deployment["parameters"]["experiment"]["train"]["epochs"] = 2
    (folder / "prefect.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_a_worker_runs_what_was_deployed(server: str, project: Path, tmp_path: Path) -> None:
    """`prefect deploy --all`, a worker and one run: the flow run is COMPLETED, the run is tracked in the
    folder of the project, where the results of its tasks are, too."""
    environment = environment_without(**QUIET, PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path / "home"))
    for command in (
        ["work-pool", "create", "local", "--type", "process"],
        ["deploy", "--all"],
        ["deployment", "run", "pipeline/michelson"],
    ):
        done = call([*PREFECT, *command], project, environment)
        assert done.code == 0, done.screen + done.errors
    log = tmp_path / "worker.log"
    (tmp_path / "elsewhere").mkdir()
    worker = [*PREFECT, "worker", "start", "--pool", "local", "--name", "test"]
    with serving(worker, log, cwd=tmp_path / "elsewhere", environment=environment) as process:
        started = time.monotonic()
        wait_until(lambda: _states(server) & {"COMPLETED", "FAILED", "CRASHED"}, process, log, 200)
        print(f"\nthe worker took {time.monotonic() - started:.1f} s")
    assert _states(server) == {"COMPLETED"}, log.read_text()[-3000:]
    client = open_store(project, create=False).client
    (run,) = client.search_runs([client.get_experiment_by_name("michelson").experiment_id])
    assert run.info.status == "FINISHED"
    assert {file.name.partition("-")[0] for file in (project / "mlruns" / "work" / "results").iterdir()} >= {
        "simulate",
        "train",
    }
    assert not list((tmp_path / "elsewhere").iterdir())


def _states(server: str) -> set[str]:
    whole = {"flow_runs": {"parent_task_run_id": {"is_null_": True}}}
    return {
        run["state_type"]
        for run in requests.post(f"{server}/flow_runs/filter", json=whole, timeout=30).json()
    }
