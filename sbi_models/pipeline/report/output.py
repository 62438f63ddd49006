"""What a command says while it works, what it answers, and where: in words, or as JSON for machines."""

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
class Voice:
    """How a command speaks: without lines and bars that tell how far it is; with its answer as JSON."""

    quiet: bool = False
    as_json: bool = False


_voice = Voice()


@contextmanager
def speaking(*, quiet: bool = False, as_json: bool = False) -> Iterator[None]:
    """Let everything inside speak so; processes that it starts show no progress bars either if it is
    quiet."""
    global _voice  # noqa: PLW0603 - there is one screen
    before, bars = _voice, os.environ.get("SBI_MODELS_PROGRESS")
    _voice = Voice(quiet, as_json)
    if quiet:
        os.environ["SBI_MODELS_PROGRESS"] = "0"
    try:
        with _answer_alone() if as_json else nullcontext():
            yield
    finally:
        _voice = before
        if quiet and bars is None:
            del os.environ["SBI_MODELS_PROGRESS"]
        elif bars is not None:
            os.environ["SBI_MODELS_PROGRESS"] = bars


_answers: TextIO | None = None
"""Where answers in JSON go, if what is printed meanwhile goes elsewhere."""


@contextmanager
def _answer_alone() -> Iterator[None]:
    """Sends what simulators, and processes that they start, print on standard output to standard error, so
    that the answer is alone."""
    global _answers  # noqa: PLW0603 - there is one standard output
    before, own = _answers, sys.stdout
    own.flush()
    try:
        number = own.fileno()
    except (OSError, ValueError):  # in memory
        _answers, sys.stdout = own, sys.stderr
        try:
            yield
        finally:
            _answers, sys.stdout = before, own
        return
    kept = os.dup(number)
    os.dup2(sys.stderr.fileno(), number)
    try:
        with open(kept, "w", encoding=own.encoding, errors="backslashreplace", closefd=False) as _answers:
            yield
    finally:
        own.flush()
        os.dup2(kept, number)
        os.close(kept)
        _answers = before


def use_utf8() -> None:
    """Begin anew with names and contents of files in UTF-8 if the locale says otherwise; what goes to the
    screen stays as the locale says.

    Names of folders that the locale cannot read could not be sent to Prefect and MLflow.
    """
    if not sys.flags.utf8_mode and {
        codecs.lookup(code).name for code in (locale.getencoding(), sys.getfilesystemencoding())
    } != {"utf-8"}:
        os.environ["PYTHONUTF8"] = "1"
        if sys.stdout is not None:
            os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this program again


def admit_all_letters() -> None:
    """Let standard output and error take letters that their encoding does not have, such as Greek ones in
    Latin-1, as codes.

    Where a stream is closed, what would go there goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the program ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def voice() -> Voice:
    """How the present command speaks."""
    return _voice


def stage_console() -> Console:
    """For lines that tell how far a command is: nowhere if it is quiet, beside an answer in JSON on standard
    error."""
    return Console(soft_wrap=True, highlight=False, stderr=_voice.as_json, quiet=_voice.quiet)


def answer_console() -> Console:
    """For the answer in words: nowhere if it is given as JSON."""
    return Console(soft_wrap=True, highlight=False, quiet=_voice.as_json)


def show(console: Console, text: str, *, indent: int = 0) -> None:
    """A line with markup. On a terminal that is too narrow for it, what does not fit goes on below, that many
    columns in."""
    width, plain = console.width, Text.from_markup(text)
    if not console.is_terminal or plain.cell_len <= width or width <= 2 * indent:
        console.print(text)
        return
    head, rest = plain.divide([indent])
    for number, line in enumerate(rest.wrap(console, width - indent)):
        console.print((head if number == 0 else Text(" " * indent)) + line)


def answer_json(content: Mapping[str, Any]) -> None:
    """The answer as JSON on standard output, if it is wanted so; numbers that JSON does not have are null."""
    if _voice.as_json:
        output = _answers or sys.stdout
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
