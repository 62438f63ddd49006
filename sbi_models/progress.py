"""Progress bars: a live bar with remaining time on a terminal, occasional lines elsewhere."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""`advance(steps=1, note="")` moves the bar on and shows a short note, such as the loss."""

_SECONDS_BETWEEN_LINES = 10.0


def enabled_by_default() -> bool:
    """Whether progress is shown: not with SBI_MODELS_PROGRESS=0, nor with CI unless that is set."""
    chosen = os.environ.get("SBI_MODELS_PROGRESS")
    return os.environ.get("CI", "").lower() in ("", "0", "false") if chosen is None else chosen != "0"


def tell(text: str) -> None:
    """Show a line on the screen (standard error), where progress is shown."""
    if enabled_by_default():
        Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def progress_bar(
    description: str, total: int, *, done: int = 0, show: bool | None = None
) -> Iterator[Advance]:
    """Show progress over `total` steps, `done` of them finished; yields the function that advances it."""
    if not (enabled_by_default() if show is None else show):
        yield lambda steps=1, note="": None
        return
    console = Console(stderr=True)
    bars = _terminal_bar if console.is_terminal else _plain_lines
    with bars(console, description, total, done) as advance:
        yield advance


@contextmanager
def _terminal_bar(console: Console, description: str, total: int, done: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left  {task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task(description, total=total, completed=done, note="")
        yield lambda steps=1, note="": progress.update(task, advance=steps, note=note)


@contextmanager
def _plain_lines(console: Console, description: str, total: int, done: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    finished = done

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal finished, last
        finished += steps
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and finished < total:
            last = now
            remaining = (now - start) / max(finished - done, 1) * (total - finished)
            clock = f"{int(remaining) // 60}:{int(remaining) % 60:02d}"
            line = f"{description} {finished}/{total}, {clock} remaining" + (f"; {note}" if note else "")
            console.print(line, highlight=False, soft_wrap=True)

    yield advance
