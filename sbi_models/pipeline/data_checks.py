"""Early checks of networks, simulator and observations on the first simulation."""

import numpy as np

from sbi_models.approximators import Approximator
from sbi_models.errors import DataError
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.simulator_study import first_row
from sbi_models.pipeline.steps.simulate import refuse_not_finite


def check_data(question: Question, approximator: Approximator) -> None:
    """Build an untrained approximator from the first simulation, and let it read the real observations.

    Raises:
        DataError, ConfigurationError: if networks and simulations do not fit together, or observations are
            not numbers of their shapes.
        SimulationError: if the first simulation has values that are not finite.
    """
    study = question.study
    row = first_row(study.simulator)
    names = [*approximator.inference_names, *approximator.condition_names]
    if study.simulator.failures.allowed and not all(
        np.isfinite(row[name]).all() for name in names if name in row
    ):
        return  # it may be the one that fails
    refuse_not_finite(question.experiment.variables, study.simulator, row, 0, 0)
    approximator.build(row, seed=0)
    try:
        _, observations = study.observations()
        if observations:
            for member in approximator.members.values():
                member.given(observations)
    except DataError as error:
        raise DataError(f"The real observations cannot be used. {error}") from None
