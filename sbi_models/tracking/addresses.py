"""Addresses of models (`models:/...`, `runs:/...`), resolved to the file of an approximator."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from sbi_models.errors import ModelFileError, TrackingError, suggest
from sbi_models.tracking.redaction import redacted
from sbi_models.tracking.retries import patiently
from sbi_models.tracking.store import Store, local_path

ARTIFACT_FILE = "artifacts/approximator.safetensors"
"""Where the approximator lies in every model that `registry.register` writes."""

HASH_TAG = "sbi_models.sha256"

_MODEL = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))")
_LOGGED_MODEL = re.compile(r"models:/+(?P<id>m-[0-9a-f]{32})")
_RUN = re.compile(r"runs:/+(?P<run>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True)
class Location:
    """URI of an approximator file and, for a registered model, its registered SHA-256."""

    uri: str
    sha256: str | None = None


def locate(store: Store, address: str) -> Location:
    """The location of the approximator file of an address.

    Raises:
        TrackingError: if there is none, with what there is instead.
    """
    client = store.client
    if match := _LOGGED_MODEL.fullmatch(address):
        return Location(_logged_model(client, match["id"]))
    if match := _RUN.fullmatch(address):
        return Location(_of_run(client, match["run"], match["path"]))
    if parsed := parse_model(address):
        version = find_version(client, parsed[0], alias=parsed[1], version=parsed[2])
        uri = str(
            patiently(
                f"find the files of {address}",
                client.get_model_version_download_uri,
                version.name,
                version.version,
            )
        )
        folder = _LOGGED_MODEL.fullmatch(uri)
        return Location(
            _logged_model(client, folder["id"]) if folder else f"{uri}/{ARTIFACT_FILE}",
            version.tags.get(HASH_TAG),
        )
    raise TrackingError(
        "Expected models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/NAME or "
        f"runs:/RUN_ID/FILE.safetensors, got {redacted(address)!r}."
    )


def parse_model(address: str) -> tuple[str, str | None, str | None] | None:
    """Name, alias and version in models:/NAME@ALIAS or models:/NAME/VERSION; None for other addresses."""
    match = _MODEL.fullmatch(address)
    return match and (match["name"], match["alias"], match["version"])


def find_version(client: MlflowClient, name: str, *, alias: str | None, version: str | None) -> ModelVersion:
    """The version of a registered model that has this alias, or this number ("latest" for the highest)."""
    model = find_model(client, name)
    if alias is not None:
        if alias not in model.aliases:
            raise TrackingError(f"Model {name!r} has no alias {alias!r}. {suggest(alias, model.aliases)}")
        version = str(model.aliases[alias])
    versions = {str(entry.version): entry for entry in model_versions(client, name)}
    if version == "latest" and versions:
        version = max(versions, key=int)
    if version not in versions:
        known = ", ".join(sorted(versions, key=int)) or "none"
        raise TrackingError(f"Model {name!r} has no version {version!r}. Known: {known}.")
    return versions[version]


def find_model(client: MlflowClient, name: str) -> RegisteredModel:
    """The registered model `name`; a TrackingError that lists the known ones if there is none."""
    model_or_none = patiently(f"look up model {name!r}", _model_or_none, client, name)
    if model_or_none is not None:
        return model_or_none
    known = [model.name for model in registered_models(client)]
    raise TrackingError(f"There is no registered model {name!r}. {suggest(name, known)}")


def registered_models(client: MlflowClient) -> list[RegisteredModel]:
    """All registered models, by name."""
    search = partial(client.search_registered_models, order_by=["name ASC"])
    return patiently("list the registered models", _all_pages, search)


def model_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model; none if there is no such model."""
    return patiently(
        f"list the versions of model {name!r}",
        _all_pages,
        partial(client.search_model_versions, f"name='{name}'"),
    )


def _all_pages(search: Callable[..., Any]) -> list[Any]:
    entries: list[Any] = []
    token = None
    while True:
        page = search(page_token=token)
        entries += page
        token = page.token
        if not token:
            return entries


def _model_or_none(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return None


def fetch(store: Store, location: Location, scratch: Path) -> Path:
    """The local path of a file, downloaded into `scratch` if need be; its hash is verified."""
    path = local_path(location.uri)
    if path is None:
        given = {"artifact_uri": location.uri, "dst_path": str(scratch), "tracking_uri": store.tracking_uri}
        path = Path(patiently(f"download {location.uri}", download_artifacts, **given))
    if not path.is_file():
        raise TrackingError(
            f"Expected an approximator file at {redacted(location.uri)}, got none. Was it moved, "
            "or registered by another program?"
        )
    if location.sha256 is not None and (got := sha256(path)) != location.sha256:
        raise ModelFileError(
            f"Expected the approximator with SHA-256 {location.sha256[:12]}... that was registered, got "
            f"{got[:12]}...: {path} was changed since. Register it again if that was meant."
        )
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _logged_model(client: MlflowClient, model_id: str) -> str:
    model = patiently(f"find the model {model_id}", client.get_logged_model, model_id)
    return f"{model.artifact_location}/{ARTIFACT_FILE}"


def _of_run(client: MlflowClient, run_id: str, path: str) -> str:
    """URI of a file of a run (`path` ends in .safetensors) or of its newest model of that name."""
    run = patiently(f"find the run {run_id!r}", client.get_run, run_id)
    if path.endswith(".safetensors"):
        return f"{run.info.artifact_uri}/{path}"
    outputs, inputs = (
        run.outputs.model_outputs if run.outputs else [],
        run.inputs.model_inputs if run.inputs else [],
    )
    models = [
        patiently(f"find the models of run {run_id!r}", client.get_logged_model, model.model_id)
        for model in outputs or inputs
    ]
    named = [model for model in models if model.name == path]
    if not named:
        raise TrackingError(
            f"Run {run_id!r} has logged no model {path!r}. {suggest(path, {model.name for model in models})}"
        )
    newest = max(named, key=lambda model: model.creation_timestamp)
    return f"{newest.artifact_location}/{ARTIFACT_FILE}"
