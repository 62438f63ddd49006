"""Base classes of approximators: what one posterior and an ensemble of posteriors have in common."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from scipy.special import bdtrc
from torch import Tensor, nn

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.approximators import files
from sbi_models.approximators.certificates.calibration import (
    calibrate_certificates,
    issue_certificates,
    sizes_of,
    statistics_of,
)
from sbi_models.approximators.certificates.certificate import LEVEL, Certificate, check_level
from sbi_models.approximators.certificates.out_of_distribution import OutOfDistributionScores
from sbi_models.approximators.certificates.scores import OptionalBuffers
from sbi_models.approximators.standardizer import Standardizer
from sbi_models.approximators.summary_inputs import SummaryInputs
from sbi_models.arguments import known_arguments
from sbi_models.errors import NotFittedError, TrainingError, data_sets_in_words, distrust
from sbi_models.networks import InferenceNetwork, SummaryNetwork
from sbi_models.networks.base import Drawn
from sbi_models.registry import Registry
from sbi_models.types import Array, Estimates, Variables, VariablesLike

ALONE = ""
"""Name of the only member of an approximator that is no ensemble."""

APPROXIMATORS: "Registry[type[Approximator]]" = Registry("kind of approximator")
"""Classes of approximators by kind, the only ones that files can name.

