"""Servers that do not outlive their runs, signals that end a run at once or in order, and servers that are
away."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import prefect
import psutil
import pytest

from sbi_models.cli.options import interruptible
from sbi_models.errors import ConfigurationError, SbiModelsError, TrackingError
from sbi_models.pipeline.experiment.import_paths import load_object
from sbi_models.pipeline.prefect_server.database import refuse_newer
from sbi_models.pipeline.prefect_server.for_one_run import LocalPrefect
from sbi_models.pipeline.prefect_server.process import ServerProcess, why_away, without_password

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen(
    [
        *[sys.executable, "-m", "sbi_models.pipeline.prefect_server.end_with_parent"],
        *[str(os.getpid()), "http.server", "--bind", "127.0.0.1", "0"],
    ],
    start_new_session=True,
)
print(child.pid, flush=True)
time.sleep(60)
"""

WORK = """
import signal
import time
from sbi_models.cli.options import interruptible
from sbi_models.pipeline.runtime import end_on_signals
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # nohup, or a shell in the background, ignores some
end_on_signals()
try:
    with interruptible():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            time.sleep({cleaning})
except RuntimeError as stop:  # typer.Exit
    raise SystemExit(stop.exit_code)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.nightly_cases("1")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_process_that_follows_ends_with_its_parent(number: signal.Signals) -> None:
    """A parent that is killed the moment it has started one, before it could note anything, leaves nothing
    behind."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(number)
    gone, alive = psutil.wait_procs([child], timeout=20)
    assert gone
    assert not alive


@pytest.mark.parametrize(
    ("number", "code", "cleaning"),
    [(signal.SIGHUP, 129, 0), (signal.SIGINT, 130, 0), (signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 60)],
)
def test_signals_end_a_run_in_order_and_a_second_one_at_once(
    number: signal.Signals, code: int, cleaning: int
) -> None:
    """What is inside is cleaned up after the first signal, with a line and the code of that signal; a second
    does not wait for that."""
    command = [sys.executable, "-c", WORK.format(cleaning=cleaning)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        if cleaning:
            process.send_signal(number)
        errors = process.stderr.read()
    assert process.returncode == code
    assert errors == "\nInterrupted. The same command goes on from here.\n"


def test_threads_that_go_on_do_not_keep_a_program_for_ever() -> None:
    """A thread that a function has started and left: the program ends with its code a while after its work,
    and names the thread."""
    work = (
        "import threading, time; from sbi_models.pipeline.runtime import end_in_time; end_in_time(3, 0.3); "
    )
    work += "threading.Thread(target=time.sleep, args=(99,), name='left').start(); raise SystemExit(3)"
    done = subprocess.run(
        [sys.executable, "-c", work], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    assert done.stderr == "Ended, though threads that were left go on: left.\n"
    done = subprocess.run(
        [sys.executable, "-c", work.replace("99", "0")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize("code", ["0", "None", "'done'", "3"])
def test_code_that_ends_the_program_is_an_error(code: str) -> None:
    """`sys.exit` somewhere in a study or a network is told with its place: it ended runs with exit code 0 and
    no answer."""
    with (
        pytest.raises(
            ConfigurationError, match=rf"got sys.exit\({'' if code == 'None' else code}\) in .*, line \d+"
        ),
        interruptible(),
    ):
        exec(f"raise SystemExit({code})", {})


def test_a_module_that_ends_the_program_is_an_error(tmp_path: Path) -> None:
    """A script without a guard for `__main__`, named as the module of a simulator."""
    (tmp_path / "ending_script.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigurationError, match=r"Importing 'ending_script' .* failed: SystemExit: 0"):
        load_object("ending_script:SIMULATOR", str(tmp_path))


def test_a_server_that_is_away_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the address, without a password, and the cure."""
    url = f"http://user:secret@127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(
        TrackingError, match=r"Expected a Prefect server at http://127.0.0.1.*got: Connection refused.*unset"
    ) as caught:
        LocalPrefect().begin()
    assert "secret" not in str(caught.value)
    assert without_password(url) in str(caught.value)


def test_a_server_that_goes_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Prefect raises after it has tried for a while becomes one line; other errors stay what they
    are."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setattr("sbi_models.pipeline.prefect_server.for_one_run.refuse_away", lambda url: None)

    def inside(error: Exception, cause: Exception | None = None) -> None:
        with LocalPrefect():
            raise error from cause

    with pytest.raises(
        TrackingError,
        match=r"The Prefect server at http://127.0.0.1:4200/api does not answer any more: refused",
    ) as caught:
        inside(RuntimeError("crashed"), httpx.ConnectError("refused"))
    assert caught.value.__suppress_context__
    with pytest.raises(SbiModelsError, match=r"^mine$"):
        inside(SbiModelsError("mine"), httpx.ConnectError("refused"))
    with pytest.raises(RuntimeError, match="crashed"):
        inside(RuntimeError("crashed"), ValueError("another"))


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """With its last words and where its log is, or with its exit code where it said nothing."""
    for code, words in (
        ("raise SystemExit('too new.')", r"too new \(its log: .*log.txt\)"),
        ("raise SystemExit(3)", "it ended with exit code 3 and said nothing"),
    ):
        log = tmp_path / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output)
        with pytest.raises(TrackingError, match=f"did not start: {words}"):
            ServerProcess(process, f"http://127.0.0.1:{free_port()}/api", log).wait()


def test_any_answer_is_one() -> None:
    """A server that knows no such page is not away, with a password in its address or without; one that is
    gone is."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}/api"
        assert why_away(f"http://{address}") is None
        assert why_away(f"http://user:secret@{address}") is None
        server.shutdown()
    assert why_away(f"http://{address}") == "Connection refused"


def database(path: Path, revision: str | None) -> Path:
    """A database with tables of a migration."""
    with closing(sqlite3.connect(path)) as connection, connection:
        if revision is not None:
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
            connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    return path


def test_a_database_of_a_newer_prefect_is_told(tmp_path: Path) -> None:
    """A migration that this Prefect does not have, with the versions' cure; its own and none are fine."""
    with pytest.raises(
        TrackingError,
        match=f"Prefect {prefect.__version__} or older at .*newer.db, got one of a newer version",
    ):
        refuse_newer(database(tmp_path / "newer.db", "ffff00001111"))
    for name, revision in (("first.db", "9725c1cbee35"), ("another.db", "a1b2c3d4e5f7"), ("none.db", None)):
        refuse_newer(database(tmp_path / name, revision))


@pytest.mark.integration
def test_a_server_that_is_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same address, while the run goes on; it ends with the run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with LocalPrefect() as _:
        (first,) = [
            child
            for child in psutil.Process().children()
            if "sbi_models.pipeline.prefect_server.end_with_parent" in child.cmdline()
        ]
        url = os.environ.get("PREFECT_API_URL") or prefect.settings.PREFECT_API_URL.value()
        first.kill()
        time.sleep(1)
        deadline = time.monotonic() + 120
        while why_away(str(url)) is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert why_away(str(url)) is None
    assert why_away(str(url)) is not None
