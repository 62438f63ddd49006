"""Rule for categories: probabilities, scored by the log score or the Brier score.

    log score    -log p_k
    Brier score  sum over categories j of (p_j - [j = k])^2

Both are strictly proper: lowest on average where each p is the posterior probability. G. W. Brier,
Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950) 1; I. J. Good,
Rational decisions, J. R. Stat. Soc. B 14 (1952) 107.
"""

from typing import Literal

import torch
from torch import Tensor

from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import DiscreteColumns
from sbi_models.networks.registry import register
from sbi_models.networks.scoring.rules import ScoringRule


@register("categorical")
class CategoricalScore(ScoringRule):
    """Probabilities of the categories of each column of theta, by softmax; they sum to 1.

    Columns must be declared: `adapter.as_categorical(name)`. Each column has the probabilities of its own
    categories given the data, whatever the other columns are.

    Args:
        loss: "log" or "brier".

    >>> from sbi_models.networks import ScoringRuleNetwork
    >>> network = ScoringRuleNetwork({"choice": CategoricalScore()}, widths=(16, 16))
    >>> network.build(theta_dim=1, condition_dim=3, discrete=[(0, "categorical", 4)])
    >>> probabilities = network.estimate(torch.zeros(5, 3))["choice"]
    >>> tuple(probabilities.shape), probabilities.sum(dim=-1).tolist()
    ((5, 1, 4), [[1.0], [1.0], [1.0], [1.0], [1.0]])
    """

    def __init__(self, loss: Literal["log", "brier"] = "log") -> None:
        super().__init__()
        if loss not in ("log", "brier"):
            raise ConfigurationError(f"Expected loss as 'log' or 'brier', got {loss!r}.")
        self.loss = loss
        self.sizes: tuple[int, ...] = ()

    def learn(self, columns: DiscreteColumns, theta_dim: int) -> None:
        """Take the numbers of categories of the columns of theta.

        Raises:
            ConfigurationError: unless every column is categorical.
        """
        classes = {column: size for column, kind, size in columns if kind == "categorical"}
        if len(classes) < theta_dim:
            raise ConfigurationError(
                f"Expected categories in all {theta_dim} inferred components for the scoring rule "
                f"'categorical', got {len(classes)}. Declare them: adapter.as_categorical(name); infer "
                "others in a workflow of their own, or all with AutoregressiveMixture."
            )
        self.sizes = tuple(classes[column] for column in range(theta_dim))

    def head_width(self, theta_dim: int) -> int:
        del theta_dim
        return sum(self.sizes)

    def predict(self, numbers: Tensor, theta_dim: int) -> Tensor:
        """Log probabilities (n, theta_dim, C), C that of the column with most; -inf for others' surplus."""
        del theta_dim
        most = max(self.sizes)
        parts = [
            torch.nn.functional.pad(part.log_softmax(dim=-1), (0, most - part.shape[-1]), value=-torch.inf)
            for part in torch.split(numbers, list(self.sizes), dim=-1)
        ]
        return torch.stack(parts, dim=1)

    def score(self, prediction: Tensor, theta: Tensor) -> Tensor:
        """Log or Brier score of log probabilities, summed over columns, at numbers of categories (n, d)."""
        every = torch.arange(prediction.shape[-1], device=theta.device)
        chosen = theta.round()[..., None] == every
        if self.loss == "log":
            return -torch.where(chosen, prediction, 0.0).sum(dim=(1, 2))
        return (prediction.exp() - chosen.to(prediction.dtype)).square().sum(dim=(1, 2))
