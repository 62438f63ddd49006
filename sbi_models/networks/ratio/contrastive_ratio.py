"""Contrastive neural ratio estimation (NRE-C): a classifier that learns p(x | theta) / p(x).

It tells the parameters that made x from those of other simulations, K at a time, or from none of K that did.
Where it is right, its logit is log p(x | theta) - log p(x), constant included, which a classifier among K
alone would leave open (NRE-B).

B. K. Miller, C. Weniger, P. Forré, Contrastive neural ratio estimation, NeurIPS 2022, arXiv:2210.06170. The
balancing condition makes posteriors wide rather than narrow where simulations are few: A. Delaunoy et al.,
Towards reliable simulation-based inference with balanced neural ratio estimation, NeurIPS 2022,
arXiv:2208.13624.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import Drawn, RatioNetwork, SummaryNetwork
from sbi_models.networks.layers.conditional_mlp import ConditionalMLP
from sbi_models.networks.registry import register


@register("ratio")
class ContrastiveRatio(RatioNetwork):
    """Ratio p(x | theta) / p(x) of observables x given parameters theta, its conditions.

    `LikelihoodWorkflow` draws posteriors of theta with it; there are no draws and no density of x.

    Args:
        widths: equal widths of the residual blocks that read x and theta together.
        contrasts: number of other parameters that each x is shown in a step; batches have at least one more.
        balance: weight of the balancing condition; 0 for none, 100 for posteriors that are rather wide.
        summary_network: network that summarizes x, for images and series; None takes x as it is.
        shape: shape of one x, for the summary network; None is a vector.

    >>> network = ContrastiveRatio(widths=(16, 16))
    >>> network.build(theta_dim=3, condition_dim=2)
    >>> tuple(network.log_ratio(torch.zeros(5, 3), torch.zeros(5, 2)).shape)
    (5,)
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 64, 64),
        *,
        contrasts: int = 16,
        balance: float = 0.0,
        summary_network: SummaryNetwork | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if balance < 0:
            raise ConfigurationError(f"Expected a balance of at least 0, got {balance}.")
        if (summary_network is None) != (shape is None):
            raise ConfigurationError(
                f"Expected both a summary_network and the shape of one x, or neither, got {shape=}."
            )
        self.widths, self.contrasts = tuple(widths), positive_int(contrasts, "contrasts")
        self.balance, self.shape = float(balance), shape and tuple(shape)
        self.summary_network = None if summary_network is None else summary_network.clone()

    def _build(self, theta_dim: int, condition_dim: int) -> None:
        width = theta_dim
        if self.summary_network is not None and self.shape is not None:
            if math.prod(self.shape) != theta_dim:
                raise ConfigurationError(
                    f"Expected observables of shape {self.shape}, {math.prod(self.shape)} numbers, got "
                    f"{theta_dim}."
                )
            self.summary_network.build(self.shape)
            width = self.summary_network.summary_dim
        self.head = ConditionalMLP(width, 1, condition_dim, self.widths, has_time=False)

    # ---- ratio --------------------------------------------------------------

    def embed(self, x: Tensor) -> Tensor:
        """Features (n, w) of standardized x (n, theta_dim), which do not depend on the parameters."""
        if self.summary_network is None or self.shape is None:
            return x
        features: Tensor = self.summary_network(x.reshape(len(x), *self.shape))
        return features

    def log_ratio_of_each(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Log ratios in nats, (n, N), of x with features (n, N, w), all N given conditions (n, c)."""
        logit: Tensor = self.head(features, conditions[:, None])[..., 0]
        return logit

    # ---- training -----------------------------------------------------------

    def loss_given(self, theta: Tensor, conditions: Tensor, drawn: Drawn = ()) -> Tensor:
        """Loss of NRE-C, (n,), in nats, for standardized x, here `theta`, (n, theta_dim).

        The other parameters of a pair are those of `contrasts` pairs spread over the batch.
        """
        n = len(theta)
        k = min(self.contrasts, n - 1)
        shifts = [0] + [1 + j * (n - 1) // k for j in range(k)]
        features = self.embed(theta)
        given = torch.stack([conditions.roll(-shift, dims=0) for shift in shifts], dim=1)  # (n, 1 + k, c)
        logits = self.head(features[:, None], given)[..., 0]
        if not k:  # a batch of one pair says nothing
            nothing: Tensor = 0.0 * logits[:, 0]
            return nothing
        own, others = logits[:, 0], logits[:, 1:]
        number = torch.full_like(own, math.log(k))
        none = number - torch.cat([number[:, None], others], dim=1).logsumexp(dim=1)
        one = own - torch.cat([number[:, None], logits[:, :k]], dim=1).logsumexp(dim=1)
        loss: Tensor = -0.5 * (none + one)
        if self.balance:
            loss = loss + self.balance * (own.sigmoid().mean() + others.sigmoid().mean() - 1).square()
        return loss
