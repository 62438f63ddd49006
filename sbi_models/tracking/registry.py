"""Registration of trained approximators as versions of MLflow models."""

import json
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, TensorSpec
from mlflow.types.schema import Schema

from sbi_models.approximators import Approximator, load_approximator
from sbi_models.errors import ConfigurationError
from sbi_models.tracking.addresses import (
    ARTIFACT_FILE,
    HASH_TAG,
    find_model,
    model_versions,
    registered_models,
    sha256,
)
from sbi_models.tracking.live_metrics import BATCH
from sbi_models.tracking.loading import load
from sbi_models.tracking.provenance import package_versions
from sbi_models.tracking.redaction import redacted_setting
from sbi_models.tracking.retries import patiently
from sbi_models.tracking.store import Store
from sbi_models.tracking.versions import AliasMove, ModelListing, RegisteredModel, point, write_notes
from sbi_models.workflows.likelihood.implied import ImpliedPosterior, is_likelihood

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # MLflow warns about the type hints of its own classes
    import mlflow.pyfunc

__all__ = ["list_models", "load", "register"]

REQUIRED = ("mlflow", "numpy", "safetensors", "sbi-models", "torch")
SERVED = Path(__file__).with_name("served.py")
DEFAULT_SAMPLES = 1000
MODEL_VERSIONS = "mlflow.modelVersions"


def register(
    store: Store,
    name: str,
    approximator_path: Path | str,
    run_id: str,
    *,
    aliases: Sequence[str] = (),
    tags: Mapping[str, Any] | None = None,
    description: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> RegisteredModel:
    """Register an approximator file as the next version of a model, and point aliases to it.

    The run `run_id` is its source.

    If a version with the same content exists, it is used again: the aliases move to it, its tags and
    description (markdown) are updated, and it is an input of the run, whose page then shows it. A
    registration that was interrupted, or whose answer was lost, is found and completed. `metrics` are those
    of MLflow's record of the model, beside which the registered model has a description of what it infers.

    Raises:
        ConfigurationError: if aliases are no sequence.
        ModelFileError: if the file is missing or damaged.
    """
    if isinstance(aliases, str):
        raise ConfigurationError(
            f"Expected aliases as a sequence of names, got {aliases!r}. Pass aliases=({aliases!r},)."
        )
    path = Path(approximator_path)
    approximator = load_approximator(path)
    digest = sha256(path)
    client = store.client
    labels = {**{key: redacted_setting(key, value) for key, value in (tags or {}).items()}, HASH_TAG: digest}
    with store.lock():
        doing = f"register the model {name!r}"
        patiently(doing, _ensure_model, client, name, _about(approximator, name))
        version = patiently(doing, _same_content, client, name, digest)
        reused = version is not None
        if version is None:
            model = patiently(doing, _logged_model, client, name, run_id, labels)
            patiently(doing, _write, client, model, path, run_id, signature_of(approximator))
            patiently(doing, client.finalize_logged_model, model.model_id, "READY")
            version = patiently(doing, _version_of_model, client, model, run_id, labels)
        registered = RegisteredModel(name, version, f"models:/{name}/{version}", tuple(aliases), reused)
        _show(client, registered, run_id, metrics or {})
        patiently(doing, write_notes, client, name, version, labels, description)
        known = find_model(client, name).aliases
        for alias in aliases:
            before = int(known[alias]) if alias in known else None
            if before != version:
                point(client, AliasMove.now(alias, before, version, f"registered by run {run_id}"), name)
    return registered


def list_models(store: Store) -> list[ModelListing]:
    """All registered models, by name."""
    listings = []
    for model in registered_models(store.client):
        versions = sorted(int(entry.version) for entry in model_versions(store.client, model.name))
        listings.append(
            ModelListing(
                model.name, tuple(versions), {key: int(value) for key, value in model.aliases.items()}
            )
        )
    return listings


def signature_of(approximator: Approximator) -> ModelSignature:
    """What the served model takes and gives, all in raw space.

    Inputs: float64, so that dates and frequencies arrive whole, of shape (num_datasets, *shape), where only
    the last axis of a condition is fixed: whether sets and series may be longer or shorter than in training
    is for the approximator to say. Outputs: (num_datasets, num_samples, *shape), float64; none are listed for
    point estimators, whose estimates go by rule and variable. Inputs of a learned likelihood are not listed:
    MLflow would drop its parameters, which are there for a log likelihood only.
    """
    if is_likelihood(approximator):
        return _signature_of_posterior(ImpliedPosterior(approximator))
    conditions, targets = approximator.condition_names, approximator.inference_names
    inputs = [
        _tensor((-1, *(-1 for _ in shape[:-1]), *shape[-1:]), key, conditions)
        for key, shape in _shapes(approximator, conditions)
    ]
    outputs = [_tensor((-1, -1, *shape), key, targets) for key, shape in _shapes(approximator, targets)]
    certificate = ParamSpec("certificate", "boolean", False)
    if not approximator.has_draws:
        return ModelSignature(inputs=Schema(inputs), params=ParamSchema([certificate]))
    return ModelSignature(
        inputs=Schema(inputs), outputs=Schema(outputs), params=ParamSchema([*_params(), certificate])
    )


def _params() -> list[ParamSpec]:
    """What a request for draws may say beside the data."""
    return [
        ParamSpec("num_samples", "long", DEFAULT_SAMPLES),
        ParamSpec("seed", "long", 0),
        ParamSpec("output", "string", "draws"),
    ]


def _signature_of_posterior(posterior: ImpliedPosterior) -> ModelSignature:
    """That of a learned likelihood: of the posterior that it implies."""
    targets = posterior.inference_names
    outputs = [_tensor((-1, -1, *shape), key, targets) for key, shape in _shapes(posterior, targets)]
    params = ParamSchema([*_params(), ParamSpec("certificate", "boolean", False)])
    return ModelSignature(outputs=Schema(outputs), params=params)


def _shapes(
    approximator: Approximator | ImpliedPosterior, names: tuple[str, ...]
) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(approximator.shapes[name])) for name in names]


