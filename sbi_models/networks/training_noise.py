"""Random noises and times of a training step of diffusion and flow matching."""

import torch
from torch import Tensor


def noises_and_times(theta: Tensor, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Standard normal noise (n, count, d) and times (n, count, 1) in [0, 1] for theta (n, d).

    Times are stratified: the n * count of them fall one into each of as many equal parts of [0, 1].
    """
    n, device, dtype = len(theta), theta.device, theta.dtype
    noise = torch.randn(n, count, theta.shape[-1], device=device, dtype=dtype, generator=generator)
    order = torch.randperm(n * count, device=device, generator=generator)
    within = torch.rand(n * count, device=device, dtype=dtype, generator=generator)
    return noise, ((order + within) / (n * count)).reshape(n, count, 1)
