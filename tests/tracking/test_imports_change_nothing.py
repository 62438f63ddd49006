"""Importing the package leaves the process as it was; a store and a run change it for their calls alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from platformdirs import user_cache_path

STATE = r"""
import gc, json, logging, os, signal, sys, threading, warnings

def state():
    "What imports could change in a process, as comparable texts."
    seen = {"environment": dict(os.environ)}
    seen["collector"] = [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()]
    loggers = {"": logging.getLogger(), **logging.root.manager.loggerDict}
    seen["logging"] = {
        name: [logger.level, logger.propagate, logger.disabled, *map(repr, logger.filters),
               *(f"{handler!r} {handler.level} {handler.filters!r}" for handler in logger.handlers)]
        for name, logger in loggers.items()
        if isinstance(logger, logging.Logger)
        and not name.startswith(("sbi_models", "prefect.task_runner"))  # which Prefect's decorator makes
    }
    seen["disabled"] = logging.root.manager.disable
    seen["warnings"] = [repr(entry) for entry in warnings.filters]
    seen["signals"] = {str(number): repr(signal.getsignal(number)) for number in signal.valid_signals()}
    seen["threads"] = sorted(thread.name for thread in threading.enumerate())
    seen["hooks"] = [repr(sys.excepthook), repr(threading.excepthook), sys.getrecursionlimit()]
    seen["path"] = list(sys.path)
    if torch := sys.modules.get("torch"):
        seen["torch"] = [str(torch.get_default_dtype()), str(torch.get_default_device()),
                         torch.get_num_threads(), torch.is_grad_enabled(),
                         torch.are_deterministic_algorithms_enabled(),
                         torch.random.initial_seed(), repr(torch.get_rng_state().sum())]
    if numpy := sys.modules.get("numpy"):
        seen["numpy"] = [repr(numpy.geterr()), repr(numpy.get_printoptions())]
    if "sqlalchemy" in sys.modules:
        from sqlalchemy.event import registry
        seen["engines"] = sorted(key[1] for key in registry._key_to_collection)
    return json.loads(json.dumps(seen))

def changes(before, after):
    "Entries that differ; a new logger that says nothing of itself is none."
    found = {}
    for key in after:
        old, new = before.get(key, after[key]), after[key]
        if key == "logging":
            plain = [logging.NOTSET, True, False]
            new = {name: entry for name, entry in new.items() if old.get(name, plain) != entry}
            old = {name: old.get(name) for name in new}
        if old != new:
            found[key] = [old, new]
    return found
"""

EVERY_MODULE = r"""
import importlib, os, pkgutil
import lightning, mlflow, pandas, prefect, scipy.stats, torch  # most of what both processes import
import sbi_models
ours = sorted(
    found.name
    for found in pkgutil.walk_packages(sbi_models.__path__, "sbi_models.", onerror=lambda name: None)
    if not found.name.endswith((".__main__", "tracking.served", "prefect_server.serve_once"))  # programs
)
read, write = os.pipe()
if os.fork() == 0:
    for name in ours:
        importlib.import_module(name)
    names = [name for name in sys.modules if not name.startswith("sbi_models")]
    with os.fdopen(write, "w") as pipe:
        json.dump([names, [name for name in ours if name in sys.modules]], pipe)
    os._exit(0)
os.close(write)
with os.fdopen(read) as pipe:
    others, imported = json.load(pipe)
os.wait()
assert {"mlflow", "prefect"} <= set(others)
assert "sbi_models.pipeline.flows.pipeline" in imported
for name in others:
    try:
        importlib.import_module(name)
    except Exception:
        pass
before = state()
for name in imported:
    importlib.import_module(name)
