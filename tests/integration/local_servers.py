"""Servers of MLflow that a test starts on this machine, and always stops."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: list[str], address: str, log: Path, environment: Mapping[str, str], limit: float = 120.0
) -> Iterator[subprocess.Popen]:
    """A server that answers at `address` when the block begins; it and its children are gone when the block
    ends."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with log.open("ab") as output:
        server = subprocess.Popen(
            command,
            env={**os.environ, "PATH": path, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=log.parent,
        )
    try:
        end = time.monotonic() + limit
        while not _answers(address):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        stop(server)


def stop(server: subprocess.Popen) -> None:
    """End the server and its children, at once."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
