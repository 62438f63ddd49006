"""Command `champions`: who was champion of a model, since when, by whom and why."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from sbi_models.pipeline.champions import CHAMPION, champion_of, is_chain, minute
from sbi_models.pipeline.report.output import print_json, result_console
from sbi_models.tracking import Store, alias_history


def show_history(store: Store, name: str) -> None:
    """Print who was champion, since when, by whom and why, the newest last; as words or JSON."""
    champion, moves = champion_of(store, name), alias_history(store, name, CHAMPION)
    known = champion == (moves[-1].after if moves else None)
    print_json(
        {
            "model": name,
            "champion": champion,
            "history": [
                {"time": m.time, "by": m.by, "from": m.before, "to": m.after, "why": m.why} for m in moves
            ],
            "history_is_complete": known and is_chain(moves),
        }
    )
    console = result_console()
    table = Table("when", "champion", "before", "by", "why", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for move in moves:
        cells: list[Any] = [
            minute(move.time),
            move.after,
            "none" if move.before is None else move.before,
            move.by,
            move.why,
        ]
        table.add_row(*(escape(str(cell)) for cell in cells))
    if moves:
        console.print(table)
    console.print(
        f"\n{escape(name)}: {'no champion' if champion is None else f'version {champion} is the champion'}"
    )
    if not (known and is_chain(moves)):
        console.print(
            "[yellow]The history has gaps: another program has moved the alias, or it is of an "
            "earlier release.[/yellow]"
        )
