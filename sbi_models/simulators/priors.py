"""A prior given as torch distributions, drawn from the seeded stream in float64, on the CPU."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.distributions import Distribution

from sbi_models.errors import ConfigurationError
from sbi_models.torch_defaults import in_double_precision
from sbi_models.types import Variables


class TorchPrior:
    """Prior of independent torch distributions; a function for batched and unbatched simulators.

    Distributions of float32 parameters, torch's default, are drawn in float64: in float32 one draw in 16
    million of a uniform variable lies exactly on its lower bound, outside of the open support that networks
    are trained on.

    Args:
        distributions: name to distribution of one simulation; shapes are `batch_shape + event_shape` of the
            distribution.

    Raises:
        ConfigurationError: for anything that is not a torch distribution.
    """

    def __init__(self, distributions: Mapping[str, Distribution]) -> None:
        if not distributions:
            raise ConfigurationError(
                "Expected a dict of names to torch distributions, got an empty one. Pass "
                '{"theta": distribution}.'
            )
        for name, distribution in distributions.items():
            if not isinstance(name, str) or not isinstance(distribution, Distribution):
                raise ConfigurationError(
                    f"Expected a dict of names to torch distributions, got {name!r}: {distribution!r}. "
                    "Pass an instance such as torch.distributions.Uniform(0.0, 1.0), or write a function."
                )
        self.distributions = dict(distributions)
        self._drawn = {
            name: in_double_precision(distribution) for name, distribution in distributions.items()
        }
        self.__name__ = f"prior of {', '.join(distributions)}"

    def __call__(self, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()) -> Variables:
        """Draws by name, shape `batch_shape + shape of one draw`, float64, raw space.

        PyTorch's global random state is left as it was.
        """
        drawn: Variables = {}
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
            for name, distribution in self._drawn.items():
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                drawn[name] = distribution.sample(torch.Size(batch_shape)).to(torch.float64).numpy()
        return drawn
