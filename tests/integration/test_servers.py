"""The pipeline against an MLflow server with passwords and a Prefect server, both on PostgreSQL: the same
code, other variables."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from clients import COMMAND_LINE, Done, call, calls_in, small_run
from servers import Servers

from sbi_models.approximators import load_approximator
from sbi_models.simulators.benchmarks.michelson import DATA
from sbi_models.tracking import Store, open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def done(real_servers: Servers, project: Path) -> Done:
    """A small pipeline that knows the servers by its environment alone."""
    before = len(real_servers.mlflow.log.read_text())
    finished = call(small_run(), project, real_servers.client())
    calls = calls_in(real_servers.mlflow.log.read_text()[before:])
    print(
        f"\nthe pipeline took {finished.seconds:.1f} s and made {calls.total()} calls of the MLflow server:"
    )
    print("\n".join(f"{count:5} {name}" for name, count in calls.most_common()))
    assert finished.code == 0, finished.screen + finished.errors
    return finished


@pytest.fixture
def store(real_servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """The store that the pipeline used, seen from another folder."""
    for name, value in real_servers.client().items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return open_store(create=False)


def test_the_run_is_whole_on_the_server(done: Done, store: Store) -> None:
    """The run is FINISHED and has its parameters, a loss for every epoch, data sets and all its files, which
    can be downloaded."""
    client, run_id = store.client, done.result["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "1"
    assert run.data.params["train.epochs"] == "3"
    for name, values in ((name, done.result["training"]["history"][name]) for name in ("loss", "val_loss")):
        points = sorted(client.get_metric_history(run_id, name), key=lambda point: point.step)
        assert [point.value for point in points] == values
    assert {found.dataset.name for found in run.inputs.dataset_inputs} == {"training", "validation", "test"}
    assert {"nrmse.mu", "certificate.failed", "train.seconds"} <= set(run.data.metrics)
    folders = {
        name: {file.path for file in client.list_artifacts(run_id, name)}
        for name in ("figures", "inference", "checkpoints")
    }
    assert {"figures/recovery.png", "figures/posteriors.png", "figures/losses.png"} <= folders["figures"]
    assert {"inference/draws.parquet", "inference/certificates.json", "inference/posteriors.csv"} <= folders[
        "inference"
    ]
    draws = pd.read_parquet(client.download_artifacts(run_id, "inference/draws.parquet"))
    assert draws.groupby("data_set").size().to_dict() == dict.fromkeys("12345", 200)
    assert (
        json.loads(Path(client.download_artifacts(run_id, "verdict.json")).read_text())
        == done.result["diagnosis"]["verdict"]
    )


def test_nothing_was_tracked_in_the_folder_of_the_project(done: Done, project: Path) -> None:
    """Neither MLflow nor Prefect has a database there: all of it is on the servers."""
    assert done.code == 0
    assert not list(project.rglob("*.db"))


def test_the_registered_model_gives_the_same_draws_elsewhere(
    done: Done, real_servers: Servers, project: Path, tmp_path: Path
) -> None:
    """`sbi_models.load` in a process with another working folder gives, through the server, the draws of the
    file that was trained."""
    script = (
        "import sys, numpy, pandas, sbi_models\n"
        f"x = pandas.read_csv({str(DATA)!r})['speed'].to_numpy(float).reshape(5, 20, 1)\n"
        "model = sbi_models.load(sys.argv[1], certify=False)\n"
        "print(model.sample(num_samples=50, conditions={'x': x}, seed=7)['theta'].tobytes().hex())\n"
    )
    answers = {
        address: call([sys.executable, "-c", script, address], tmp_path, real_servers.client())
        for address in ("models:/michelson@champion", done.result["registered"]["uri"])
    }
    x = pd.read_csv(DATA)["speed"].to_numpy(float).reshape(5, 20, 1)
    expected = load_approximator(project / done.result["training"]["model"]).sample(
        num_samples=50, conditions={"x": x}, seed=7
    )["theta"]
    for answer in answers.values():
        assert answer.code == 0, answer.errors
        assert bytes.fromhex(answer.screen.strip()) == expected.tobytes()


def test_the_flow_run_is_completed_on_the_server(done: Done, real_servers: Servers) -> None:
    """Prefect's server has one flow run, COMPLETED, with the tasks below it, each COMPLETED, and its
    parameter."""
    whole = {
        "flow_runs": {"parent_task_run_id": {"is_null_": True}}
    }  # not the flow that spreads the simulations
    runs = [
        run
        for run in real_servers.prefect("flow_runs/filter", whole)
        if run["parameters"]["experiment"]["seed"] == 1
    ]
    (run,) = runs
    assert run["state_type"] == "COMPLETED"
    assert run["parameters"]["experiment"]["name"] == "michelson"
    tasks = real_servers.prefect("task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {task["name"].rpartition("-")[0] for task in tasks} >= {
        "diagnose",
        "gate",
        "infer",
        "register",
        "simulate",
        "train",
    }
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert done.code == 0


def test_the_screen_is_as_clean_as_without_servers(done: Done) -> None:
    """Stages, table and no warning, traceback or line of an engine."""
    assert done.errors == ""
    assert "[5/5] infer" in done.screen
    for word in ("Warning", "Traceback", "INFO"):
        assert word not in done.screen


def test_a_second_run_reuses_the_work(done: Done, real_servers: Servers, project: Path) -> None:
    """The same command again trains nothing, registers no new version, and gives the same draws."""
    again = call(small_run(), project, real_servers.client())
    print(f"\nthe pipeline that uses its work again took {again.seconds:.1f} s")
    assert again.screen.count("reused, finished") == 4
    assert again.result["registered"]["reused"]
    assert again.result["inference"]["draws_sha256"] == done.result["inference"]["draws_sha256"]


def test_no_password_is_kept_anywhere(done: Done, real_servers: Servers, project: Path) -> None:
    """Passwords, and the headers that carry them, are on no screen, in no row of MLflow's or Prefect's
    database, in no artifact, in no file of the project, and in no log of a server; other words that belong
    there are found by the same search."""
    places = {"screen": done.screen + done.errors}
    places |= {name: real_servers.postgres.everything(name) for name in ("mlflow", "mlflow_auth", "prefect")}
    for name, folder in (("artifacts", real_servers.mlflow.artifacts), ("project", project)):
        places[name] = "\n".join(
            f"{path} {path.read_bytes().decode(errors='replace')}"
            for path in folder.rglob("*")
            if path.is_file()
        )
    places |= {path.name: path.read_text() for path in real_servers.logs.glob("*.log")}
    expected = dict.fromkeys(
        ("screen", "mlflow", "mlflow_auth", "prefect", "artifacts", "project"), "michelson"
    )
    for name, word in (
        expected | {"mlflow.log": "log-batch", "prefect.log": "dashboard", "postgres.log": "ready"}
    ).items():
        assert word in places[name], name
    found = {name for name, text in places.items() for secret in real_servers.secrets if secret in text}
    assert not found


@pytest.mark.parametrize("given", ["a wrong one", "none"])
def test_a_wrong_password_is_one_line(real_servers: Servers, tmp_path: Path, given: str) -> None:
    """A wrong password, or none, ends `sbi-models run` with code 2 and one line that says so, before anything
    is simulated."""
    environment = real_servers.client(MLFLOW_TRACKING_PASSWORD="wrong")
    if given == "none":
        del environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_PASSWORD"]
    done = call([*COMMAND_LINE, "run", "michelson"], tmp_path, environment)
    assert done.code == 2, done.errors
    assert len(done.errors.strip().splitlines()) == 1
    assert done.errors.startswith("Error: ")
    assert "not authenticated" in done.errors
    assert "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.errors
    assert "Traceback" not in done.screen
    assert not list(tmp_path.rglob("shard-*"))
