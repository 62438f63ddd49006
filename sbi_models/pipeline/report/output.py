"""Console output of commands: progress, results in words, or results as JSON for machines."""

import codecs
import io
import json
import locale
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text


@dataclass(frozen=True)
class OutputSettings:
    """Output of a command: `quiet` leaves out progress, `as_json` prints the result as JSON."""

    quiet: bool = False
    as_json: bool = False


_settings = OutputSettings()


@contextmanager
def output_as(*, quiet: bool = False, as_json: bool = False) -> Iterator[None]:
    """Use output settings inside of the context.

    If quiet, processes that it starts show no progress bars either.
    """
    global _settings  # noqa: PLW0603 - there is one console
    before, bars = _settings, os.environ.get("SBI_MODELS_PROGRESS")
    _settings = OutputSettings(quiet, as_json)
    if quiet:
        os.environ["SBI_MODELS_PROGRESS"] = "0"
    try:
        with _json_alone() if as_json else nullcontext():
            yield
    finally:
        _settings = before
        if quiet and bars is None:
            del os.environ["SBI_MODELS_PROGRESS"]
        elif bars is not None:
            os.environ["SBI_MODELS_PROGRESS"] = bars


_json_output: TextIO | None = None
"""Stream for JSON, while standard output goes elsewhere."""


@contextmanager
def _json_alone() -> Iterator[None]:
    """Send what else is printed on standard output, also by other processes, to standard error."""
    global _json_output  # noqa: PLW0603 - there is one standard output
    before, stream = _json_output, sys.stdout
    stream.flush()
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # in memory
        _json_output, sys.stdout = stream, sys.stderr
        try:
            yield
        finally:
            _json_output, sys.stdout = before, stream
        return
    copy = os.dup(number)
    os.dup2(sys.stderr.fileno(), number)
    try:
        with open(
            copy, "w", encoding=stream.encoding, errors="backslashreplace", closefd=False
        ) as _json_output:
            yield
    finally:
        stream.flush()
        os.dup2(copy, number)
        os.close(copy)
        _json_output = before


def use_utf8() -> None:
    """Start Python again in UTF-8 mode if the locale has another encoding; the terminal keeps its own.

    Names of folders that the locale cannot read could not be sent to Prefect and MLflow.
    """
    if not sys.flags.utf8_mode and {
        codecs.lookup(code).name for code in (locale.getencoding(), sys.getfilesystemencoding())
    } != {"utf-8"}:
        os.environ["PYTHONUTF8"] = "1"
        if sys.stdout is not None:
            os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this program again


def escape_unencodable() -> None:
    """Write characters that the encoding of standard output or error does not have as escape codes.

    Where a stream is closed, what would go there goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the program ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_settings() -> OutputSettings:
    """The output settings of the present command."""
    return _settings


def progress_console() -> Console:
    """Console for progress: silent if quiet, on standard error if the result is JSON."""
    return Console(soft_wrap=True, highlight=False, stderr=_settings.as_json, quiet=_settings.quiet)


def result_console() -> Console:
    """Console for the result in words: silent if the result is JSON."""
    return Console(soft_wrap=True, highlight=False, quiet=_settings.as_json)


def print_line(console: Console, text: str, *, indent: int = 0) -> None:
    """Print a line with markup; on a narrow terminal it goes on below, indented by so many columns."""
    width, plain = console.width, Text.from_markup(text)
    if not console.is_terminal or plain.cell_len <= width or width <= 2 * indent:
        console.print(text)
        return
    head, rest = plain.divide([indent])
    for number, line in enumerate(rest.wrap(console, width - indent)):
        console.print((head if number == 0 else Text(" " * indent)) + line)


def print_json(content: Mapping[str, Any]) -> None:
    """Print a result as JSON on standard output under `--json`; NaN and infinity become null."""
    if _settings.as_json:
        output = _json_output or sys.stdout
        has_all = (output.encoding or "").lower().replace("-", "") == "utf8"
        output.write(json.dumps(_plain(content), indent=2, ensure_ascii=not has_all) + "\n")


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(name): _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    return content if content is None or isinstance(content, str | int) else str(content)
