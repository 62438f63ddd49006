"""The study of an experiment that names a simulator, and perhaps a file with real observations."""

from functools import cache, partial
from pathlib import Path

import numpy as np

from sbi_models.datasets import read_file
from sbi_models.datasets.schemas import is_open, kind_of
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.pipeline.experiment.observations import read_observations
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study import Quantity, Reference
from sbi_models.ragged import joined
from sbi_models.simulators import Simulator
from sbi_models.simulators.contexts import several_rows
from sbi_models.types import Array, Variables


class PlainStudy:
    """Study of a simulator: the posterior is reported for the parameters themselves.

    Without a file of observations there are no real data sets.
    """

    data_set_name = "data set"

    def __init__(self, experiment: Experiment, simulator: Simulator) -> None:
        self.simulator = simulator
        self._experiment = experiment
        self._row = first_row(simulator)
        for name in (*experiment.inference_variables, *self._condition_names, *experiment.parameter_names):
            if name not in self._row:
                raise ConfigurationError(
                    f"The simulator {experiment.simulator} has no variable {name!r}. "
                    f"{suggest(name, self._row)}"
                )
        for name, names in experiment.parameter_names.items():
            if len(names) != self._width(name):
                raise ConfigurationError(
                    f"Expected {self._width(name)} parameter_names of {name!r}, got {len(names)}: "
                    f"{', '.join(names)}."
                )

        self.parameter_names = self._names()
        self.quantities = tuple(
            Quantity(label, "") for labels in self.parameter_names.values() for label in labels
        )

    @property
    def _condition_names(self) -> list[str]:
        return [*self._experiment.summary_variables, *self._experiment.inference_conditions]

    def _width(self, name: str) -> int:
        """Components of a variable."""
        return int(np.size(self._row[name]))

    def _names(self) -> dict[str, list[str]]:
        """Those of the experiment, and numbers for others."""
        given = self._experiment.parameter_names
        widths = {name: self._width(name) for name in self._experiment.inference_variables}
        return {
            name: given.get(name) or ([name] if n == 1 else [f"{name}_{i}" for i in range(n)])
            for name, n in widths.items()
        }

    def observations(self) -> tuple[list[str], Variables]:
        """The data sets of the file; raises DataError if it is missing or has other shapes."""
        if self._experiment.observations is None:
            return [], {}
        path = Path(self._experiment.folder, self._experiment.observations)
        names = self._condition_names
        if path.suffix == ".csv":
            if len(names) != 1:
                raise DataError(
                    f"{path}: a CSV file holds one variable, got {', '.join(names)} to condition "
                    "on. Use .npz or .safetensors."
                )
            labels, values = read_observations(
                path,
                names[0],
                self._shape(names[0]),
                may_miss=names[0] in self._experiment.may_miss,
                any_length=partial(self._differs_in_length, names[0]),
            )
            return labels, {names[0]: values}
        if not path.is_file():
            raise DataError(f"{path}: no such file. Expected real observations.")
        variables = read_file(path)
        for name in names:
            if name not in variables:
                raise DataError(f"Expected {name!r} in {path}, got none. {suggest(name, variables)}")
        counts = {name: len(variables[name]) for name in names}
        if len(set(counts.values())) != 1:
            raise DataError(
                f"Expected the same number of data sets in every variable of {path}, got {counts}."
            )
        return [str(i + 1) for i in range(counts[names[0]])], {name: variables[name] for name in names}

    def _shape(self, name: str) -> tuple[int | None, ...]:
        """Shape of a data set of a condition, as far as it is known by a simulation."""
        shape = tuple(kind_of(self._row[name])["shape"])
        likelihood = self._experiment.likelihood
        if likelihood is None or likelihood.iid is None:
            return shape
        element = shape if likelihood.iid == "elements" else shape[1:]
        return (None, *(element or (1,)))

    def _differs_in_length(self, name: str) -> bool:
        """Whether simulations differ in their number of elements of a summary variable."""
        is_summarized = name in self._experiment.summary_variables
        return is_summarized and is_open(kind_of(several_rows(self.simulator)[name]))

    def evaluate(self, draws: Variables) -> list[Array]:
        """Each component of the parameters."""
        flat = [draws[name].reshape(*draws[name].shape[:2], -1) for name in self.parameter_names]
        return [values[..., i] for values in flat for i in range(values.shape[-1])]

    def references(self, observations: Variables) -> list[list[Reference]] | None:
        """None: no exact posterior is known."""
        del observations
        return None


def first_row(simulator: Simulator) -> Variables:
    """Row 0 of the table of seed 0, which shows the variables and their shapes."""
    return {name: joined([value[:1]]) for name, value in first_rows(simulator).items()}


@cache
def first_rows(simulator: Simulator) -> Variables:
    """The first block of the table of seed 0, simulated once: it shows constants of the simulator, too."""
    return simulator.rows(0, simulator.block_size, seed=0, progress=False)


def study_simulator(experiment: Experiment, thing: object) -> Simulator:
    """The object at the import path of a simulator; raises ConfigurationError if it is none."""
    if not isinstance(thing, Simulator):
        raise ConfigurationError(
            f"Expected a simulator at {experiment.simulator}, got {type(thing).__name__}. Make one "
            "with sbi_models.make_simulator([...])."
        )
    return thing
