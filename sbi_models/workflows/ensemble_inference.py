"""Inference with an ensemble: draws and densities of its mixture, weights, disagreement of its members."""

from collections.abc import Mapping
from typing import Literal, cast, overload

import numpy as np

from sbi_models import diagnostics, seeding
from sbi_models.approximators import EnsembleApproximator
from sbi_models.approximators.ensemble import MemberWeights
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.types import Array, FloatArray, Variables, VariablesLike
from sbi_models.workflows.other_prior import PriorLike
from sbi_models.workflows.workflow import Workflow

_MEASURES = ("jensen_shannon", "energy")


@known_arguments
class EnsembleInference(Workflow):
    """A workflow with an ensemble, whatever it was made of."""

    approximator: EnsembleApproximator

    def stack(
        self, validation_data: VariablesLike | int, *, shrinkage: float | None = None
    ) -> dict[str, float]:
        """Learn mixture weights by the mean log density of held-out simulations, and return them by member.

        They are kept in the approximator, saved with it, and used wherever no `member_weights` are given.

        Args:
            validation_data: simulations that no member was trained on, or how many to draw from the
                simulator. A thousand are better than a hundred; those that early stopping has looked at do,
                but flatter the members that it suited.
            shrinkage: see `EnsembleApproximator.stack`; None finds it by cross-validation, 0 gives the
                highest held-out score.

        Raises:
            ConfigurationError: if a member has no density: then choose weights,
                `workflow.approximator.weights = {...}`.
        """
        if not isinstance(validation_data, Mapping):
            number = positive_int(validation_data, "validation_data (if not a dict)")
            validation_data = self.simulate(number, seed=seeding.derive(self.seed, "stacking simulations"))
        return self.approximator.stack(self._checked(validation_data, "validation data"), shrinkage=shrinkage)

    @overload
    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = ...,
        batch_size: int | None = ...,
        seed: int | None = ...,
        merge_members: Literal[True] = ...,
        member_weights: MemberWeights | None = ...,
        prior: PriorLike | None = ...,
    ) -> Variables: ...

    @overload
    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = ...,
        batch_size: int | None = ...,
        seed: int | None = ...,
        merge_members: bool,
        member_weights: MemberWeights | None = ...,
        prior: PriorLike | None = ...,
    ) -> Variables | dict[str, Variables]: ...

    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
        merge_members: bool = True,
        member_weights: MemberWeights | None = None,
        prior: PriorLike | None = None,
    ) -> Variables | dict[str, Variables]:
        """Draws of the mixture, or of each member; see `EnsembleApproximator.sample`.

        `prior` is another prior than that of the simulations, as for `Workflow.sample`; the draws of the
        mixture are weighted then.
        """
        if prior is None:
            return self.approximator.sample(
                num_samples=num_samples,
                conditions=conditions,
                split=split,
                batch_size=batch_size,
                seed=seed,
                merge_members=merge_members,
                member_weights=member_weights,
            )
        if not merge_members:
            raise ConfigurationError(
                "Expected merge_members=True with prior=, got False: the draws of the mixture are weighted."
            )

        def draw(number: int, seed: int) -> Variables:
            return self.approximator.sample(
                num_samples=number,
                conditions=conditions,
                batch_size=batch_size,
                seed=seed,
                member_weights=member_weights,
            )

        return self._drawn_under(prior, draw, num_samples=num_samples, split=split, seed=seed)

    @overload
    def log_prob(
        self,
        data: VariablesLike,
        *,
        batch_size: int | None = ...,
        merge_members: Literal[True] = ...,
        member_weights: MemberWeights | None = ...,
    ) -> Array: ...

    @overload
    def log_prob(
        self,
        data: VariablesLike,
        *,
        batch_size: int | None = ...,
        merge_members: bool,
        member_weights: MemberWeights | None = ...,
    ) -> Array | dict[str, Array]: ...

    def log_prob(
        self,
        data: VariablesLike,
        *,
        batch_size: int | None = None,
        merge_members: bool = True,
        member_weights: MemberWeights | None = None,
    ) -> Array | dict[str, Array]:
        """Log densities in nats of the mixture, or of each member; see `EnsembleApproximator.log_prob`."""
        return self.approximator.log_prob(
            data, batch_size=batch_size, merge_members=merge_members, member_weights=member_weights
        )

    def disagreement(
        self,
        conditions: VariablesLike,
        *,
        num_samples: int = 200,
        measure: Literal["jensen_shannon", "energy"] | None = None,
        seed: int | None = None,
    ) -> FloatArray:
        """Disagreement of the members' posteriors of each data set, shape (num_datasets,); 0 is none.

        Large values tell that more simulations, or larger networks, would change the posterior there, or that
        the observation is unlike the simulations. Compare with the values of test simulations:
        `diagnostics.plot_disagreement(observed, reference=simulated)`.

        Args:
            conditions: raw variables of shape (num_datasets, ...).
            num_samples: draws of each member for each data set.
            measure: "jensen_shannon", from densities, in nats, at most the entropy of the weights; "energy",
                from draws alone, from 0 to 1; None is the first where every member has a density, and else
                the second. See `diagnostics.jensen_shannon_divergence` and `diagnostics.energy_disagreement`.
            seed: seed of the draws.

        Raises:
            ConfigurationError: for an unknown measure, or one from densities where a member has none.
        """
        num_samples, seed = positive_int(num_samples, "num_samples"), seeding.resolve(seed)
        if measure not in (*_MEASURES, None):
            raise ConfigurationError(
                f"Unknown measure {measure!r} of disagreement. {suggest(str(measure), _MEASURES)}"
            )
        weights = self.approximator.mixture_weights()
        has_density = all(member.has_density for member in self.approximator.members.values())
        if measure == "jensen_shannon" or (measure is None and has_density):
            log_densities = self.approximator.cross_log_prob(
                conditions=conditions, num_samples=num_samples, seed=seed
            )
            return diagnostics.jensen_shannon_divergence(log_densities, weights)
        drawn = self.sample(num_samples=num_samples, conditions=conditions, seed=seed, merge_members=False)
        members = [
            np.concatenate(list(draws.values()), axis=-1)
            for draws in cast("dict[str, Variables]", drawn).values()
        ]
        return diagnostics.energy_disagreement(np.stack(members, axis=1), weights)
