"""Parts of a workflow of learned likelihoods from its arguments: names, priors, networks, held-out data."""

from collections.abc import Mapping

from torch.distributions import Distribution

from sbi_models.approximators import LikelihoodApproximator
from sbi_models.approximators.likelihood import KINDS_OF_DATA
from sbi_models.errors import ConfigurationError
from sbi_models.simulators import Simulator
from sbi_models.workflows.construction import Names, priors_of, roles_of
from sbi_models.workflows.likelihood.prior import check_continuous


def continuous_priors(
    prior: Distribution | Mapping[str, Distribution] | None, simulator: Simulator | None, names: list[str]
) -> dict[str, Distribution]:
    """Torch distributions of the parameters in the simulations, as far as they are known."""
    known = priors_of(prior, simulator, {"inference_variables": names})
    for name in names:
        if name in known:
            check_continuous(name, known[name])
    return {name: known[name] for name in names if name in known}


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
