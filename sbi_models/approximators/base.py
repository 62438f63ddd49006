"""What every approximator promises: to be built from raw data, trained, sampled, evaluated and saved, as one
network or as several."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.special import bdtrc
from torch import Tensor, nn

from sbi_models import seeding
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
from sbi_models.arguments import known_arguments
from sbi_models.errors import NotFittedError, TrainingError, data_sets_in_words, distrust
from sbi_models.types import Array, Estimates, Variables, VariablesLike

if TYPE_CHECKING:
    from sbi_models.approximators.continuous import ContinuousApproximator

ALONE = ""
"""Name of the only member of an approximator that is no ensemble."""


class Approximator(nn.Module, ABC):
    """An amortized posterior of one member or several, each of which trains on rows of its own.

    Attributes:
        roles: raw variable names of each role.
        shapes: shape of one row of each raw variable; empty before the approximator has seen data.
        info: JSON that travels with the saved file.
        certifies_draws: whether `sample` looks at every observation, and issues a TrustWarning where more of
            them fail their certificates than do by chance. True for what `sbi_models.load` takes from a
            registry.
    """

    certifies_draws: bool = False

    kind: str
    roles: dict[str, list[str]]
    shapes: dict[str, tuple[int, ...]]
    info: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.usual_disagreement = OptionalBuffers("values")

    @property
    @abstractmethod
    def members(self) -> "dict[str, ContinuousApproximator]":
        """The approximators that train side by side, by name; one that is no ensemble is its own only member,
        named ""."""

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
        """What it is, but for its weights, by part, as JSON text: two with the same one learn the same
        thing."""

    @property
    def is_built(self) -> bool:
        """True once the approximator has seen data."""
        return bool(self.shapes)

    @abstractmethod
    def build(self, data: VariablesLike, *, seed: int) -> None:
        """Learn shapes and moments from raw data and make the layers, their weights drawn from the seed; a
        second call changes nothing."""

    @abstractmethod
    def prepare(self, data: VariablesLike, *, what: str = "data") -> dict[str, Tensor]:
        """Raw data with all variables, checked, to standardized float32 tensors by role, on the
        approximator's device."""

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
        """Log density in nats of the parameters given the conditions of each row of `data`, in raw space,
        shape (num_datasets,)."""

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
        """Whether each observation is like the simulations of the training, and whether the members of an
        ensemble agree on it.

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
        """The TrustWarning of `certifies_draws`."""
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
        """Statistics of raw conditions (n, ...) that depend on no network, of what the adapter makes of them:
        name to (n,), float64."""
        self._check_built()
        first = next(iter(self.members.values()))
        return {
            name: value.cpu()
            for name, value in statistics_of(first, first.prepare_conditions(conditions)).items()
        }

    def set_sizes(self, conditions: VariablesLike) -> Tensor:
        """Numbers of elements (n, s), float64, of raw conditions (n, ...) that are sets or series with a
        mask, s of them."""
        self._check_built()
        first = next(iter(self.members.values()))
        return sizes_of(first, first.prepare_conditions(conditions))[1].cpu()

    def learn_certificate(self, known: Variables, held_out: Variables | None, *, seed: int) -> None:
        """Learn what is usual from simulations, raw variables (n, ...), at the end of a training; see
        `certificates.issue.learn`."""
        calibrate_certificates(self, known, held_out, seed)

    @contextmanager
    def without_certificate(self) -> Iterator[None]:
        """For a training: what is usual is forgotten, as it is no longer true of other weights; a training
        that fails gives it back."""
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
        """Save this approximator with other tensors of the names and shapes in its `state_dict()`, such as
        those of its best epoch."""
        self._check_built()
        return files.write(path, self.kind, self._settings(), tensors)

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What a file holds besides tensors."""

    def _check_built(self) -> None:
        if not self.is_built:
            raise NotFittedError(
                "This approximator has not been trained. Call fit_offline or fit_online of its "
                "workflow first."
            )
