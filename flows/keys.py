"""Cache keys: a finished task is used again exactly if its inputs, the settings that matter to it, and its code are the same."""

import ast
import hashlib
import inspect
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import sbi_models
from flows.parameters import Experiment
from flows.plain_study import first_row
from flows.studies import study_of
from sbi_models.simulators import Simulator
from sbi_models.types import Variables

_PACKAGE, _FLOWS = Path(sbi_models.__file__).parent, Path(__file__).parent
_TRAIN = ("seeding.py", "adapters", "networks", "datasets", "approximators", "workflows")
_ANSWER = (*_TRAIN, "simulators", "diagnostics")
_CODE = {
    "simulate": ("seeding.py", "simulators", "datasets"),
    "train": _TRAIN,
    "ensemble": _TRAIN,
    "diagnose": _ANSWER,
    "infer": _ANSWER,
    "compose": _ANSWER,
    "narrow": _ANSWER,
}
_FLOW_CODE = {
    "diagnose": ("diagnosis.py", "members.py", "results.py"),
    "narrow": ("narrowing.py",),
    "infer": ("inference.py", "certificates.py", "reporting.py", "observations.py", "plain_study.py", "results.py"),
    "compose": ("composition.py", "reporting.py", "observations.py", "plain_study.py", "results.py"),
}


@cache
def code_fingerprint(step: str) -> str:
    """sha256 over the code that a step runs; comments and layout do not count."""
    digest = hashlib.sha256()
    for root, entries in ((_PACKAGE, _CODE[step]), (_FLOWS, _FLOW_CODE.get(step, ()))):
        for path in (root / entry for entry in entries):
            for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(f"{file.relative_to(root)} {_code(file)}".encode())
    return digest.hexdigest()


def content_key(step: str, *parts: Any) -> str:
    """Readable name and hash of everything that a step depends on."""
    text = json.dumps([step, code_fingerprint(step), *parts], sort_keys=True, default=str)
    return f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def store_key(experiment: Experiment) -> str:
    """Key of the folder with an experiment's simulations, of which there can always be more."""
    cut = experiment.simulate.rows_per_shard if study_of(experiment).simulator.meta is not None else None  # a batch has a meta draw
    return content_key("simulate", simulator_fingerprint(experiment), experiment.seed, cut)


def simulate_key(experiment: Experiment) -> str:
    """Key of the simulate task: of its folder, and how many simulations there are for each purpose."""
    return content_key("simulate", store_key(experiment), experiment.simulate.model_dump(exclude={"rows_per_shard"}))


def train_key(experiment: Experiment, content_hash: dict[str, str]) -> str:
    """Key of the train task, or of the ensemble task in its place, from the content of the training and validation simulations."""
    roles = [experiment.inference_variables, experiment.summary_variables, experiment.inference_conditions]
    names = study_of(experiment).parameter_names
    simulations = [content_hash["training"], content_hash["validation"]]
    parts = (simulations, roles, names, experiment.seed)
    if experiment.ensemble is None:
        return content_key("train", *parts, experiment.train.model_dump(), experiment.compose is not None)
    members = [[name, member.model_dump()] for name, member in experiment.members.items()]  # their order decides who has which data
    settings = experiment.train.model_dump(exclude={"inference_network", "summary_network"})
    return content_key("ensemble", *parts, settings, members, experiment.ensemble.model_dump(exclude={"size", "members"}))


def diagnose_key(experiment: Experiment, content_hash: dict[str, str], training: dict[str, Any]) -> str:
    """Key of the diagnose task, from the trained file and its history, the test simulations, and what members may disagree on."""
    settings, names = experiment.diagnose.model_dump(), study_of(experiment).parameter_names
    observed = observations_hash(experiment) if experiment.ensemble is not None else None
    return content_key("diagnose", training["key"], training["sha256"], content_hash["test"], experiment.seed, settings, names, observed)


def infer_key(experiment: Experiment, sha256: str) -> str:
    """Key of the infer task, from the trained file, the real observations, and all that tells what they mean."""
    return content_key("infer", sha256, *_question(experiment), experiment.infer.model_dump())


def narrow_key(experiment: Experiment, sha256: str) -> str:
    """Key of the narrow task, from the trained file of the round before."""
    settings = None if experiment.narrow is None else experiment.narrow.model_dump()
    return content_key("narrow", sha256, *_question(experiment), settings)


def compose_key(experiment: Experiment, sha256: str) -> str:
    """Key of the compose task; see `infer_key`."""
    settings = None if experiment.compose is None else experiment.compose.model_dump()
    return content_key("compose", sha256, *_question(experiment), settings)


def _question(experiment: Experiment) -> list[Any]:
    """Simulator, real observations, study and seed: what answers depend on beside a trained model."""
    study = study_of(experiment)
    meaning = [study.parameter_names, [vars(quantity) for quantity in study.quantities], study.data_set_name]
    return [simulator_fingerprint(experiment), observations_hash(experiment), source_fingerprint(type(study)), meaning, experiment.seed]


def observations_hash(experiment: Experiment) -> str:
    """sha256 over labels and values of the real observations."""
    labels, observations = study_of(experiment).observations()
    return hashlib.sha256(json.dumps(labels).encode() + _values(observations)).hexdigest()


def source_fingerprint(definition: "Callable[..., Any] | type") -> str:
    """sha256 over the code of the module that defines something; of nothing where it has no file."""
    module = inspect.getmodule(definition)
    code = "" if module is None or module.__file__ is None else _code(Path(module.__file__))
    return hashlib.sha256(code.encode()).hexdigest()


def simulator_fingerprint(experiment: Experiment) -> str:
    """sha256 over the code of the modules that define the simulator's functions, and over its first row with seed 0.

    The row catches what the code of those modules does not show: constants of objects, and of other modules.
    """
    simulator: Simulator = study_of(experiment).simulator
    digest = hashlib.sha256()
    digest.update(f"{simulator.is_batched} {simulator.block_size} {simulator.failures}".encode())
    for call in (*simulator.calls, *([simulator.meta] if simulator.meta else [])):
        digest.update(source_fingerprint(call.definition).encode())
    digest.update(_values(first_row(simulator)))
    return digest.hexdigest()


def _values(variables: Variables) -> bytes:
    return b"".join(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes() for name, value in sorted(variables.items()))


@cache
def _code(file: Path) -> str:
    """What a source file means, without comments and layout."""
    return ast.dump(ast.parse(file.read_text()))


def file_sha256(path: str | Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
