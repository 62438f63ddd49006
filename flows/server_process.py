"""A Prefect server as a child of this process: how it is started, waited for, and stopped, also after its parent was killed.

It has a session of its own, so that Ctrl-C and the signals of a queue reach the flow alone, which then still has a server to report to.
A parent that is killed outright cannot stop its server; the next one in the folder does, by a note of who started which.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from flows.runtime import work_folder
from sbi_models.errors import TrackingError

_START_SECONDS, _STOP_SECONDS = 120.0, 10.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that was started; `url` is that of its API, `log` has what it says."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path
    note: Path

    @classmethod
    def start(cls, command: Sequence[str], port: int, environment: Mapping[str, str], log: Path) -> Self:
        """Start a server on a port of 127.0.0.1, after those whose parents were killed in this folder are stopped; does not wait for it."""
        notes = work_folder() / "servers"
        notes.mkdir(parents=True, exist_ok=True)
        stop_orphans(notes)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, f"http://127.0.0.1:{port}/api", log, write_note(notes, process))

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def wait(self) -> None:
        """Return when it answers; a TrackingError with the last that it said if it does not within two minutes."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if not self.is_alive() or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").strip().splitlines() or ["nothing"]
                raise TrackingError(f"Expected a Prefect server at {self.url}, but it did not start: {said[-1]} (its log: {self.log}).")
            try:
                with urlopen(f"{self.url}/health", timeout=5):  # noqa: S310 - our own address
                    return
            except (URLError, OSError):
                time.sleep(0.05)

    def stop(self) -> None:
        """End it, by force if it does not end by itself."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.note.unlink(missing_ok=True)


def write_note(notes: Path, process: "subprocess.Popen[bytes]") -> Path:
    """A note of a server that this process has started, by which the next process finds it if this one is killed."""
    notes.mkdir(parents=True, exist_ok=True)
    owner = psutil.Process()
    note = notes / f"{process.pid}.json"
    started = psutil.Process(process.pid).create_time()
    note.write_text(json.dumps({"server": [process.pid, started], "owner": [owner.pid, owner.create_time()]}))
    return note


def stop_orphans(notes: Path) -> int:
    """Stop the servers whose flows were killed; returns how many."""
    stopped = 0
    for note in notes.glob("*.json"):
        content = json.loads(note.read_text())
        if _alive(*content["owner"]) is not None:
            continue
        server = _alive(*content["server"])
        if server is not None:
            server.terminate()
            stopped += 1
        note.unlink(missing_ok=True)
    return stopped


def _alive(pid: int, started: float) -> psutil.Process | None:
    """The process of this number, if it is the one that was started then."""
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
