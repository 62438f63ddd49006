"""Champions of registered models: how one takes over from another, by the gate or by hand."""

from datetime import datetime
from types import EllipsisType

from sbi_models.tracking import AliasMove, Store, alias_history, alias_of, annotate, set_alias
from sbi_models.tracking.addresses import model_versions
from sbi_models.tracking.versions import note_move

CHAMPION = "champion"

REFERENCE = "gate.reference"
"""Tag of a champion that has only shown not to be worse than the version of this number: the next one is
compared with both."""

_HEAD = "**Champion**"


def champion_of(store: Store, name: str) -> int | None:
    """The version that is champion now; None if there is none."""
    return alias_of(store, name, CHAMPION)


def was_champion(store: Store, name: str, version: int) -> bool:
    """Whether a version was champion at any time: by the history, or by what earlier releases have noted."""
    moves = alias_history(store, name, CHAMPION)
    return (
        any(version in (move.before, move.after) for move in moves)
        or _tags(store, name, version).get("gate") == "passed"
    )


def crown(
    store: Store,
    name: str,
    version: int,
    *,
    reasons: list[str],
    why: str,
    expected: int | EllipsisType | None = ...,
) -> int | None:
    """Make a version the champion, and let the descriptions of all versions say so.

    Args:
        store: the store that has the registry.
        name: name of the model.
        version: version that becomes champion.
        reasons: sentences for the description of the version.
        why: reason in a few words, for the history.
        expected: the champion that was judged; where another one has come meanwhile, nothing is done.

    Returns:
        The champion until then, None without one.
    """
    before = set_alias(store, name, CHAMPION, version, why=why, expected=expected)
    if expected in (before, ...) and before != version:
        tags = {"gate": "passed", "gate.reason": "; ".join(reasons)}
        annotate(store, name, version, tags=tags, description=_champion_text(store, name, version, reasons))
    follow_alias(store, name)
    return before


def follow_alias(store: Store, name: str) -> None:
    """Let the descriptions of all versions say who is champion, and who was until when.

    This holds whoever has moved the alias.

    A champion whose coming is not in the history, since another program moved the alias, is noted there.
    """
    champion, moves = champion_of(store, name), alias_history(store, name, CHAMPION)
    if champion is not None and (not moves or moves[-1].after != champion):
        why = "found as champion: another program has moved the alias, or a process was killed as it did"
        with store.lock():
            note_move(
                store.client, AliasMove.now(CHAMPION, moves[-1].after if moves else None, champion, why), name
            )
        moves = alias_history(store, name, CHAMPION)
    for entry in model_versions(store.client, name):
        number, text = int(entry.version), entry.description or ""
        is_head, rest = text.startswith(_HEAD), text.partition("\n")[2]
        if number == champion and not is_head:
            annotate(
                store,
                name,
                number,
                description=f"{_HEAD} since {minute(moves[-1].time)}.\n\n{text}".rstrip(),
            )
        elif number != champion and is_head:
            annotate(
                store, name, number, description=f"{_farewell(moves, number, champion)}\n{rest}".rstrip()
            )


def promote(store: Store, name: str, version: int, *, why: str = "") -> int | None:
    """Make a version the champion by hand; returns the version that was champion until then.

    Later challengers are compared with it alone. The gate makes no version champion again that was one
    before.
    """
    reason = "promoted by hand" + (f": {why}" if why else "")
    before = crown(store, name, version, reasons=[reason], why=reason)
    if before != version:
        set_reference(store, name, version, None)
    return before


def reference_of(store: Store, name: str, champion: int) -> int | None:
    """The version that a champion was only shown not to be worse than; None without one."""
    reference = _tags(store, name, champion).get(REFERENCE)
    return None if reference is None else int(reference)


def set_reference(store: Store, name: str, version: int, reference: int | None) -> None:
    """Note the version that a champion is measured by; None: it is the measure itself."""
    if reference is not None:
        annotate(store, name, version, tags={REFERENCE: reference})
    elif reference_of(store, name, version) is not None:
        store.client.delete_model_version_tag(name, str(version), REFERENCE)


def _champion_text(store: Store, name: str, version: int, reasons: list[str]) -> str:
    since = alias_history(store, name, CHAMPION)[-1].time
    return "\n".join(
        [f"{_HEAD} since {minute(since)}: version {version}.", "", *(f"- {reason}" for reason in reasons)]
    )


def is_chain(moves: list[AliasMove]) -> bool:
    """True if each move of an alias starts where the one before ended."""
    return all(move.before == (moves[i - 1].after if i else None) for i, move in enumerate(moves))


def _farewell(moves: list[AliasMove], version: int, champion: int | None) -> str:
    """The first line of the description of a version that was champion."""
    left = [move for move in moves if move.before == version and move.after != version]
    if left:
        return f"Was champion until {minute(left[-1].time)}, when version {left[-1].after} took over."
    return "Was champion, until when is not known" + (
        "." if champion is None else f"; version {champion} is now."
    )


def _tags(store: Store, name: str, version: int) -> dict[str, str]:
    return dict(store.client.get_model_version(name, str(version)).tags)


def minute(time: str) -> str:
    """A time of the history, to the minute."""
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M UTC}"
