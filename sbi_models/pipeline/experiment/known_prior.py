"""The prior that a study knows: its score, by which compositions divide, and its density."""

from collections.abc import Sequence

from torch.distributions import Distribution

from sbi_models.approximators.composition.prior_scores import PriorScoreLike
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.study import KnowsPrior, KnowsPriorDensity, Study


def prior_of(study: Study, names: tuple[str, ...]) -> PriorScoreLike | None:
    """The prior of some inference variables, if the study knows it; else None.

    It is the score that the study gives, or the torch distributions of its simulator. Without one, a network
    can learn the prior.
    """
    if isinstance(study, KnowsPrior):
        return study.prior_score
    priors = study.simulator.priors
    return {name: priors[name] for name in names} if all(name in priors for name in names) else None


def density_of(study: Study, names: Sequence[str]) -> dict[str, Distribution]:
    """Torch distributions of the prior of some inference variables, from the study or its simulator.

    Raises:
        ConfigurationError: if neither knows one of them.
    """
    known = {**study.simulator.priors, **(study.prior() if isinstance(study, KnowsPriorDensity) else {})}
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"Expected a prior with a density for compose.likelihood, got none for {name!r}. Draw it by "
                "a torch distribution in the simulator, or give the study a method prior."
            )
    return {name: known[name] for name in names}
