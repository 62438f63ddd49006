"""The members of an ensemble, each trained in a process of its own where the engine has processes."""

from typing import Any

from sbi_models.errors import DataError, TrainingError
from sbi_models.pipeline import tasks
from sbi_models.pipeline.cache import train_key
from sbi_models.pipeline.engines import ATTEMPTS, spread
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.runtime import project_root, work_folder
from sbi_models.pipeline.steps.train import part_path


def train_members(experiment: Experiment, simulations: dict[str, Any], run_id: str) -> None:
    """Train the members that are not trained yet, on the engine of an experiment; threads leave that to the
    task `ensemble`.

    Raises:
        TrainingError: if workers die again and again.
    """
    if experiment.ensemble is None or experiment.engine.kind == "threads":
        return
    key, in_vain = train_key(experiment, simulations["content_hash"]), 0
    if (work_folder() / key / f"{experiment.name}.safetensors").is_file():
        return
    while left := [name for name in experiment.members if not part_path(key, name).is_file()]:
        common = {
            "experiment": experiment,
            "simulations": simulations,
            "run_id": run_id,
            "root": str(project_root()),
        }
        calls = [common | {"member": name} for name in left]
        lost = spread(tasks.train_member, calls, experiment.engine, "train members", folder=work_folder())
        absent = [name for name in left if not part_path(key, name).is_file()]
        if len(absent) > lost:
            raise DataError(
                f"Expected the trained members {', '.join(left)} in {work_folder()}, got {len(absent)} "
                f"less, though the engine {experiment.engine.kind} says that they are there: do its workers "
                "share this folder? Mount it on their machines."
            )
        in_vain = in_vain + 1 if lost == len(left) else 0
        if in_vain == ATTEMPTS:
            raise TrainingError(
                f"Workers of the engine {experiment.engine.kind} died {ATTEMPTS} times while they trained "
                f"members. Is there memory for {len(left)} of them? Use fewer workers. Finished members and "
                "epochs are kept."
            )
