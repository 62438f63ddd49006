"""Versions of registered models: aliases with their history, tags and descriptions."""

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import EllipsisType
from typing import Any, Self

from mlflow import MlflowClient

from sbi_models.errors import TrackingError
from sbi_models.tracking.addresses import find_model, find_version, parse_model
from sbi_models.tracking.provenance import user_name
from sbi_models.tracking.redaction import redacted, redacted_setting
from sbi_models.tracking.retries import patiently
from sbi_models.tracking.store import Store

LONGEST_REASON = 4000
"""Characters of the reason for a change of an alias that are kept."""

_MOVED = "moved."


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a registered model; `reused` says that it was registered before.

    `aliases` are those that a registration has pointed to it or, from `version_of`, all that point to it.
    """

    name: str
    version: int
    uri: str
    aliases: tuple[str, ...]
    reused: bool


@dataclass(frozen=True)
class ModelListing:
    """A registered model: its version numbers, newest last, and which version each alias points to."""

    name: str
    versions: tuple[int, ...]
    aliases: dict[str, int]


def version_of(store: Store, uri: str) -> RegisteredModel:
    """The version that models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest names now.

    Raises:
        TrackingError: if there is none.
    """
    parsed = parse_model(uri)
    if parsed is None:
        raise TrackingError(
            "Expected models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest, got "
            f"{redacted(uri)!r}. Say for instance models:/NAME@champion."
        )
    name, alias, version = parsed
    number = int(find_version(store.client, name, alias=alias, version=version).version)
    aliases = find_model(store.client, name).aliases
    return RegisteredModel(
        name,
        number,
        f"models:/{name}/{number}",
        tuple(sorted(key for key, value in aliases.items() if int(value) == number)),
        reused=True,
    )


def alias_of(store: Store, name: str, alias: str) -> int | None:
    """The version of an alias; None if the model has no such alias.

    Raises:
        TrackingError: if there is no such model.
    """
    version = find_model(store.client, name).aliases.get(alias)
    return None if version is None else int(version)


@dataclass(frozen=True)
class AliasMove:
    """One change of an alias of a registered model: time (UTC, ISO 8601), user, versions, reason.

    `before` is None where the alias was new.
    """

    alias: str
    time: str
    by: str
    before: int | None
    after: int
    why: str

    @classmethod
    def now(cls, alias: str, before: int | None, after: int, why: str) -> Self:
        """A change that this process makes now."""
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls(
            alias, at, f"{user_name()}@{socket.gethostname()}", before, after, redacted(why)[:LONGEST_REASON]
        )

    @property
    def tag(self) -> str:
        """The tag of the model that keeps it: no two changes have the same one."""
        return f"{_MOVED}{self.alias}.{self.time.replace('+00:00', 'Z').replace(':', '-')}.{self.after}"


def set_alias(
    store: Store,
    name: str,
    alias: str,
    version: int,
    *,
    why: str = "",
    expected: int | EllipsisType | None = ...,
) -> int | None:
    """Point an alias to a version; the version it pointed to before, None if there was none.

    Every change is kept with time, user and reason (`alias_history`). All happens under the lock of a local
    store. A server has no such lock: of two that set an alias there at once, the last one wins.

    Args:
        store: the store that has the registry.
        name: name of the model.
        alias: alias that is moved.
        version: version that the alias is to point to.
        why: the reason, for the history.
        expected: version that the alias must point to now, None for no version; else nothing is moved, which
            the answer tells.
    """
    find_version(store.client, name, alias=None, version=str(version))
    with store.lock():
        before = alias_of(store, name, alias)
        if before != version and expected in (before, ...):
            point(store.client, AliasMove.now(alias, before, version, why), name)
    return before


def point(client: MlflowClient, move: AliasMove, name: str) -> None:
    """Move an alias of the model `name`, and note it; to be called under the lock of the store."""
    doing = f"point {move.alias!r} to version {move.after} of {name!r}"
    patiently(doing, client.set_registered_model_alias, name, move.alias, str(move.after))
    note_move(client, move, name)


def note_move(client: MlflowClient, move: AliasMove, name: str) -> None:
    """Add a change of an alias to the history of the model `name`."""
    patiently(
        f"note who moved {move.alias!r} of {name!r}",
        client.set_registered_model_tag,
        name,
        move.tag,
        json.dumps(asdict(move)),
    )


def alias_history(store: Store, name: str, alias: str) -> list[AliasMove]:
    """All changes of an alias that were made with `set_alias` and `register`, the oldest first.

    Raises:
        TrackingError: if there is no such model, or somebody has edited a tag with a change.
    """
    tags = find_model(store.client, name).tags
    moves = []
    for key in sorted(key for key in tags if key.startswith(f"{_MOVED}{alias}.")):
        try:
            moves.append(AliasMove(**json.loads(tags[key])))
        except (TypeError, ValueError):
            raise TrackingError(
                f"Expected a change of the alias {alias!r} in the tag {key} of the model {name!r}, "
                "got something else. Delete the tag."
            ) from None
    return moves


def annotate(
    store: Store,
    name: str,
    version: int,
    *,
    tags: Mapping[str, Any] | None = None,
    description: str | None = None,
) -> None:
    """Set or replace tags of a version and its description in markdown, both redacted."""
    find_version(store.client, name, alias=None, version=str(version))
    labels = {key: redacted_setting(key, value) for key, value in (tags or {}).items()}
    patiently(
        f"annotate version {version} of {name!r}",
        write_notes,
        store.client,
        name,
        version,
        labels,
        description,
    )


def write_notes(
    client: MlflowClient, name: str, version: int, labels: Mapping[str, str], description: str | None
) -> None:
    """Write tags and, unless it is None, the description."""
    for key, value in labels.items():
        client.set_model_version_tag(name, str(version), key, value)
    if description is not None:
        client.update_model_version(name, str(version), description=redacted(description))
