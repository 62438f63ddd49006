"""Certificates of observations from an approximator, its simulator and its likelihood."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.approximators import Approximator, Certificate
from sbi_models.approximators.certificates.certificate import LEVEL, check_level
from sbi_models.approximators.certificates.conformal import conformal_p_values
from sbi_models.approximators.certificates.ranks import Sizes, joint_p_values, nearest_sizes, tie_breakers
from sbi_models.approximators.validation import as_variables
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.diagnostics import effective_sample_share, pareto_smoothed, to_arviz
from sbi_models.errors import ConfigurationError
from sbi_models.ragged import joined
from sbi_models.simulators import Simulator
from sbi_models.types import Variables, VariablesLike
from sbi_models.workflows.importance_resampling import raw_shares
from sbi_models.workflows.importance_weights import LearnedLikelihood, LogDensity, log_joint_of, log_weights
from sbi_models.workflows.predictive_check import PosteriorCheck, replicated_data

_FEWEST_REFERENCES = 100
_LOT, _MOST_LOTS, _MOST_SIZES = 10, 4, 4
"""Size and number of the lots of simulations in which those of observed sizes are sought; number of sizes.

A lot is given in units of num_references.
"""


@known_arguments
class CertificationMixin(ABC):
    """Certificates of observations, and their posteriors as `arviz.InferenceData`."""

    approximator: Approximator
    simulator: Simulator | None

    def certify(
        self,
        conditions: VariablesLike,
        *,
        level: float = LEVEL,
        num_replicates: int = 100,
        num_references: int = 200,
        log_likelihood: LogDensity | LearnedLikelihood | None = None,
        log_prior: LogDensity | None = None,
        num_samples: int = 1000,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> list[Certificate]:
        """Certificates of observations: whether each posterior can be trusted.

        They tell whether an observation is like the simulations, whether members agree, whether the posterior
        explains the observation, and whether it is exact.

        To the tests of `approximator.certify` the simulator adds posterior predictive checks: statistics of
        an observation against those of data simulated from its posterior, calibrated by doing the same for
        `num_references` fresh simulations, which makes the p-value exact. These are put to the other tests,
        too, and `p_value` is the rank of an observation's smallest p-value among theirs: exact for all tests
        together, 1 / (num_references + 1) at the least. Should they be unlike the simulations of the
        training, as those of another simulator are, tests are corrected for their number instead. The check
        is left out where there is no simulator, where it is a single function, whose parameters cannot be
        set, or where there are no draws.

        Where likelihood, prior and the density of the posterior are known, importance weights tell how far
        the draws are from the exact posterior; for simulators whose functions are methods of an object with
        `log_joint(theta, x)`, such as the benchmarks, they are known without a word.

        Args:
            conditions: raw variables of shape (num_datasets, ...); further ones are left aside.
            level: share of false alarms of all tests with a p-value together, among observations drawn from
                the simulator.
            num_replicates: data simulated from each posterior; 0 leaves the check out. (num_datasets +
                num_references) times as many simulations are made.
            num_references: simulations that calibrate the check and all tests together, at least 100, and 1 /
                level.
            log_likelihood: log p(x | theta): takes parameters and conditions by name, (S, ...) each in raw
                space, and gives (S,) in nats. Or a trained `LikelihoodWorkflow` of the same parameters:
                weights then compare the posterior with the one that it implies.
            log_prior: log p(theta), the same of the parameters; not needed for priors that are torch
                distributions.
            num_samples: draws that are weighted.
            batch_size: data sets in one call of the networks.
            seed: seed of draws and simulations.
        """
        level, seed = check_level(level), seeding.resolve(seed)
        num_samples = positive_int(num_samples, "num_samples")
        replicates = 0 if num_replicates == 0 else positive_int(num_replicates, "num_replicates (0 for none)")
        if replicates and (
            replicates < 2 or positive_int(num_references, "num_references") < _FEWEST_REFERENCES
        ):
            raise ConfigurationError(
                "Expected num_replicates of at least 2, or 0, and num_references of at least "
                f"{_FEWEST_REFERENCES} for p-values that are fine enough, got {num_replicates} and "
                f"{num_references}."
            )
        checks = bool(replicates) and self._can_replicate
        if checks and level < 1 / (num_references + 1):
            raise ConfigurationError(
                f"Expected num_references of at least {int(np.ceil(1 / level - 1))}, so that p-values, "
                f"multiples of 1 / (num_references + 1), can be as small as level={level:g}, got "
                f"{num_references}. Pass more, or num_replicates=0."
            )
        priors = {**({} if self.simulator is None else self.simulator.priors), **getattr(self, "priors", {})}
        log_joint = log_joint_of(self.approximator, self.simulator, priors, log_likelihood, log_prior)
        certificates = self.approximator.certify(conditions, level=level, batch_size=batch_size, seed=seed)
        observed = as_variables(
            conditions, self.approximator.condition_names, may_miss=self.approximator.may_miss
        )
        if checks:
            references = self._references_like(observed, num_references, seeding.derive(seed, "references"))
            assert self.simulator is not None
            check = PosteriorCheck(self.approximator, self.simulator, replicates, batch_size, seed)
            certificates = self._with_check(certificates, check, observed, references)
        if log_joint is not None:
            weighted = seeding.derive(seed, "weighted")
            weights = log_weights(
                self.approximator,
                observed,
                log_joint,
                num_samples=num_samples,
                batch_size=batch_size,
                seed=weighted,
            )
            smoothed = pareto_smoothed(weights)
            results = [smoothed.pareto_k, effective_sample_share(smoothed.log_weights), *raw_shares(weights)]
            names = ("pareto_k", "effective_sample_size", "raw_effective_sample_size", "largest_weight")
            certificates = [
                replace(certificate, **dict(zip(names, map(float, numbers), strict=True)))
                for certificate, *numbers in zip(certificates, *results, strict=True)
            ]
        return certificates

    def to_arviz(
        self,
        conditions: VariablesLike,
        *,
        num_samples: int = 1000,
        variable_names: Mapping[str, Sequence[str]] | None = None,
        data_set_names: Sequence[str] | None = None,
        certificate: bool = True,
        seed: int | None = None,
    ) -> Any:
        """Posteriors of observations as an `arviz.InferenceData`.

        It needs the extra: pip install "sbi-models[arviz]".

        It has posterior and observed_data and, as far as they can be computed, the log density `lp` of each
        draw (sample_stats), a data set simulated from each draw (posterior_predictive), and as many
        simulations (prior, prior_predictive). The certificates of `approximator.certify` are in the attribute
        `certificates` of the posterior, as JSON, unless certificate=False.

        Args:
            conditions: raw variables of shape (num_datasets, ...).
            num_samples: draws for each data set.
            variable_names, data_set_names: coordinates; see `diagnostics.to_arviz`.
            certificate: whether to certify the observations.
            seed: seed of everything random.
        """
        seed, num_samples = seeding.resolve(seed), positive_int(num_samples, "num_samples")
        approximator = self.approximator
        observed = as_variables(conditions, approximator.condition_names, may_miss=approximator.may_miss)
        n = len(next(iter(observed.values())))
        draws = approximator.sample(num_samples=num_samples, conditions=observed, seed=seed)
        flat: Variables = {
            name: draws[name].reshape(n * num_samples, *approximator.shapes[name])
            for name in approximator.inference_names
        }
        groups: dict[str, Any] = {}
        if all(member.has_density for member in approximator.members.values()):
            repeated = {name: np.repeat(value, num_samples, axis=0) for name, value in observed.items()}
            groups["sample_stats"] = {"lp": approximator.log_prob(flat | repeated).reshape(n, num_samples)}
        if self.simulator is not None:
            prior = self._references(num_samples, seeding.derive(seed, "prior"))
            groups["prior"] = {name: prior[name] for name in approximator.inference_names}
            groups["prior_predictive"] = {name: prior[name] for name in approximator.condition_names}
        if self._can_replicate:
            assert self.simulator is not None
            predictive = seeding.derive(seed, "predictive")
            simulated = replicated_data(self.simulator, flat, observed, num_samples, predictive)
            groups["posterior_predictive"] = {
                name: simulated[name].reshape(n, num_samples, *simulated[name].shape[1:])
                for name in approximator.condition_names
            }
        results = approximator.certify(observed, seed=seed) if certificate else []
        return to_arviz(
            {name: value.reshape(n, num_samples, *value.shape[1:]) for name, value in flat.items()},
            observed_data=observed,
            variable_names=variable_names,
            data_set_names=data_set_names,
            attrs={"certificates": json.dumps([one.as_dict() for one in results])} if certificate else {},
            **groups,
        )

    def _with_check(
        self,
        certificates: list[Certificate],
        check: PosteriorCheck,
        observed: Variables,
        references: Variables,
    ) -> list[Certificate]:
        """Certificates with the predictive check, and the p-value of all tests together where it is known."""
        n = len(certificates)
        both = {
            name: joined([observed[name], references[name]]) for name in self.approximator.condition_names
        }
        scores, words = check(both, n)
        rare = conformal_p_values(
            self.approximator, both, batch_size=check.batch_size, seed=seeding.derive(check.seed, "together")
        )
        sizes, ties = (
            Sizes(rare.sizes[n:], rare.sizes[:n]),
            tie_breakers(n, seeding.derive(check.seed, "together")),
        )
        predictive = joint_p_values(scores[n:], scores[:n], sizes=sizes, ties=ties).tolist()
        results = [
            replace(c, predictive=p, predictive_unusual=odd)
            for c, p, odd in zip(certificates, predictive, words, strict=True)
        ]
        if not rare.ranked_among or not rare.look_like_training_simulations(n):
            return results
        sizes = sizes._replace(out_of_range=rare.out_of_range[:n])
        known = rare.p_values[n:], rare.p_values[:n]
        together = joint_p_values(scores[n:], scores[:n], known, sizes=sizes, ties=ties).tolist()
        return [replace(c, together=p) for c, p in zip(results, together, strict=True)]

    def _references_like(self, observed: Variables, number: int, seed: int) -> Variables:
        """Simulations of the sizes of the observed sets, so many of each, four sizes at most."""
        sizes = self.approximator.set_sizes(observed)
        if not sizes.shape[1]:
            return self._references(number, seed)
        parts: list[Variables] = []
        while True:
            parts.append(self._references(_LOT * number, seeding.derive(seed, len(parts))))
            many = {
                name: joined([part[name] for part in parts]) for name in self.approximator.condition_names
            }
            chosen, exact = nearest_sizes(self.approximator.set_sizes(many), sizes, number, most=_MOST_SIZES)
            if exact or len(parts) == _MOST_LOTS:
                return {name: value[chosen.numpy()] for name, value in many.items()}

    @abstractmethod
    def _references(self, number: int, seed: int) -> Variables:
        """Simulations that did not fail."""

    @property
    def _can_replicate(self) -> bool:
        return self.simulator is not None and len(self.simulator.calls) > 1 and self.approximator.has_draws
