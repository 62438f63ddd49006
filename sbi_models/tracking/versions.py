"""The versions of registered models: what they are called, who is champion, and notes on them that people read in the UI."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from sbi_models.errors import TrackingError
from sbi_models.tracking.addresses import find_model, find_version, parse_model
from sbi_models.tracking.patience import patiently
from sbi_models.tracking.redaction import redacted, redacted_setting
from sbi_models.tracking.store import Store


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a registered model; `uri` names exactly this version, `reused` says that it was there before.

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
    """The version that models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest names now; a TrackingError if there is none."""
    parsed = parse_model(uri)
    if parsed is None:
        raise TrackingError(
            f"Expected models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest, got {redacted(uri)!r}. Say for instance "
            "models:/NAME@champion."
        )
    name, alias, version = parsed
    number = int(find_version(store.client, name, alias=alias, version=version).version)
    aliases = find_model(store.client, name).aliases
    return RegisteredModel(
        name, number, f"models:/{name}/{number}", tuple(sorted(key for key, value in aliases.items() if int(value) == number)), reused=True
    )


def alias_of(store: Store, name: str, alias: str) -> int | None:
    """The version that the alias points to; None if the model has no such alias. An unknown model is a TrackingError."""
    version = find_model(store.client, name).aliases.get(alias)
    return None if version is None else int(version)


def set_alias(store: Store, name: str, alias: str, version: int) -> int | None:
    """Point the alias to a version, and return which version it pointed to before, for a way back; None if there was no such alias.

    Both happen under the lock of a local store. A server has no such lock: of two that set an alias there at once, the last one wins.
    """
    client = store.client
    find_version(client, name, alias=None, version=str(version))
    with store.lock():
        before = alias_of(store, name, alias)
        if before != version:
            patiently(f"point {alias!r} to version {version} of {name!r}", client.set_registered_model_alias, name, alias, str(version))
    return before


def annotate(store: Store, name: str, version: int, *, tags: Mapping[str, Any] | None = None, description: str | None = None) -> None:
    """Set or replace tags of a version, and its description in markdown, which the UI shows; passwords and tokens are not written."""
    find_version(store.client, name, alias=None, version=str(version))
    labels = {key: redacted_setting(key, value) for key, value in (tags or {}).items()}
    patiently(f"annotate version {version} of {name!r}", write_notes, store.client, name, version, labels, description)


def write_notes(client: MlflowClient, name: str, version: int, labels: Mapping[str, str], description: str | None) -> None:
    """Write tags and, unless it is None, the description."""
    for key, value in labels.items():
        client.set_model_version_tag(name, str(version), key, value)
    if description is not None:
        client.update_model_version(name, str(version), description=redacted(description))