`@APPROXIMATORS.register("kind")` adds one.
"""


class Adapted(NamedTuple):
    """Data after an adapter that was fitted to them, which the members of an ensemble are built from.

    Attributes:
        adapter: the fitted adapter.
        variables: adapted variables (n, ...), padded.
        there: masks (n, length) of raw variables of any length, True where an element is.
        shapes: shape of one raw row by variable, of the longest where lengths differ.
        any_length: number of axes after the rows that may have any length, for the raw variables with some.
    """

    adapter: Adapter
    variables: dict[str, Tensor]
    there: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    any_length: dict[str, int]


class Approximator(nn.Module, ABC):
    """Amortized posterior of one member or several, each of which trains on rows of its own.

    Attributes:
        roles: raw variable names of each role.
        shapes: shape of one row of each raw variable; empty before the approximator has seen data.
        any_length: raw conditions that differed in length in training, and may have any length: name to the
            number of axes after the rows that do, 2 for groups of elements.
        info: JSON that travels with the saved file.
        certifies_draws: whether `sample` looks at every observation, and issues a TrustWarning where more of
            them fail their certificates than do by chance. True for what `sbi_models.load` takes from a
            registry.
    """

    certifies_draws: bool = False

    kind: str
    roles: dict[str, list[str]]
    shapes: dict[str, tuple[int, ...]]
    any_length: dict[str, int]
    info: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.usual_disagreement = OptionalBuffers("values")

    @property
    @abstractmethod
    def members(self) -> "dict[str, Member]":
        """Members that train side by side, by name; a posterior alone is its only member, named ""."""

    @property
    @abstractmethod
    def prefixes(self) -> dict[str, str]:
        """Of each member: what the names of its tensors begin with in `state_dict()`."""

    @property
    @abstractmethod
    def inference_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are inferred."""

    @property
    @abstractmethod
    def condition_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are conditioned on, masks among them."""

    @property
    @abstractmethod
    def may_miss(self) -> frozenset[str]:
        """Raw names of the conditions that may hold NaN, since the adapter fills it."""

    @property
    def padded_inputs(self) -> dict[str, str]:
        """Prepared variables of any length, (n, length, ...), to those of their masks, (n, length)."""
        return next(iter(self.members.values())).padded_inputs

    @property
    @abstractmethod
    def has_draws(self) -> bool:
        """False where there is nothing to sample from, as with point estimates."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """The networks, their arguments and widths, as JSON text."""

    @property
    @abstractmethod
    def specification(self) -> dict[str, str]:
        """Everything but the weights, by part, as JSON text: the same text means the same training."""

    @property
    def is_built(self) -> bool:
        """True once the approximator has seen data."""
        return bool(self.shapes)

    @abstractmethod
    def build(self, data: VariablesLike, *, seed: int) -> None:
        """Learn shapes and moments from raw data and make the layers; a second call changes nothing.

        The initial weights are drawn from the seed.
        """

    @abstractmethod
    def prepare(self, data: VariablesLike, *, what: str = "data") -> dict[str, Tensor]:
        """Check, adapt and standardize raw data with all variables: float32 tensors by role.

        They are on the approximator's device.
        """

    @abstractmethod
    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> Variables:
        """Draws of every data set, name to (num_datasets, num_samples, width), raw space."""

    @abstractmethod
    def log_prob(self, data: VariablesLike, *, batch_size: int | None = None) -> Array:
        """Log densities in nats of parameters given conditions, raw space, (num_datasets,)."""

    @abstractmethod
    def estimate(
        self, conditions: VariablesLike, *, split: bool = False, batch_size: int | None = None
    ) -> Estimates:
        """Estimates of scoring rules; see `ScoringRuleApproximator.estimate`."""

    @known_arguments
    def certify(
        self,
        conditions: VariablesLike,
        *,
        level: float = LEVEL,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> list[Certificate]:
        """Certificates of observations: like the simulations of the training, and agreed on by the members.

        `certify` of a workflow asks its simulator, too.

        Args:
            conditions: raw variables of shape (num_datasets, ...); further ones are left aside.
            level: share of false alarms among observations that are drawn like the simulations.
            batch_size: data sets in one call of the networks.
            seed: seed of the draws that members are compared by; nothing else is random.
        """
        self._check_built()
        return issue_certificates(
            self, conditions, level=check_level(level), batch_size=batch_size, seed=seeding.resolve(seed)
        )

    def _certify_draws(self, conditions: VariablesLike, seed: int) -> None:
        """Issue the TrustWarning of `certifies_draws`."""
        if not self.certifies_draws:
            return
        certificates = self.certify(conditions, seed=seed)
        failed, n = (
            [row for row, certificate in enumerate(certificates) if certificate.verdict == "failed"],
            len(certificates),
        )
        rarest = min(
            (n * p for certificate in certificates if (p := certificate.p_value) is not None), default=1.0
        )
        if failed and (rarest <= LEVEL or bdtrc(len(failed) - 1, n, LEVEL) <= LEVEL * (1 + 1e-9)):
            reasons = " ".join(certificates[failed[0]].warnings)
            distrust(f"The posterior of {data_sets_in_words(failed, n)} should not be trusted. {reasons}")

    def observation_statistics(self, conditions: VariablesLike) -> dict[str, Tensor]:
        """Statistics of raw conditions (n, ...) that depend on no network: name to (n,), float64.

        They are computed after the adapter.
        """
        self._check_built()
        first = next(iter(self.members.values()))
        return {
            name: value.cpu()
            for name, value in statistics_of(first, first.prepare_conditions(conditions)).items()
        }

    def set_sizes(self, conditions: VariablesLike) -> Tensor:
        """Set sizes (n, s), float64, of those raw conditions (n, ...) that are sets or series with a mask."""
        self._check_built()
        first = next(iter(self.members.values()))
        return sizes_of(first, first.prepare_conditions(conditions))[1].cpu()

    def learn_certificate(
        self, known: Variables, held_out: Variables | None, *, seed: int, contexts: Collection[str] = ()
    ) -> None:
        """Learn what certificates need from simulations, raw variables (n, ...), at the end of a training.

        `contexts` are the names of direct conditions that are given and not observed, such as a design.

        See `certificates.calibration.calibrate_certificates`.
        """
        calibrate_certificates(self, known, held_out, seed, contexts)

    @contextmanager
    def without_certificate(self) -> Iterator[None]:
        """Forget what certificates are learned from, for a training; a training that fails gives it back."""
        usual, novelties = (
            self.usual_disagreement,
            {name: member.novelty for name, member in self.members.items()},
        )
        self.usual_disagreement = OptionalBuffers("values")
        for member in self.members.values():
            member.novelty = OutOfDistributionScores()
        try:
            yield
        except TrainingError:
            self.usual_disagreement = usual
            for name, member in self.members.items():
                member.novelty = novelties[name]
            raise

    def save(self, path: str | Path) -> Path:
        """Write tensors and JSON into one file, under any name, atomically; `sbi_models.load` reads it."""
        return self.save_weights(path, self.state_dict())

    def save_weights(self, path: str | Path, tensors: dict[str, Tensor]) -> Path:
        """Save the approximator with other tensors, by the names of `state_dict()`, such as its best."""
        self._check_built()
        return files.write(path, self.kind, self._settings(), tensors)

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What a file holds besides tensors."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The approximator of a file, from its settings and its tensors by the names of `state_dict()`."""

    def _check_built(self) -> None:
        if not self.is_built:
            raise NotFittedError(
                "This approximator has not been trained. Call fit_offline or fit_online of its "
                "workflow first."
            )


