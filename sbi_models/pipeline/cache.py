"""Cache keys: a finished task is used again exactly if its inputs, the settings that matter to it, and its
code are the same."""

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import sbi_models
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.simulator_study import first_rows
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.import_closure import meaning, sources_of
from sbi_models.simulators import Simulator
from sbi_models.types import Variables

_PACKAGE, _PIPELINE = Path(sbi_models.__file__).parent, Path(__file__).parent
_TRAIN = ("seeding.py", "adapters", "networks", "datasets", "approximators", "training", "workflows")
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
    "diagnose": ("steps/diagnose.py", "member_runs.py", "outcomes.py"),
    "narrow": ("steps/sequential.py",),
    "infer": (
        "steps/infer.py",
        "steps/certify.py",
        "report/posteriors.py",
        "experiment/observations.py",
        "experiment/simulator_study.py",
        "outcomes.py",
    ),
    "compose": (
        "steps/compose.py",
        "report/posteriors.py",
        "experiment/observations.py",
        "experiment/simulator_study.py",
        "outcomes.py",
    ),
}


@cache
def code_fingerprint(step: str) -> str:
    """sha256 over the code that a step runs; comments and layout do not count."""
    digest = hashlib.sha256()
    for root, entries in ((_PACKAGE, _CODE[step]), (_PIPELINE, _FLOW_CODE.get(step, ()))):
        for path in (root / entry for entry in entries):
            for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(f"{file.relative_to(root)} {meaning(file)}".encode())
    return digest.hexdigest()


def content_key(step: str, *parts: Any) -> str:
    """Readable name and hash of everything that a step depends on."""
    text = json.dumps([step, code_fingerprint(step), *parts], sort_keys=True, default=str)
    return f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def store_key(experiment: Experiment) -> str:
    """Key of the folder with an experiment's simulations, of which there can always be more."""
    cut = (
        experiment.simulate.rows_per_shard if study_of(experiment).simulator.meta is not None else None
    )  # a batch has a meta draw
    return content_key("simulate", simulator_fingerprint(experiment), experiment.seed, cut)


def simulate_key(experiment: Experiment) -> str:
    """Key of the simulate task: of its folder, and how many simulations there are for each purpose."""
    return content_key(
        "simulate", store_key(experiment), experiment.simulate.model_dump(exclude={"rows_per_shard"})
    )


def train_key(experiment: Experiment, content_hash: dict[str, str]) -> str:
    """Key of the train task, or of the ensemble task in its place, from the content of the training and
    validation simulations."""
    roles = [experiment.inference_variables, experiment.summary_variables, experiment.inference_conditions]
    names = study_of(experiment).parameter_names
    simulations = [content_hash["training"], content_hash["validation"]]
    parts = (simulations, roles, names, experiment.seed)
    if experiment.ensemble is None:
        return content_key("train", *parts, experiment.train.model_dump(), experiment.compose is not None)
    members = [
        [name, member.model_dump()] for name, member in experiment.members.items()
    ]  # their order decides who has which data
    settings = experiment.train.model_dump(exclude={"inference_network", "summary_network"})
    return content_key(
        "ensemble", *parts, settings, members, experiment.ensemble.model_dump(exclude={"size", "members"})
    )


def diagnose_key(experiment: Experiment, content_hash: dict[str, str], training: dict[str, Any]) -> str:
    """Key of the diagnose task, from the trained file and its history, the test simulations, and what members
    may disagree on."""
    settings, names = experiment.diagnose.model_dump(), study_of(experiment).parameter_names
    observed = observations_hash(experiment) if experiment.ensemble is not None else None
    return content_key(
        "diagnose",
        training["key"],
        training["sha256"],
        content_hash["test"],
        experiment.seed,
        settings,
        names,
        observed,
    )


def infer_key(experiment: Experiment, sha256: str) -> str:
    """Key of the infer task, from the trained file, the real observations, and all that tells what they
    mean."""
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
    return [
        simulator_fingerprint(experiment),
        observations_hash(experiment),
        source_fingerprint(type(study)),
        meaning,
        experiment.seed,
    ]


