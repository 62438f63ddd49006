"""Missing values of an experiment: a network that has seen none is not trained for any."""

import numpy as np

from sbi_models.datasets import SimulationStore
from sbi_models.errors import DataError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.ragged import leaves


def refuse_without_gaps(experiment: Experiment, store: SimulationStore) -> None:
    """Raise DataError if no training simulation misses a value of a variable that may be missing.

    Nothing would tell the network what a missing value means, so that its answer to one would be arbitrary.
    """
    for name in sorted(experiment.may_miss.intersection(store.names)):
        rows = (store.rows(piece.start, piece.stop, [name])[name] for piece in store.pieces)
        if not any(np.isnan(leaf).any() for value in rows for leaf in leaves(value)):
            raise DataError(
                f"Expected simulations with missing values (NaN) in {name!r}, which may be missing by the "
                f"experiment, got none in {store.num_simulations}: a network that has seen no gaps cannot "
                "answer where there are some. Let the simulator put NaN where values are missing in real "
                f"data, as often as there, such as np.where(rng.random({name}.shape) < 0.1, np.nan, {name}); "
                f"or leave out what says that {name!r} may be missing."
            )
