"""Random numbers of each data set from a stream of its own, so that it does not depend on its company."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sbi_models import seeding


class Streams:
    """Random numbers of each data set from a stream of its own.

    Args:
        seed: seed of all.
        names: a name for the stream of each data set.
    """

    def __init__(self, seed: int, names: Sequence[int]) -> None:
        self.generators = [
            torch.Generator().manual_seed(seeding.derive(seed, "chains", int(name))) for name in names
        ]

    def normal(self, shape: tuple[int, ...], rows: Tensor) -> Tensor:
        """Standard normal numbers (len(rows), *shape), float64."""
        return torch.stack(
            [torch.randn(shape, generator=self.generators[row], dtype=torch.float64) for row in rows.tolist()]
        )

    def uniform(self, shape: tuple[int, ...], rows: Tensor) -> Tensor:
        """Uniform numbers (len(rows), *shape), float64."""
        return torch.stack(
            [torch.rand(shape, generator=self.generators[row], dtype=torch.float64) for row in rows.tolist()]
        )
