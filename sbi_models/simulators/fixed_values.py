"""Fixed values: arrays of the caller in place of function outputs."""

import numpy as np

from sbi_models.errors import ConfigurationError
from sbi_models.types import Array


class FixedValue:
    """Array in place of an output: one value for all simulations, or one each with a leading axis."""

    def __init__(self, key: str, value: Array, start: int, stop: int) -> None:
        self.key, self.value, self.start, self.num_rows = key, value, start, stop - start

    def like(self, output: Array, rows: range, batched: bool) -> Array:
        """The value for some rows (one, unless batched), in the shape of the output that it replaces."""
        row_shape = output.shape[1:] if batched else output.shape
        value = self.value
        if value.shape == (self.num_rows, 1) and not row_shape:
            value = value[:, 0]  # as `sample` returns scalars
        if value.shape == row_shape or (not value.ndim and row_shape == (1,)):
            return np.broadcast_to(value, output.shape)
        if value.shape != (self.num_rows, *row_shape):
            raise ConfigurationError(
                f"Expected the fixed {self.key!r} of shape {row_shape} (one for all) or "
                f"{(self.num_rows, *row_shape)} (one a simulation), got {self.value.shape}."
            )
        chosen = np.clip(np.arange(rows.start, rows.stop) - self.start, 0, self.num_rows - 1)
        return np.asarray(value[chosen] if batched else value[chosen[0]])
