"""Record of a run for its reproduction: the settings, and the modules and observations of a user."""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import sbi_models
from sbi_models.pipeline.cache import code_fingerprint, depended_on, simulator_fingerprint
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.yaml_files import as_yaml
from sbi_models.tracking import Tracker

FOLDER, SETTINGS = "source", "source/experiment.yaml"

OWN = ("sbi_models",)


_PACKAGE = Path(sbi_models.__file__).resolve().parent
"""Folder of this package."""


def record_source(tracker: Tracker, question: Question) -> None:
    """Write `source/` to a run, and tags with the fingerprints of simulator and training code.

    Of the folder of an experiment, those modules are kept that are imported by now, which making the workflow
    has done.
    """
    experiment = question.experiment
    with TemporaryDirectory() as scratch:
        source = Path(scratch) / FOLDER
        source.mkdir()
        if experiment.observations is not None:
            given = Path(experiment.folder, experiment.observations)
            experiment = experiment.model_copy(update={"observations": given.name})
            shutil.copyfile(given, source / given.name)
        for root, path in depended_on(experiment):
            (source / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, source / path.relative_to(root))
        for relative, path in modules_in(experiment.folder).items():
            (source / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, source / relative)
        (Path(scratch) / SETTINGS).write_text(as_yaml(experiment), encoding="utf-8")
        tracker.log_folder(scratch)
    tracker.set_tags(
        {
            "simulator.fingerprint": simulator_fingerprint(question),
            "code.fingerprint": code_fingerprint("sbi_models.pipeline.steps.train"),
        }
    )


def modules_in(folder: str) -> dict[str, Path]:
    """The source files of imported modules below a folder, by their path in it; none for the empty name.

    Installed packages, and this one, are known by their versions.
    """
    if not folder:
        return {}
    root, files = Path(folder).resolve(), {}
    for name, module in sys.modules.copy().items():
        file = Path(getattr(module, "__file__", None) or "")
        if file.suffix != ".py" or not file.is_absolute() or name.partition(".")[0] in OWN:
            continue
        path = file.resolve()
        if path.is_relative_to(_PACKAGE):  # under another name, as MLflow imports the code of a model
            continue
        if path.is_relative_to(root) and path.is_file() and "site-packages" not in path.parts:
            files[path.relative_to(root).as_posix()] = path
    return files
