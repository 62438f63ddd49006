"""Keys of metrics, tags and files for names of parameters, data sets and members.

MLflow admits letters, digits, `_ . - / :` and blanks in keys, at most 250 characters, and reads some of them
as paths; some of its databases, and file systems, take "H0" and "h0", or "e" and "é", for the same. So a name
keeps its own letters where it can, and gets a few digits of its hash where another name of the same run would
be taken for it.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

LONGEST = 120
"""Characters of a key, which leaves as many to what stands before and after it."""

_NOT_ADMITTED = re.compile(r"[^\w.\-/]")
_DIGITS = 8


def keys_of(names: Iterable[str], *, reserved: Iterable[str] = ()) -> dict[str, str]:
    """A key of each name, admitted by MLflow and unique up to case, accents and compatible letters.

    What MLflow does not admit, and blanks, become underscores. A plain name is its own key, unless that is
    reserved for something else.

    >>> keys_of(["theta_0", "speed of light", "R0"])
    {'theta_0': 'theta_0', 'speed of light': 'speed_of_light', 'R0': 'R0'}
    >>> keys_of(["H0", "h0"])
    {'H0': 'H0-2a764bcb', 'h0': 'h0'}
    """
    every = list(dict.fromkeys(names))
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(
        every, key=lambda name: (name != _plain(name) or name != name.lower(), name)
    ):  # its own key, if one of them is
        alike[_folded(_plain(name))].append(name)
    used = {_folded(key) for key in reserved}
    keys = {group[0]: _plain(group[0]) for folded, group in alike.items() if folded not in used}
    used |= set(alike)
    for name in (name for group in alike.values() for name in group if name not in keys):
        turn = 0
        while _folded(key := _with_hash(name, turn)) in used:
            turn += 1
        used.add(_folded(key))
        keys[name] = key
    return {name: keys[name] for name in every}


def name_tags(what: str, keys: Mapping[str, str]) -> dict[str, str]:
    """The true names of those that have another key, as tags `WHAT.KEY`, such as `parameter.H0-2a764bcb`."""
    return {f"{what}.{key}": name for name, key in keys.items() if name != key}


def _plain(name: str) -> str:
    text = _NOT_ADMITTED.sub("_", unicodedata.normalize("NFC", name))[:LONGEST] or "_"
    if not all(
        part.strip(".") for part in text.split("/")
    ):  # a path that leads elsewhere, or has other forms
        text = text.replace("/", "_")
    return text if text.strip(".") else text.replace(".", "_")


def _folded(key: str) -> str:
    """What databases and file systems may make of a key: without case, accents and compatible forms."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", key).casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _with_hash(name: str, turn: int) -> str:
    digits = hashlib.sha256(f"{name}\0{turn}".encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    return f"{_plain(name)[: LONGEST - _DIGITS - 1]}-{digits}"
