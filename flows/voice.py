"""What a command says while it works, what it answers, and where: in words, or as JSON for machines."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
    """Let everything inside speak so; processes that it starts show no progress bars either if it is quiet."""
    global _voice  # noqa: PLW0603 - there is one screen
    before, bars = _voice, os.environ.get("SBI_MODELS_PROGRESS")
    _voice = Voice(quiet, as_json)
    if quiet:
        os.environ["SBI_MODELS_PROGRESS"] = "0"
    try:
        yield
    finally:
        _voice = before
        if quiet and bars is None:
            del os.environ["SBI_MODELS_PROGRESS"]
        elif bars is not None:
            os.environ["SBI_MODELS_PROGRESS"] = bars


def voice() -> Voice:
    """How the present command speaks."""
    return _voice


def stage_console() -> Console:
    """For lines that tell how far a command is: nowhere if it is quiet, beside an answer in JSON on standard error."""
    return Console(soft_wrap=True, highlight=False, stderr=_voice.as_json, quiet=_voice.quiet)


def answer_console() -> Console:
    """For the answer in words: nowhere if it is given as JSON."""
    return Console(soft_wrap=True, highlight=False, quiet=_voice.as_json)


def show(console: Console, text: str, *, indent: int = 0) -> None:
    """A line with markup. On a terminal that is too narrow for it, what does not fit goes on below, that many columns in."""
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
        sys.stdout.write(json.dumps(_plain(content), indent=2, ensure_ascii=False) + "\n")


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(name): _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    return content if content is None or isinstance(content, str | int) else str(content)