def _tensor(shape: tuple[int, ...], name: str, names: tuple[str, ...]) -> TensorSpec:
    """A lone tensor has no name, so that it may be passed as an array instead of a dict."""
    return TensorSpec(np.dtype("float64"), shape, name if len(names) > 1 else None)


def _same_content(client: MlflowClient, name: str, digest: str) -> int | None:
    versions = [entry for entry in model_versions(client, name) if entry.tags.get(HASH_TAG) == digest]
    return max((int(entry.version) for entry in versions), default=None)


def _about(approximator: Approximator, name: str) -> str:
    """What a registered model is, in Markdown."""
    targets, conditions = (
        ", ".join(f"`{key}`" for key in keys)
        for keys in (approximator.inference_names, approximator.condition_names)
    )
    if is_likelihood(approximator):
        how = f'`sbi_models.LikelihoodWorkflow(network=sbi_models.load("models:/{name}/latest"))`'
        return (
            f"Likelihood of {targets} given {conditions}, learned from simulations. Draw posteriors, for any "
            f"prior, with `sample` of {how}."
        )
    how = f'`sbi_models.load("models:/{name}/latest").sample(num_samples=1000, conditions=...)`'
    return (
        f"Amortized posterior of {targets} given {conditions}, learned from simulations. Draw from it "
        f"with {how}."
    )


