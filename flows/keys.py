"""Cache keys: a finished task is used again exactly if its inputs, the settings that matter to it, and its code are the same."""

import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import sbi_models
from flows.parameters import Experiment, load_object

_PACKAGE = Path(sbi_models.__file__).parent
_CODE = {
    "simulate": ("seeding.py", "simulators", "datasets"),
    "train": ("seeding.py", "adapters", "networks", "datasets", "approximators", "workflows"),
}


@cache
def code_fingerprint(step: str) -> str:
    """sha256 over the code that a step runs; comments and layout do not count."""
    digest = hashlib.sha256()
    for entry in _CODE[step]:
        path = _PACKAGE / entry
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(_PACKAGE)} {ast.dump(ast.parse(file.read_text()))}".encode())
    return digest.hexdigest()


def content_key(step: str, *parts: Any) -> str:
    """Readable name and hash of everything that a step depends on."""
    text = json.dumps([step, code_fingerprint(step), *parts], sort_keys=True, default=str)
    return f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def simulate_key(experiment: Experiment) -> str:
    """Key of the simulate task."""
    return content_key("simulate", study_source(experiment), experiment.seed, experiment.simulate.model_dump())


def train_key(experiment: Experiment, simulations_hash: str) -> str:
    """Key of the train task."""
    roles = [experiment.inference_variables, experiment.summary_variables, experiment.inference_conditions]
    return content_key("train", simulations_hash, study_source(experiment), roles, experiment.seed, experiment.train.model_dump())


def study_source(experiment: Experiment) -> str:
    """The import path of the study and the sha256 of its module."""
    load_object(experiment.study)
    module = sys.modules[experiment.study.partition(":")[0]]
    return f"{experiment.study} {file_sha256(str(module.__file__))}"


def file_sha256(path: str | Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
