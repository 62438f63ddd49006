"""Parts of a workflow of learned likelihoods from its arguments: names, priors, networks, held-out data."""

from collections.abc import Mapping
from typing import Any

from torch.distributions import Distribution

from sbi_models.approximators import Approximator, LikelihoodApproximator
from sbi_models.approximators.element_likelihood import likelihood_members
from sbi_models.approximators.likelihood import KINDS_OF_DATA
from sbi_models.errors import ConfigurationError
from sbi_models.simulators import Simulator
from sbi_models.simulators.prior_json import distribution_from_json, distribution_to_json
from sbi_models.workflows.construction import Names, priors_of, roles_of
from sbi_models.workflows.likelihood.prior import check_continuous, support_bounds

PRIOR = "prior"
"""Name of the prior of the simulations in the notes of a saved likelihood."""


def continuous_priors(
    prior: Distribution | Mapping[str, Distribution] | None, simulator: Simulator | None, names: list[str]
) -> dict[str, Distribution]:
    """Torch distributions of the parameters in the simulations, as far as they are known."""
    known = priors_of(prior, simulator, {"inference_variables": names})
    for name in names:
        if name in known:
            check_continuous(name, known[name])
    return {name: known[name] for name in names if name in known}


def known_continuous(
    prior: Distribution | Mapping[str, Distribution] | None, simulator: Simulator | None, names: list[str]
) -> dict[str, Distribution]:
    """Torch distributions of parameters as far as they are known, and continuous."""
    known = priors_of(prior, simulator, {"inference_variables": names})
    continuous = {name: one for name, one in known.items() if not is_discrete(one)}
    return {name: continuous[name] for name in names if name in continuous}


def is_discrete(distribution: Distribution) -> bool:
    """Whether a distribution is one of categories or counts."""
    support: Any = distribution.support
    return bool(support.is_discrete)


def likelihood_info(
    iid: str | None, conditions: list[str], priors: Mapping[str, Distribution]
) -> dict[str, Any]:
    """What the file of a likelihood says: kind of data, conditions of elements, support and prior.

    The prior is kept as far as JSON can hold it.
    """
    bounds = {name: support_bounds(name, one) for name, one in priors.items()}
    kept = {name: distribution_to_json(one) for name, one in priors.items()}
    return {
        "likelihood": {
            "iid": iid,
            "element_conditions": conditions,
            "support": {name: [list(ends) for ends in both] for name, both in bounds.items() if both},
            PRIOR: {name: content for name, content in kept.items() if content is not None},
        }
    }


def prior_of_file(approximator: Approximator) -> dict[str, Distribution]:
    """The prior that a saved likelihood has kept, as far as all members agree; none in earlier files."""
    first, *others = [
        member.info["likelihood"].get(PRIOR, {}) for _, member in likelihood_members(approximator)
    ]
    return {
        name: distribution_from_json(content)
        for name, content in first.items()
        if all(other.get(name) == content for other in others)
    }


def check_names(parameters: list[str], observables: list[str], iid: object) -> None:
    if not parameters or not observables:
        raise ConfigurationError(
            f"Expected parameters and observables, got {parameters} and {observables}. Pass for instance "
            "parameters=['theta'], observables=['x']."
        )
    if iid not in KINDS_OF_DATA:
        raise ConfigurationError(
            f'Expected iid as "elements", "sets" or None, got {iid!r}. With "elements" a simulation is one.'
        )


def agreeing(
    first: LikelihoodApproximator,
    parameters: Names | None,
    observables: Names | None,
    conditions: Names | None,
    iid: str | None,
) -> list[str]:
    """Names of the parameters of an approximator; those that are given beside it must be its own."""
    given = roles_of(observables, parameters, conditions)
    own = {
        "observables": (given["inference_variables"], list(first.inference_names)),
        "parameters": (given["inference_conditions"], list(first.parameter_names)),
        "conditions": (given["summary_variables"], list(first.element_conditions)),
    }
    for what, (got, known) in own.items():
        if got and got != known:
            raise ConfigurationError(
                f"The approximator has {what}={known}, got {got}. Leave {what} out, or pass a network."
            )
    if iid is not None and iid != first.iid:
        raise ConfigurationError(f"The approximator has iid={first.iid!r}, got {iid!r}. Leave iid out.")
    return list(first.parameter_names)
