"""What certificates need of approximators and their members, as protocols: they know no class of either."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from sbi_models.adapters import Adapter
from sbi_models.approximators.certificates.out_of_distribution import OutOfDistributionScores
from sbi_models.approximators.certificates.scores import OptionalBuffers
from sbi_models.approximators.summary_inputs import SummaryInputs
from sbi_models.networks import InferenceNetwork
from sbi_models.types import VariablesLike


class CertifiedMember(Protocol):
    """A single amortized posterior; see `approximators.base.Member`."""

    roles: dict[str, list[str]]
    adapter: Adapter
    shapes: dict[str, tuple[int, ...]]
    inputs: SummaryInputs
    novelty: OutOfDistributionScores
    inference_network: InferenceNetwork

    def prepare_conditions(self, conditions: VariablesLike) -> dict[str, Tensor]: ...

    def given(self, conditions: VariablesLike, batch_size: int | None = None) -> Tensor: ...

    def conditions_of(self, prepared: dict[str, Tensor], batch_size: int | None = None) -> Tensor: ...

    def standardized_draws(
        self, num_samples: int, given: Tensor, batch_size: int | None, seed: int
    ) -> Tensor: ...


class CertifiedApproximator(Protocol):
    """One or several members that train on the same simulations; see `approximators.base.Approximator`."""

    usual_disagreement: OptionalBuffers
    training: bool

    @property
    def has_draws(self) -> bool: ...

    @property
    def members(self) -> Mapping[str, CertifiedMember]: ...

    def prepare(self, data: VariablesLike, *, what: str = "data") -> dict[str, Tensor]: ...

    def eval(self) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...