print(json.dumps(changes(before, state())))
"""


def python(code: str, folder: Path, **environment: str) -> str:
    """Standard output of code in a process of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "_MLFLOW_", "DO_NOT"))
    }
    (folder / "code.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "code.py"],
        cwd=folder,
        env=kept | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_importing_every_module_changes_nothing(tmp_path: Path) -> None:
    """Environment, collector, loggers, warnings, signals, threads, defaults of torch and NumPy, and listeners
    on SQLAlchemy's engines are those that the imported packages of others leave."""
    # seconds: a process of its own imports all of PyTorch, MLflow and Prefect
    assert json.loads(python(STATE + EVERY_MODULE, tmp_path).splitlines()[-1]) == {}


@pytest.mark.parametrize(
    "name", ["sbi_models", "sbi_models.tracking", "sbi_models.pipeline", "sbi_models.cli"]
)
def test_importing_a_package_changes_nothing(name: str, tmp_path: Path) -> None:
    """These packages import nothing heavy, so that they leave a bare interpreter as it was."""
    code = f"{STATE}\nbefore = state()\nimport {name}\nprint(json.dumps(changes(before, state())))"
    assert json.loads(python(code, tmp_path)) == {}


def test_fetching_a_public_name_leaves_the_collector_on(tmp_path: Path) -> None:
    """A lazy import does not switch garbage collection off meanwhile: other threads may depend on it."""
    code = """
import gc
switched = []
real = gc.disable
gc.disable = lambda: switched.append(1) or real()
import sbi_models as bf
bf.Adapter
print(len(switched))
"""
    assert python(code, tmp_path) == "0\n"


USER = """
import logging, os, sqlalchemy
from pathlib import Path
before = dict(os.environ)
engine = sqlalchemy.create_engine(f"sqlite:///{Path.cwd() / 'mine.db'}")
from sbi_models.tracking import Tracker, open_store
store = open_store()
with Tracker.start(store, "mine", "run", "key") as tracker:
    tracker.log_metrics({"loss": 1.0})
with engine.connect() as connection:
    connection.execute(sqlalchemy.text("PRAGMA busy_timeout = 20000;"))
    assert connection.execute(sqlalchemy.text("PRAGMA busy_timeout")).scalar() == 20000
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.telemetry import get_telemetry_client
assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == MLFLOW_HTTP_REQUEST_MAX_RETRIES.default > 0
assert get_telemetry_client() is None
own = {name for name in os.environ if not name.startswith("_MLFLOW")}
assert own == set(before), own ^ set(before)
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("mlflow").addHandler(handler)
logging.getLogger("mlflow.store.db.utils").error("SQLAlchemy database error.")
assert len(lines) == 1, lines
print("as it was")
"""


@pytest.mark.nightly
@pytest.mark.parametrize("tables", ["copied", pytest.param("made", marks=pytest.mark.nightly)])
def test_a_store_leaves_the_users_engines_clients_and_log_alone(tables: str, tmp_path: Path) -> None:
    """After a tracked run the user's SQLite engine keeps its busy_timeout, MLflow's client its retries, and
    MLflow's log its lines; no environment variable is set, and no usage data leave the process. So it is
    whether the tables of the store are copied from those of an earlier one, or made."""
    cache = tmp_path if tables == "made" else user_cache_path()
    assert python(USER, tmp_path, XDG_CACHE_HOME=str(cache)).endswith("as it was\n")


def test_a_run_sets_its_environment_and_takes_it_back(tmp_path: Path) -> None:
    """The settings of a run are those of Prefect and the environment while it lasts, in a process that has
    imported Prefect before, and its own ones hold afterwards."""
    code = """
import logging, os, prefect
from pathlib import Path
from prefect.settings import PREFECT_HOME, PREFECT_RESULTS_LOCAL_STORAGE_PATH
from sbi_models.pipeline.runtime import run_settings
before, home = dict(os.environ), PREFECT_HOME.value()
filters = [list(handler.filters) for handler in logging.getLogger("prefect").handlers]
with run_settings():
    assert PREFECT_HOME.value() == Path.cwd() / "mlruns" / "work" / "prefect"
    assert PREFECT_RESULTS_LOCAL_STORAGE_PATH.value() == Path.cwd() / "mlruns" / "work" / "results"
    assert os.environ["DO_NOT_TRACK"] == os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    logging.getLogger("prefect").error("hidden")
assert dict(os.environ) == before
assert PREFECT_HOME.value() == home != Path.cwd() / "mlruns" / "work" / "prefect"
assert [list(handler.filters) for handler in logging.getLogger("prefect").handlers] == filters
print("as it was")
"""
    assert python(code, tmp_path) == "as it was\n"