class Member(Approximator):
    """One amortized posterior, alone or as a member of an ensemble.

    What trains, batches and certifies members calls them by these methods; all tensors are on `device`.

    Attributes:
        adapter: adapter from raw variables to the roles.
        standardizer: frozen moments of the adapted variables.
        inputs: inputs of the summary network and their masks.
        inference_network: conditional density of the standardized parameters.
        summary_network: network of the role `summary_variables`, if there is one.
        novelty: out-of-distribution scores of simulations, learned at the end of a training.
    """

    adapter: Adapter
    standardizer: Standardizer
    inputs: SummaryInputs
    inference_network: InferenceNetwork
    summary_network: SummaryNetwork | None
    novelty: OutOfDistributionScores

    @property
    def members(self) -> "dict[str, Member]":
        """Itself, alone."""
        return {ALONE: self}

    @property
    def prefixes(self) -> dict[str, str]:
        """No prefix, for itself."""
        return {ALONE: ""}

    @property
    @abstractmethod
    def has_density(self) -> bool:
        """False where `log_prob` has no answer."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the networks."""

    @abstractmethod
    def adapted(self, data: VariablesLike) -> Adapted:
        """Adapter fitted to raw data, and the data after it."""

    @abstractmethod
    def build_from(self, adapted: Adapted, *, seed: int) -> None:
        """`build` from the result of `adapted`, which the members of an ensemble share."""

    @abstractmethod
    def prepare_conditions(self, conditions: VariablesLike) -> dict[str, Tensor]:
        """Raw conditions (n, ...), checked, to standardized float32 tensors by role."""

    @abstractmethod
    def loss(self, prepared: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Training loss of each row of a prepared batch, shape (n,)."""

    @abstractmethod
    def draw(self, prepared: dict[str, Tensor], generator: torch.Generator | None = None) -> Drawn:
        """Random numbers of the loss of a prepared batch."""

    @abstractmethod
    def loss_given(self, prepared: dict[str, Tensor], drawn: Drawn) -> Tensor:
        """The loss, shape (n,), as a function of its random numbers."""

    @abstractmethod
    def given(self, conditions: VariablesLike, batch_size: int | None = None) -> Tensor:
        """Conditions of the inference network, (n, condition_dim), for raw conditions (n, ...)."""

    @abstractmethod
    def conditions_of(self, prepared: dict[str, Tensor], batch_size: int | None = None) -> Tensor:
        """Conditions of the inference network, (n, condition_dim), for prepared conditions."""

    @abstractmethod
    def standardized_draws(
        self, num_samples: int, given: Tensor, batch_size: int | None, seed: int
    ) -> Tensor:
        """Standardized draws (n, num_samples, d) for conditions (n, condition_dim) of the network."""

    @abstractmethod
    def answer(self, given: Tensor) -> dict[str, Tensor]:
        """One draw for each row of conditions of the inference network, raw space, name to (n, ...)."""
