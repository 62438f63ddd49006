"""The prior that a study knows, for compositions, which divide by it."""

from sbi_models.approximators.composition.prior_scores import PriorScoreLike
from sbi_models.pipeline.experiment.study import KnowsPrior, Study


def prior_of(study: Study, names: tuple[str, ...]) -> PriorScoreLike | None:
    """The prior of some inference variables, if the study knows it; else None.

    It is the score that the study gives, or the torch distributions of its simulator. Without one, a network
    can learn the prior.
    """
    if isinstance(study, KnowsPrior):
        return study.prior_score
    priors = study.simulator.priors
    return {name: priors[name] for name in names} if all(name in priors for name in names) else None
