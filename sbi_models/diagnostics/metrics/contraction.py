"""Posterior z-scores and posterior contraction."""

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite, check_samples
from sbi_models.diagnostics.metrics.registry import default_metric
from sbi_models.errors import DataError


def z_scores(samples: object, truth: object) -> Floats:
    """Posterior z-score: (posterior mean - truth) in posterior standard deviations.

        z = (mean - truth) / sd,  sd with ddof = 1

    About N(0, 1) over data sets if posteriors are right and near Gaussian; |z| large means biased or
    over-confident.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space, S >= 2.
        truth: true values, shape (num_datasets, dim), raw space.

    Returns:
        Shape (num_datasets, dim), no unit. Where all draws are equal: 0 if they equal the truth, else -inf or
        inf.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 draws.

    References:
        Schad, Betancourt, Vasishth (2021), Toward a principled Bayesian workflow in cognitive science,
        Psychological Methods.

    >>> z_scores([[[0.0], [2.0], [4.0]]], [[1.0]]).tolist()
    [[0.5]]
    """
    draws, true = check_samples(samples, truth, min_draws=2)
    mean, sd = _moments(draws)
    distance = mean - true
    spread = sd > 0.0
    certain = np.where(distance == 0.0, 0.0, np.copysign(np.inf, distance))
    scores: Floats = np.where(spread, distance / np.where(spread, sd, 1.0), certain)
    return scores


@default_metric("Posterior Contraction", "1 is best", row=3)
def posterior_contraction(samples: object, truth: object, prior_variance: object = None) -> Floats:
    """Posterior contraction, 1 - posterior variance / prior variance: 1 is certainty, 0 the prior.

    It is below 0 if the posterior is wider than the prior.

        1 - var_posterior / var_prior,  both with ddof = 1

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space, S >= 2.
        truth: true values, shape (num_datasets, dim), raw space; their variance stands for the prior's unless
            that is given.
        prior_variance: variance of the prior, shape (dim,) or a number, in squared units of the parameter.

    Returns:
        Shape (num_datasets, dim), no unit; NaN for a parameter of prior variance 0, where there is nothing to
        learn.

    Raises:
        DataError: the arrays do not fit or are not finite, fewer than 2 draws, or fewer than 2 data sets and
            no prior variance.

    References:
        Schad, Betancourt, Vasishth (2021), as for `z_scores`.

    >>> posterior_contraction([[[0.0], [2.0], [4.0]]], [[1.0]], prior_variance=[16.0]).tolist()
    [[0.75]]
    """
    draws, true = check_samples(samples, truth, min_draws=2, min_datasets=2 if prior_variance is None else 1)
    prior = _variance(true, axis=0) if prior_variance is None else _given(prior_variance, true.shape[1])
    _, sd = _moments(draws)
    varied = prior > 0.0
    contraction: Floats = np.where(varied, 1.0 - sd**2 / np.where(varied, prior, 1.0), np.nan)
    return contraction


def _moments(draws: Floats) -> tuple[Floats, Floats]:
    """Mean and sd (ddof = 1) of each data set, shape (n, dim), exact where all draws are equal."""
    sd = np.sqrt(_variance(draws, axis=1))
    return np.where(sd > 0.0, draws.mean(axis=1), draws[:, 0]), sd


def _variance(values: Floats, axis: int) -> Floats:
    """Variance (ddof = 1), exactly 0 where all values are equal, despite rounding of the mean."""
    variance: Floats = np.where(np.ptp(values, axis=axis) > 0.0, values.var(axis=axis, ddof=1), 0.0)
    return variance


def _given(prior_variance: object, dim: int) -> Floats:
    variance = as_floats("prior_variance", prior_variance)
    if variance.shape not in ((), (dim,)):
        raise DataError(
            f"Expected prior_variance of shape ({dim},), got {variance.shape}. Pass one variance "
            "for each parameter."
        )
    check_finite("prior_variance", np.atleast_1d(variance))
    if np.any(variance < 0.0):
        raise DataError(
            f"Expected prior_variance of 0 or more, got {variance.min()}. Pass variances, in "
            "squared units of the parameters."
        )
    return np.broadcast_to(variance, (dim,))
