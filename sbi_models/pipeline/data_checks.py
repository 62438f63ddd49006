"""Early checks of networks, simulator and observations on the first simulation."""

import json
from collections.abc import Iterable

import numpy as np
import torch

from sbi_models.adapters.transforms import transform_to_json
from sbi_models.approximators import Approximator
from sbi_models.datasets.schemas import kind_of
from sbi_models.errors import ConfigurationError, DataError, SbiModelsError
from sbi_models.pipeline.experiment.adapter_steps import adapter_of
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.simulator_study import first_row
from sbi_models.pipeline.learned_likelihood import check_likelihood
from sbi_models.pipeline.steps.simulate import refuse_not_finite
from sbi_models.ragged import axes_of_any_length, fine_rows, is_ragged, padded
from sbi_models.simulators.contexts import several_rows
from sbi_models.types import Variables
from sbi_models.workflows.likelihood.implied import is_likelihood


def check_data(question: Question, approximator: Approximator) -> None:
    """Build an untrained approximator from the first simulation, and let it read the real observations.

    Raises:
        DataError, ConfigurationError: if networks and simulations do not fit together, or observations are
            not numbers of their shapes.
        SimulationError: if the first simulation has values that are not finite.
    """
    study = question.study
    row = first_row(study.simulator)
    names = {*approximator.inference_names, *approximator.condition_names} - approximator.may_miss
    if study.simulator.failures.allowed and not all(
        fine_rows(row[name], np.isfinite).all() for name in names if name in row
    ):
        return  # it may be the one that fails
    refuse_not_finite(question.experiment, study.simulator, row, 0, 0)
    check_steps(question.experiment, approximator, row)
    approximator.build(_rows_for(question, row, names), seed=0)
    try:
        if is_likelihood(approximator):
            return check_likelihood(question, approximator)
        _, observations = study.observations()
        if observations:
            for member in approximator.members.values():
                member.given(observations)
    except DataError as error:
        raise DataError(f"The real observations cannot be used. {error}") from None


def _rows_for(question: Question, row: Variables, names: Iterable[str]) -> Variables:
    """The first simulation, or several if it does not show what lengths observations may have.

    Args:
        question: experiment and study.
        row: the first simulation, which is finite.
        names: variables whose values may not be missing.
    """
    simulator = question.study.simulator
    if simulator.meta is None:
        try:
            _, observations = question.study.observations()
        except DataError:  # refused by the caller
            return row
        known = ((value, row[name]) for name, value in observations.items() if name in row)
        if all(kind_of(value)["shape"] == kind_of(one)["shape"] for value, one in known):
            return row
    rows = several_rows(simulator)
    sure = [fine_rows(rows[name], np.isfinite) for name in names if name in rows]
    fine = np.all(sure, axis=0)
    return {name: value[fine] for name, value in rows.items()} if fine.any() else row


def check_steps(experiment: Experiment, approximator: Approximator, row: Variables) -> None:
    """Take the first simulation, variables (1, ...), raw space, through the adapter.

    Raises:
        ConfigurationError: if a step of the experiment cannot be made; the message has its number.
    """
    steps = adapter_of(experiment.adapter)
    own = [] if steps is None else steps.to_json()
    names = [*approximator.inference_names, *approximator.condition_names]
    rows = {name: row[name] for name in names if name in row}
    for name, value in rows.items():
        if is_ragged(value):
            rows[name], _ = padded(value, axes_of_any_length(value))
    batch = {name: torch.as_tensor(np.asarray(value, dtype=np.float64)) for name, value in rows.items()}
    batch = {name: value[:, None] if value.ndim == 1 else value for name, value in batch.items()}
    number = 0
    for transform in next(iter(approximator.members.values())).adapter.transforms if own else ():
        is_own = number < len(own) and json.dumps(transform_to_json(transform)) == json.dumps(own[number])
        number += is_own
        try:
            batch = transform.fitted(batch).forward(batch)
        except SbiModelsError as error:
            if not is_own:
                raise
            raise ConfigurationError(f"adapter, step {number} ({transform.kind}): {error}") from None
