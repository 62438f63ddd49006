"""Cache keys: a finished task is used again exactly if its inputs, the settings that matter to it, and its code are the same."""

import ast
import hashlib
import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import sbi_models
from flows.parameters import Experiment, load_object
from sbi_models.simulators import Simulator

_PACKAGE = Path(sbi_models.__file__).parent
_CODE = {
    "simulate": ("seeding.py", "simulators", "datasets"),
    "train": ("seeding.py", "adapters", "networks", "datasets", "approximators", "workflows"),
}
_CODE["ensemble"] = _CODE["train"]


@cache
def code_fingerprint(step: str) -> str:
    """sha256 over the code that a step runs; comments and layout do not count."""
    digest = hashlib.sha256()
    for entry in _CODE[step]:
        path = _PACKAGE / entry
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(_PACKAGE)} {_code(file)}".encode())
    return digest.hexdigest()


def content_key(step: str, *parts: Any) -> str:
    """Readable name and hash of everything that a step depends on."""
    text = json.dumps([step, code_fingerprint(step), *parts], sort_keys=True, default=str)
    return f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def simulate_key(experiment: Experiment) -> str:
    """Key of the simulate task."""
    return content_key("simulate", simulator_fingerprint(experiment), experiment.seed, experiment.simulate.model_dump())


def train_key(experiment: Experiment, content_hash: dict[str, str]) -> str:
    """Key of the train task, or of the ensemble task in its place, from the content of the training and validation simulations."""
    roles = [experiment.inference_variables, experiment.summary_variables, experiment.inference_conditions]
    names = load_object(experiment.study).parameter_names
    simulations = [content_hash["training"], content_hash["validation"]]
    parts = (simulations, roles, names, experiment.seed)
    if experiment.ensemble is None:
        return content_key("train", *parts, experiment.train.model_dump(), experiment.compose is not None)
    members = [[name, member.model_dump()] for name, member in experiment.members.items()]  # their order decides who has which data
    settings = experiment.train.model_dump(exclude={"inference_network", "summary_network"})
    return content_key("ensemble", *parts, settings, members, experiment.ensemble.model_dump(exclude={"size", "members"}))


def simulator_fingerprint(experiment: Experiment) -> str:
    """sha256 over the code of the modules that define the simulator's functions, and over its first row with seed 0.

    The row catches what the code of those modules does not show: constants of objects, and of other modules.
    """
    simulator: Simulator = load_object(experiment.study).simulator
    digest = hashlib.sha256()
    digest.update(f"{simulator.is_batched} {simulator.block_size} {simulator.failures}".encode())
    for call in (*simulator.calls, *([simulator.meta] if simulator.meta else [])):
        module = inspect.getmodule(call.definition)
        if module is not None and module.__file__ is not None:
            digest.update(_code(Path(module.__file__)).encode())
    for name, value in sorted(simulator.rows(0, 1, seed=0, progress=False).items()):
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()


def _code(file: Path) -> str:
    """What a source file means, without comments and layout."""
    return ast.dump(ast.parse(file.read_text()))


def file_sha256(path: str | Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
