"""The study of an experiment: the object that it names, or one made of the simulator that it names."""

from copy import copy
from functools import cache
from typing import cast

from sbi_models.pipeline.experiment.import_paths import load_object
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.simulator_study import PlainStudy, study_simulator
from sbi_models.pipeline.experiment.study import Study
from sbi_models.simulators import NormalProposal, Simulator, SimulatorWithProposal


def study_of(experiment: Experiment) -> Study:
    """The study, with a narrow prior once the experiment has one.

    Raises:
        ConfigurationError: if there is no study at the import path, or no simulator.
    """
    if experiment.narrowed_to is not None:
        return _narrowed_study(experiment.model_dump_json())
    if experiment.study is not None:
        return cast(Study, load_object(experiment.study, experiment.folder))
    assert experiment.simulator is not None, "an experiment has a study or a simulator"
    found = study_simulator(experiment, load_object(experiment.simulator, experiment.folder))
    return _plain_study(experiment.model_dump_json(), found)


@cache
def _narrowed_study(settings: str) -> Study:
    experiment = Experiment.model_validate_json(settings)
    assert experiment.narrowed_to is not None
    study = study_of(experiment.model_copy(update={"narrowed_to": None}))
    narrowed = copy(study)
    narrowed.simulator = SimulatorWithProposal(
        study.simulator, NormalProposal.from_json(experiment.narrowed_to)
    )
    return narrowed


@cache
def _plain_study(settings: str, simulator: Simulator) -> Study:
    return PlainStudy(Experiment.model_validate_json(settings), simulator)
