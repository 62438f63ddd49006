"""The question of a pipeline run: an experiment, and the study that it names."""

import json
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self, cast

from sbi_models.pipeline.experiment.import_paths import load_object
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.simulator_study import PlainStudy, study_simulator
from sbi_models.pipeline.experiment.study import Study
from sbi_models.simulators import NormalProposal, SimulatorWithProposal


@dataclass(frozen=True)
class Question:
    """An experiment with its study, looked up once and handed on to all steps.

    Another process that is sent a question looks the study up itself: settings and proposal travel, the
    functions of a simulator need not.

    Attributes:
        experiment: settings.
        study: simulator, real observations, and the meaning of the parameters.
        proposal: proposal that the simulator draws parameters from in place of its prior, as JSON; None for
            the prior.
    """

    experiment: Experiment
    study: Study
    proposal: dict[str, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _question_again, (self.experiment, self.proposal)

    @property
    def parameters(self) -> list[str]:
        """Names of all components of the inference variables, in order."""
        return [label for labels in self.study.parameter_names.values() for label in labels]

    @property
    def has_observations(self) -> bool:
        """True if there are real data sets."""
        return bool(self.study.observations()[0])

    def with_settings(self, experiment: Experiment) -> Self:
        """The same study with other settings of the run, such as the seed and numbers of a round."""
        return replace(self, experiment=experiment)

    def with_proposal(self, proposal: dict[str, Any]) -> Self:
        """The same question with parameters drawn from a proposal, in place of the prior."""
        original = study_of(self.experiment) if self.proposal is not None else self.study
        study = copy(original)
        study.simulator = SimulatorWithProposal(original.simulator, NormalProposal.from_json(proposal))
        return replace(self, study=study, proposal=proposal)


def question_of(experiment: Experiment) -> Question:
    """The question of an experiment, with the prior of its simulator; errors as for `study_of`."""
    return Question(experiment, study_of(experiment))


def study_of(experiment: Experiment) -> Study:
    """The study that an experiment names, or a plain one of the simulator that it names.

    Raises:
        ConfigurationError: if there is no study at the import path, or no simulator.
    """
    if experiment.study is not None:
        return cast(Study, load_object(experiment.study, experiment.folder))
    assert experiment.simulator is not None, "an experiment has a study or a simulator"
    return PlainStudy(
        experiment, study_simulator(experiment, load_object(experiment.simulator, experiment.folder))
    )


def _question_again(experiment: Experiment, proposal: dict[str, Any] | None) -> Question:
    """The question in a process that it was sent to, looked up once for all tasks there."""
    return _looked_up(experiment.model_dump_json(), None if proposal is None else json.dumps(proposal))


@cache
def _looked_up(settings: str, proposal: str | None) -> Question:
    question = question_of(Experiment.model_validate_json(settings))
    return question if proposal is None else question.with_proposal(json.loads(proposal))