def _ensure_model(client: MlflowClient, name: str, about: str) -> None:
    """Make the registered model; one that is there and has no description gets one."""
    try:
        client.create_registered_model(name, description=about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        if not client.get_registered_model(name).description:
            client.update_registered_model(name, about)


def _show(
    client: MlflowClient, registered: RegisteredModel, run_id: str, metrics: Mapping[str, float]
) -> None:
    """Link the pages of the run and of the model, and give the model its metrics if it has none."""
    doing = f"note what the run {run_id} has to do with {registered.uri}"
    model = patiently(doing, _model_of_version, client, registered)
    if model is None:
        return
    if MODEL_VERSIONS not in model.tags:
        patiently(
            doing,
            client.set_logged_model_tags,
            model.model_id,
            {MODEL_VERSIONS: _as_mlflow_has_it(registered)},
        )
    if registered.reused:
        run = patiently(doing, client.get_run, run_id)
        seen = [
            *(run.outputs.model_outputs if run.outputs else []),
            *(run.inputs.model_inputs if run.inputs else []),
        ]
        if model.model_id not in {other.model_id for other in seen}:
            patiently(doing, client.log_inputs, run_id, models=[LoggedModelInput(model.model_id)])
    if not model.metrics:
        now = int(time.time() * 1000)
        known = {
            key: float(value) for key, value in metrics.items() if np.isfinite(value)
        }  # MLflow makes NaN 0 here
        points = [
            Metric(key, value, now, 0, model_id=model.model_id, run_id=run_id) for key, value in known.items()
        ]
        for begin in range(0, len(points), BATCH):
            patiently(doing, client.log_batch, run_id, metrics=points[begin : begin + BATCH])


def _model_of_version(client: MlflowClient, registered: RegisteredModel) -> LoggedModel | None:
    """MLflow's record of the files of a version; None if another program has registered it."""
    version = client.get_model_version(registered.name, str(registered.version))
    if not version.run_id:
        return None
    experiment = client.get_run(version.run_id).info.experiment_id
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{version.run_id}'")
    return next((model for model in models if model.artifact_location == version.source), None)


def _as_mlflow_has_it(registered: RegisteredModel) -> str:
    """The tag by which MLflow's pages find the registered versions of a model."""
    return json.dumps([{"name": registered.name, "version": registered.version}])


def _logged_model(client: MlflowClient, name: str, run_id: str, labels: Mapping[str, str]) -> LoggedModel:
    """MLflow's logged model of the run: one that an interrupted registration has left, or a new one."""
    run = client.get_run(run_id)
    outputs = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    models = client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'"
    )
    left = [model for model in models if model.name == name and model.tags.get(HASH_TAG) == labels[HASH_TAG]]
    attributes = {"name": name, "source_run_id": run_id, "tags": dict(labels), "model_type": "posterior"}
    model = left[0] if left else client.create_logged_model(run.info.experiment_id, **attributes)
    if model.model_id not in outputs:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def _version_of_model(
    client: MlflowClient, model: LoggedModel, run_id: str, labels: Mapping[str, str]
) -> int:
    number = _same_content(client, model.name, labels[HASH_TAG])
    if number is None:
        # Not models:/<id>: MLflow would look that up in the globally set store, and make one in the current
        # folder.
        attributes = {"run_id": run_id, "tags": dict(labels), "model_id": model.model_id}
        number = int(client.create_model_version(model.name, model.artifact_location, **attributes).version)
    return number


def _write(
    client: MlflowClient, model: LoggedModel, path: Path, run_id: str, signature: ModelSignature
) -> None:
    """Write the files of the model: approximator, `served.py`, signature, requirements."""
    requirements = [
        f"{package}=={number.partition('+')[0]}" for package, number in package_versions(REQUIRED).items()
    ]
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no input example is wanted: the signature says it all
        file = Path(scratch) / Path(ARTIFACT_FILE).name
        shutil.copyfile(path, file)
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(SERVED),
            artifacts={"approximator": str(file)},
            signature=signature,
            pip_requirements=requirements,
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                run_id=run_id,
                model_uuid=model.model_id,
                model_id=model.model_id,
            ),
        )
        for cache in folder.rglob("__pycache__"):
            shutil.rmtree(cache)
        client.log_model_artifacts(model.model_id, str(folder))
