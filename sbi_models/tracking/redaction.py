"""Redaction of passwords and tokens in texts, settings, JSON and patches."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any
from urllib.parse import quote

MASK = "***"
SHORTEST = 4
"""Values of secret variables that are shorter are not looked for in texts, which would be full of them."""

_NAMES = (
    r"(?:password|passwd|pwd|passphrase|secret|token|credentials?"
    r"|(?:api|access|secret|private)[_-]?key|auth[_-]?string)"
)
_SECRET_NAME = re.compile(rf"(?:^|[._-]){_NAMES}$", re.IGNORECASE)

_FOLDERS = {"PWD", "OLDPWD"}
"""Variables of every shell that are named like secrets, and hold the current folder."""

_SWITCHES = {"true", "false", "none", "null"}
"""Values of variables such as DISABLE_IMPLICIT_TOKEN, which are no secrets."""

_PART = r"(?:[a-z]{1,12}|[A-Z][a-z]{1,11}|[A-Z]{1,12}|\d{1,6})"
_PLAIN = re.compile(rf"{_PART}(?:[_-]{_PART}){{0,3}}")
"""Values that may as well be words or numbers of a text, and names of folders."""

_WORD = r"(?:(?<!\w)|(?<=\\[nrt]))%s(?!\w)"
"""Where such a value is masked in texts: as a whole word, perhaps after \\n in a text that is shown as
code."""

_IN_CODE = r"(?:(?<=[\"'])%s(?=[\"'])|(?<=[=:])%s(?!\w)|(?<=[=:] )%s(?!\w))"
"""Where it is masked in code."""

_LOCAL = re.compile(r"(?:file|sqlite(?:\+\w+)?)://", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_OUTSIDE_A_PATH = r"\s\"'<>|=:@?&,;()\[\]{}*"

_PATTERNS = (
    # user:password@ and token@ in addresses; a password for a database may hold a slash, one for a web server
    # may not
    (re.compile(r"(\bhttps?://)[^\s/@'\"]+@", re.IGNORECASE), rf"\1{MASK}@"),
    (re.compile(r"(\b(?!https?:)[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:)[^\s'\"]*@", re.IGNORECASE), rf"\1{MASK}@"),
    # ?token=..., &X-Amz-Signature=... in addresses
    (
        re.compile(
            rf"([?&;](?:[\w.-]*{_NAMES}|sig|signature|auth|[\w-]*signature|awsaccesskeyid)=)[^\s&#'\"]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # "password": "...", password='...'
    (
        re.compile(rf"(\b[\w.-]*{_NAMES}[\"']?\s*[=:]\s*)([\"'])(?!\2)[^\"'\n]+\2", re.IGNORECASE),
        rf"\1\2{MASK}\2",
    ),
    # NAME_PASSWORD=... of an environment; host=... password=... of a database
    (
        re.compile(
            r"(\b[A-Z0-9_]*(?:PASSWORD|SECRET|TOKEN|API_KEY|ACCESS_KEY|AUTH_STRING)\s*=\s*)[^\s\"',;&]+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"((?:^|\s)(?:ssl)?password=)[^\s\"',;&()]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{MASK}"),
)


def redacted(text: str) -> str:
    """Mask passwords in addresses, keys in queries, assignments, and values of secret variables.

    A folder or file that is called like such a value stays readable where it is part of a path, unless the
    value is no plain word and there is no such folder on this machine.

    >>> redacted("postgresql://anna:hunter2@db:5432/mlflow")
    'postgresql://anna:***@db:5432/mlflow'
    >>> redacted("https://data.example.org/x.npz?version=2&token=abc123")
    'https://data.example.org/x.npz?version=2&token=***'
    """
    for value in _secret_values():
        if value in text:
            text = _without(text, value, _WORD)
    return _without_patterns(text)


def redacted_content(content: Any, name: str = "") -> Any:
    """JSON content with redacted texts, and *** for entries whose key names a secret; keys stay."""
    if isinstance(content, Mapping):
        return {key: redacted_content(value, str(key)) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redacted_content(value, name) for value in content]
    return redacted_setting(name, content) if isinstance(content, str) else content


def redacted_patch(patch: str) -> str:
    """Redact the lines of `git diff --binary`; names of files and binary files stay as they are.

    It has as many lines, so that `git apply` takes it unless a line that was there before has a secret. A
    secret that is a plain word may be a name in code: it is masked in added lines, where it stands in quotes
    or is assigned.
    """
    lines: list[str] = []
    for kind, block in groupby(_kinds(patch.split("\n")), key=lambda pair: pair[0]):
        block_lines = [line for _, line in block]
        lines += block_lines if kind == "" else _redacted_block(kind, block_lines)
    return "\n".join(lines)


def is_secret(name: str) -> bool:
    """Whether a setting or an environment variable of this name holds a secret.

    >>> [is_secret(name) for name in ("PREFECT_API_KEY", "server.password", "num_tokens", "tokenizer")]
    [True, True, False, False]
    """
    return _SECRET_NAME.search(name) is not None


def redacted_setting(name: str, value: object) -> str:
    """The text of a setting, *** if its name says that it is a secret."""
    return MASK if is_secret(name) and value not in (None, "") else redacted(str(value))


def _secret_values() -> list[str]:
    """Values of secret environment variables, also as JSON, code and addresses write them.

    The longest come first, since one may be part of another. Paths of files with secrets are none themselves.
    """
    values: set[str] = set()
    for name, value in os.environ.items():
        if name in _FOLDERS or not is_secret(name) or len(value) < SHORTEST or value.lower() in _SWITCHES:
            continue
        if not (os.path.isabs(value) and os.path.exists(value)):
            values |= {
                value,
                json.dumps(value)[1:-1],
                repr(value)[1:-1],
                quote(value, safe=""),
                *_lines(value),
            }
    return sorted(values, key=lambda value: (-len(value), value))


def _without_patterns(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _lines(value: str) -> Iterable[str]:
    """Of a key of several lines, those that are long enough to be part of it alone."""
    lines = [line.strip() for line in value.splitlines()]
    return (
        [line for line in lines if len(line) >= 16 and not line.startswith("-----")] if len(lines) > 1 else []
    )


def _without(text: str, value: str, plain_form: str | None) -> str:
    """The text without a value; without a form of those that are plain words, they are left."""
    plain = _PLAIN.fullmatch(value) is not None
    if plain and plain_form is None:
        return text
    pattern = (
        plain_form.replace("%s", re.escape(value)) if plain and plain_form is not None else re.escape(value)
    )

    def mask(match: "re.Match[str]") -> str:
        return match[0] if _is_in_a_path(text, match.start(), match.end(), plain=plain) else MASK

    return re.sub(pattern, mask, text)


def _is_in_a_path(text: str, start: int, end: int, *, plain: bool) -> bool:
    """Whether text[start:end] is a folder or file in a path of this machine."""
    if os.sep in text[start:end]:
        return False
    before, after = re.split(r"[\s\"'<>|]", text[:start])[-1], re.split(r"[\s\"'<>|]", text[end:])[0]
    if any(not _LOCAL.match(address[0]) for address in _ADDRESS.finditer(before)):
        return False
    head = re.split(rf"[{_OUTSIDE_A_PATH}]", before)[-1]
    tail = re.split(rf"[{_OUTSIDE_A_PATH}]", after)[0]
    if os.sep not in head + tail:
        return False
    if plain:
        return True
    is_whole = head[-1:] in {"", os.sep} and tail[:1] in {"", os.sep}
    return is_whole and os.path.exists(head + text[start:end])


def _kinds(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each line of a patch with its kind: +, - or blank in a hunk, @, or empty for the rest."""
    hunk = False
    for line in lines:
        if line.startswith(("diff --git ", "GIT binary patch")):
            hunk = False
        elif line.startswith("@@ "):
            hunk = True
            yield "@", line
            continue
        yield (line[:1] if hunk and line[:1] in {"+", "-", " "} else ""), line


def _redacted_block(kind: str, lines: list[str]) -> list[str]:
    """Redact consecutive lines of one kind together, since a secret may span lines."""
    if kind == "@":
        return [
            " @@".join([line.partition(" @@")[0], _redacted_code(line.partition(" @@")[2], kind)])
            for line in lines
        ]
    contents = [line[1:] for line in lines]
    clean = _redacted_code("\n".join(contents), kind).split("\n")
    if len(clean) != len(contents):
        clean = [_redacted_code(line, kind) for line in contents]
    return [kind + line for line in clean]


def _redacted_code(text: str, kind: str) -> str:
    for value in _secret_values():
        if value in text:
            text = _without(text, value, _IN_CODE if kind == "+" else None)
    return _without_patterns(text)
