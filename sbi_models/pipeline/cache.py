"""Cache keys of steps, from their inputs, settings and code.

A finished step is used again exactly if none of these has changed.

Code is all that the module of the step imports, of this package and of the user, without comments and
docstrings; torch and NumPy count by their versions.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.simulator_study import first_rows
from sbi_models.pipeline.import_closure import meaning, package_sources, sources_of
from sbi_models.pipeline.outcomes import file_sha256
from sbi_models.ragged import content
from sbi_models.types import Variables

NUMERICS = ("torch", "numpy")
"""Packages whose other versions give other numbers."""


@cache
def code_fingerprint(module: str) -> str:
    """sha256 over all code of this package that a module of it reaches.

    Comments, docstrings and layout do not count.

    Args:
        module: full name of the module, such as that of a step.
    """
    digest = hashlib.sha256()
    for name, file in package_sources(module).items():
        digest.update(f"{name} {meaning(file)} ".encode())
    return digest.hexdigest()


def content_key(name: str, module: str, *parts: Any) -> str:
    """Readable name and hash of everything that a step depends on.

    Args:
        name: name of the step.
        module: module whose code counts; `__name__` where a step makes its key.
        parts: settings, and hashes of inputs.
    """
    versions = {package: version(package) for package in NUMERICS}
    text = json.dumps([name, code_fingerprint(module), versions, *map(_canonical, parts)], sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _canonical(value: Any) -> Any:
    """Settings as JSON tells them apart: numbers of NumPy and torch as those of Python, 1 and "1" as keys."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _canonical(inner) for key, inner in value.items()}
        pairs = [[_canonical(key), _canonical(inner)] for key, inner in value.items()]
        return {"\0pairs": sorted(pairs, key=partial(json.dumps, sort_keys=True))}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _canonical(value.tolist()) if hasattr(value, "tolist") else {f"\0{type(value)}": repr(value)}


def question_parts(question: Question) -> list[Any]:
    """Simulator, real observations, study and seed: what posteriors depend on beside a trained model."""
    study = question.study
    names = [study.parameter_names, [vars(quantity) for quantity in study.quantities], study.data_set_name]
    return [
        simulator_fingerprint(question),
        observations_hash(question),
        source_fingerprint(type(study)),
        names,
        question.experiment.seed,
    ]


def observations_hash(question: Question) -> str:
    """sha256 over labels and values of the real observations."""
    labels, observations = question.study.observations()
    return hashlib.sha256(json.dumps(labels).encode() + _values(observations)).hexdigest()


def source_fingerprint(*things: Any) -> str:
    """sha256 over the code of the modules that define functions or classes, and of those that they import."""
    digest = hashlib.sha256()
    for name, file in sources_of(things).items():
        digest.update(f"{name} {meaning(file)} ".encode())
    return digest.hexdigest()


def simulator_fingerprint(question: Question) -> str:
    """sha256 over the code of a simulator, what the experiment depends on, and first rows with seed 0.

    The rows, a block of batched functions and one row of others, catch what that code does not show, such as
    constants of objects. Code that was changed after it was imported has a fingerprint that no other process
    finds.
    """
    simulator = question.study.simulator
    digest = hashlib.sha256()
    digest.update(f"{simulator.is_batched} {simulator.block_size} {simulator.failures}".encode())
    digest.update(source_fingerprint(*_definitions(question)).encode())
    if changed := changed_sources(question):
        digest.update(f"{changed} {os.getpid()} {simulator.made_at}".encode())
    digest.update(json.dumps(_surroundings(question.experiment)).encode())
    digest.update(_values(first_rows(simulator)))
    return digest.hexdigest()


def changed_sources(question: Question) -> list[str]:
    """Files of the simulator's code that were changed on disk after this process imported it."""
    made_at = question.study.simulator.made_at
    files = sources_of(_definitions(question)).values()
    return [str(file) for file in files if file.stat().st_mtime > made_at]


def refuse_changed_sources(question: Question) -> None:
    """Raise ConfigurationError if code of the simulator was changed after this process imported it.

    New processes would compute something else.
    """
    if changed := changed_sources(question):
        raise ConfigurationError(
            "Expected the code of the simulator as it was when this process imported it, got "
            f"{', '.join(changed)} changed since. Start again in a new process, or restart the kernel."
        )


def _definitions(question: Question) -> list[Any]:
    """What defines the simulator: its functions, and the module that it is imported from."""
    simulator, experiment = question.study.simulator, question.experiment
    calls = (*simulator.calls, *([simulator.meta] if simulator.meta else []))
    named = (experiment.simulator or experiment.study or "").partition(":")[0]
    return [*(call.definition for call in calls), *([sys.modules[named]] if named in sys.modules else [])]


def _surroundings(experiment: Experiment) -> list[Any]:
    """Files and environment variables that the experiment says its simulator depends on, by their content."""
    files = [[path.relative_to(root).as_posix(), file_sha256(path)] for root, path in depended_on(experiment)]
    return [files, [[name, os.environ.get(name)] for name in experiment.depends_on.variables]]


def depended_on(experiment: Experiment) -> list[tuple[Path, Path]]:
    """Files that `depends_on` names, each with the folder that its name is relative to.

    Raises:
        ConfigurationError: if one is missing.
    """
    files: list[tuple[Path, Path]] = []
    for name in experiment.depends_on.files:
        path = Path(experiment.folder, name)
        if not path.exists():
            raise ConfigurationError(
                f"Expected the file or folder {path} that depends_on names, got none. Correct the name."
            )
        root = (
            Path(experiment.folder)
            if path.is_relative_to(experiment.folder) and not Path(name).is_absolute()
            else path.parent
        )
        inside = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        files += [(root, file) for file in inside]
    return files


def _values(variables: Variables) -> bytes:
    return b"".join(
        f"{name} {value.dtype} {value.shape}".encode() + content(value)
        for name, value in sorted(variables.items())
    )