def observations_hash(experiment: Experiment) -> str:
    """sha256 over labels and values of the real observations."""
    labels, observations = study_of(experiment).observations()
    return hashlib.sha256(json.dumps(labels).encode() + _values(observations)).hexdigest()


def source_fingerprint(*things: Any) -> str:
    """sha256 over the code of the modules that define functions or classes, and of the user's modules that
    these import."""
    digest = hashlib.sha256()
    for name, file in sources_of(things).items():
        digest.update(f"{name} {meaning(file)} ".encode())
    return digest.hexdigest()


def simulator_fingerprint(experiment: Experiment) -> str:
    """sha256 over the code that the simulator leads to, over what the experiment depends on, and over first
    rows with seed 0.

    The rows, a block of batched functions and one row of others, catch what that code does not show, such as
    constants of objects. Code that was changed after it was imported has a fingerprint that no other process
    finds.
    """
    simulator: Simulator = study_of(experiment).simulator
    digest = hashlib.sha256()
    digest.update(f"{simulator.is_batched} {simulator.block_size} {simulator.failures}".encode())
    digest.update(source_fingerprint(*_definitions(experiment)).encode())
    if changed := changed_sources(experiment):
        digest.update(f"{changed} {os.getpid()} {simulator.made_at}".encode())
    digest.update(json.dumps(_surroundings(experiment)).encode())
    digest.update(_values(first_rows(simulator)))
    return digest.hexdigest()


def changed_sources(experiment: Experiment) -> list[str]:
    """Files of the simulator's code that were changed after it was imported here: what it does is no longer
    what they say."""
    made_at = study_of(experiment).simulator.made_at
    files = sources_of(_definitions(experiment)).values()
    return [str(file) for file in files if file.stat().st_mtime > made_at]


def refuse_changed_sources(experiment: Experiment) -> None:
    """Raise ConfigurationError if code that this process has imported was changed since: new processes would
    compute something else."""
    if changed := changed_sources(experiment):
        raise ConfigurationError(
            "Expected the code of the simulator as it was when this process imported it, got "
            f"{', '.join(changed)} changed since. Start again in a new process, or restart the kernel."
        )


def _definitions(experiment: Experiment) -> list[Any]:
    """What defines the simulator: its functions, and the module that it is imported from."""
    simulator = study_of(experiment).simulator
    calls = (*simulator.calls, *([simulator.meta] if simulator.meta else []))
    named = (experiment.simulator or experiment.study or "").partition(":")[0]
    return [*(call.definition for call in calls), *([sys.modules[named]] if named in sys.modules else [])]


def _surroundings(experiment: Experiment) -> list[Any]:
    """Files and environment variables that the experiment says its simulator depends on, by their content."""
    files = [[path.relative_to(root).as_posix(), file_sha256(path)] for root, path in depended_on(experiment)]
    return [files, [[name, os.environ.get(name)] for name in experiment.depends_on.variables]]


def depended_on(experiment: Experiment) -> list[tuple[Path, Path]]:
    """Each file that the experiment says its simulator depends on, with the folder that its name is relative
    to.

    Raises:
        ConfigurationError: if one is missing.
    """
    found = []
    for name in experiment.depends_on.files:
        path = Path(experiment.folder, name)
        if not path.exists():
            raise ConfigurationError(
                f"Expected the file or folder {path} that depends_on names, got none. Mend the name."
            )
        root = (
            Path(experiment.folder)
            if path.is_relative_to(experiment.folder) and not Path(name).is_absolute()
            else path.parent
        )
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        found += [(root, file) for file in files]
    return found


def _values(variables: Variables) -> bytes:
    return b"".join(
        f"{name} {value.dtype} {value.shape}".encode() + value.tobytes()
        for name, value in sorted(variables.items())
    )


def file_sha256(path: str | Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
