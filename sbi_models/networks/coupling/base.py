"""Base densities of coupling flows: draws and log densities of the latent z.

normal:     z ~ Normal(0, I)
student_t:  z = n / sqrt(w),  n ~ Normal(0, I),  w ~ chi^2_df / df,  one w for all components
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from sbi_models.networks.noise import Generators, normal


class Base(Protocol):
    """A fixed density of z in `dim` dimensions, symmetric around zero."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, shape (...), at latent z of shape (..., dim)."""

    def sample(self, num_samples: int, dim: int, generator: Generators, like: Tensor) -> Tensor:
        """Latent draws (n, num_samples, dim) for the n rows of `like`, in its type and on its device."""


class Normal:
    """The standard normal."""

    def log_prob(self, z: Tensor) -> Tensor:
        """See `Base`."""
        return -(z.square() + math.log(2 * math.pi)).sum(dim=-1) / 2

    def sample(self, num_samples: int, dim: int, generator: Generators, like: Tensor) -> Tensor:
        """See `Base`."""
        return normal((len(like), num_samples, dim), generator, like)


class StudentT:
    """The multivariate Student t with `df` degrees of freedom, a whole number, and unit scale."""

    def __init__(self, df: int) -> None:
        self.df = df

    def log_prob(self, z: Tensor) -> Tensor:
        """See `Base`."""
        df, dim = self.df, z.shape[-1]
        constant = math.lgamma((df + dim) / 2) - math.lgamma(df / 2) - dim / 2 * math.log(df * math.pi)
        return constant - (df + dim) / 2 * torch.log1p(z.square().sum(dim=-1) / df)

    def sample(self, num_samples: int, dim: int, generator: Generators, like: Tensor) -> Tensor:
        """See `Base`; the chi-squared is a sum of squares of normals, which come from the same streams."""
        noise = normal((len(like), num_samples, dim + self.df), generator, like)
        return noise[..., :dim] / noise[..., dim:].square().mean(dim=-1, keepdim=True).sqrt()
