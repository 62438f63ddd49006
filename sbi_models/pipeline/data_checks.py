"""What would fail after the simulations is found before them: networks, data and simulator are tried on the
first simulation."""

import numpy as np

from sbi_models.approximators import Approximator
from sbi_models.errors import DataError, SimulationError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.simulator_study import first_row
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.simulators import Simulator
from sbi_models.types import Variables


def check_data(experiment: Experiment, approximator: Approximator) -> None:
    """Build an untrained approximator from the first simulation, and let its networks read the real
    observations.

    Raises:
        DataError, ConfigurationError: if networks and simulations do not fit together, or observations are
            not numbers of their shapes.
        SimulationError: if the first simulation has values that are not finite.
    """
    study = study_of(experiment)
    row = first_row(study.simulator)
    names = [*approximator.inference_names, *approximator.condition_names]
    if study.simulator.failures.allowed and not all(
        np.isfinite(row[name]).all() for name in names if name in row
    ):
        return  # it may be the one that fails
    refuse_not_finite(experiment, study.simulator, row, 0, 0)
    approximator.build(row, seed=0)
    try:
        _, observations = study.observations()
        if observations:
            for member in approximator.members.values():
                member.given(observations)
    except DataError as error:
        raise DataError(f"The real observations cannot be used. {error}") from None


def refuse_not_finite(
    experiment: Experiment, simulator: Simulator, rows: Variables, start: int, seed: int
) -> None:
    """Raise SimulationError if rows of the table of a seed, from a first one on, have NaN or inf, which no
    training of a run takes."""
    names = (*experiment.inference_variables, *experiment.summary_variables, *experiment.inference_conditions)
    for name in (name for name in names if name in rows):
        bad = np.flatnonzero(~np.isfinite(rows[name]).reshape(len(rows[name]), -1).all(axis=1))
        if bad.size:
            row, total = start + int(bad[0]), len(rows[name])
            failed = ", which failed for good" if row in simulator.last_report.failed else ""
            raise SimulationError(
                f"Expected finite numbers in {name!r} of each simulation, got NaN or inf in {bad.size} of "
                f"{total}, such as row {row} of seed {seed}{failed}. See it again with "
                f"simulator.rows({row}, {row + 1}, seed={seed}). Mend the simulator, or have such "
                "simulations drawn again: make_simulator(..., failures=FailurePolicy(retries=3, "
                "non_finite=True))."
            )
