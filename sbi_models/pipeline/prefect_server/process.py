"""A Prefect server as a child process: start, wait, stop.

It has a session of its own, so that Ctrl-C and the signals of a queue reach the flow alone, which then still
has a server to report to. It follows its parent: one that is killed, at whatever moment, leaves no server
behind.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from sbi_models.errors import TrackingError

_START_SECONDS, _STOP_SECONDS = 120.0, 10.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that was started; `url` is that of its API, `log` has what it says."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @classmethod
    def start(cls, module: Sequence[str], port: int, environment: Mapping[str, str], log: Path) -> Self:
        """Start a server module with its arguments on a port of 127.0.0.1, without waiting for it."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [
                    sys.executable,
                    "-m",
                    "sbi_models.pipeline.prefect_server.end_with_parent",
                    str(os.getpid()),
                    *module,
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port),
                ],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, f"http://127.0.0.1:{port}/api", log)

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def wait(self) -> None:
        """Return when the server responds.

        Raises:
            TrackingError: if it does not within two minutes, with the last line of its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not answers(self.url):
            if not self.is_alive() or time.monotonic() > deadline:
                raise TrackingError(
                    f"Expected a Prefect server at {self.url}, but it did not start: {self._last_words()}."
                )
            time.sleep(0.05)

    def _last_words(self) -> str:
        """What it said last; there may be nothing if it was killed."""
        lines = (
            self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if self.log.is_file()
            else []
        )
        if lines:
            return f"{lines[-1].rstrip('.')} (its log: {self.log})"
        code = self.process.poll()
        return "it gives no answer" if code is None else f"it ended with exit code {code} and said nothing"

    def stop(self) -> None:
        """End it, by force if it does not end by itself."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def answers(url: str) -> bool:
    """Whether the server of an API gives any answer."""
    return why_away(url) is None


def why_away(url: str) -> str | None:
    """The reason why the server of an API does not respond; None if it responds.

    Errors of certificates count as a response: Prefect has settings for them.
    """
    try:
        # Nobody needs to be known to ask whether a server is well, and urllib would take a password for part
        # of the name.
        with urlopen(f"{without_password(url)}/health", timeout=5):  # noqa: S310 - of the user, or our own
            return None
    except HTTPError:
        return None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        return None if "CERTIFICATE" in str(reason) else str(getattr(reason, "strerror", None) or reason)


def without_password(url: str) -> str:
    """An address without what it may hold of a user and a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
