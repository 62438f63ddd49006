"""Servers as child processes on free loopback ports: their logs go to files, and they end with whoever
started them, however that ends."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

_SET_PARENT_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_without(*prefixes: str, **more: str) -> dict[str, str]:
    """The environment of this process without the variables of Prefect, MLflow and `prefixes`, and with
    `more`."""
    unwanted = ("PREFECT_", "MLFLOW_", *prefixes)
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)} | more


@contextmanager
def serving(
    command: list[str], log: Path, *, cwd: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a session of its own for the time of this context; its children are ended with it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call of the C library
        )
    try:
        yield process
    finally:
        stop(process)


def stop(
    process: "subprocess.Popen[bytes]", number: signal.Signals = signal.SIGTERM, seconds: float = 15
) -> None:
    """End a process and its children; those that do not obey the signal are killed."""
    if process.poll() is not None:
        return
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    process.send_signal(signal.SIGCONT)
    process.send_signal(number)
    _, alive = psutil.wait_procs(family, timeout=seconds)
    for one in alive:
        one.kill()
    process.wait()


def wait_until(ready: object, process: "subprocess.Popen[bytes]", log: Path, seconds: float = 150) -> None:
    """Wait until the function `ready` is true of a server; fail with the end of its log if it ends before, or
    takes too long."""
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            how = f"ended with code {code}" if code is not None else f"did not answer within {seconds} s"
            raise RuntimeError(f"{process.args!r} {how}:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)


def _end_with_parent() -> None:
    """Runs in the child: it gets SIGTERM when the process that started it is gone, even by SIGKILL."""
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
