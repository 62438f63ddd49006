"""Small pipelines as processes of their own that use servers, as people start them."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

SMALL_RUN = Path(__file__).parents[1] / "flows" / "small_run.py"
COMMAND_LINE = (sys.executable, "-m", "sbi_models.cli.main")


@dataclass
class Done:
    """What a process printed, how it ended, and how long it took."""

    code: int
    screen: str
    errors: str
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """What a small pipeline returned."""
        assert self.code == 0, self.screen + self.errors
        return result_of(self.screen)


def result_of(screen: str) -> dict[str, Any]:
    """What a small pipeline returned, from what it printed."""
    (line,) = [line for line in screen.splitlines() if line.startswith("RESULT ")]
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def call(
    command: "list[str] | tuple[str, ...]", folder: Path, environment: Mapping[str, str], seconds: float = 200
) -> Done:
    """Run a program in a folder to its end."""
    started = perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr, perf_counter() - started)


def small_run(**changes: Any) -> list[str]:
    """The command line of a small Michelson pipeline."""
    return [sys.executable, str(SMALL_RUN), json.dumps(changes)]


def calls_in(log: str) -> Counter[str]:
    """How often each endpoint of an MLflow server was asked for, from the lines of its log."""
    found = re.findall(r'"(GET|POST|PUT|PATCH|DELETE) /(?:api/2\.0/|ajax-api/2\.0/)?([^ ?"]+)', log)
    return Counter(
        f"{method} {re.sub(r'm-[0-9a-f]{32}|[0-9a-f]{32}|artifacts/.*', '*', path)}" for method, path in found
    )
