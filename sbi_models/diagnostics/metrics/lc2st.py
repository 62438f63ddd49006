"""L-C2ST: local two-sample test of the posterior of one observation, without draws of the true one."""

import warnings
from dataclasses import dataclass

import numpy as np

from sbi_models.arguments import positive_int
from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite, check_samples
from sbi_models.diagnostics.metrics.classifiers import Classifier, classifier_named, z_scaling
from sbi_models.errors import DataError
from sbi_models.seeding import derive, generator


@dataclass(frozen=True)
class LocalTest:
    """Statistic and p-value of each observation, (n_observed,), and statistics under the null hypothesis.

    The statistic is near 0 for a right posterior, and at most 1/4; `null` has shape (num_null, n_observed).
    """

    statistic: Floats
    p_values: Floats
    null: Floats


def local_c2st(
    samples: object,
    truth: object,
    data: object,
    observed_samples: object,
    observed_data: object,
    *,
    classifier: Classifier = "mlp",
    num_null: int = 100,
    seed: int = 0,
) -> LocalTest:
    """Test the posterior of each observation by the certainty of a classifier of (draw, x) and (truth, x).

    A classifier d learns to tell (draw of the posterior of x_i, x_i) from (truth_i, x_i) over test
    simulations. At an observation x_o,

        t(x_o) = mean_s (d(draw_s, x_o) - 1/2)^2

    over draws of its posterior. Under the null hypothesis draw and truth of a data set may be swapped:
    `num_null` classifiers learn from swapped pairs, and the p-value is the share of them that are as sure.

    Args:
        samples: posterior draws for test simulations, (num_datasets, S, dim), raw space, of which one each is
            used.
        truth: true values, (num_datasets, dim), raw space; some thousands are advised.
        data: what the posteriors are conditioned on, or summaries of it, (num_datasets, ...), any space.
        observed_samples: posterior draws of the observations, (n_observed, S, dim), raw space.
        observed_data: the observations, (n_observed, ...), in the space of `data`.
        classifier: "mlp" or "random_forest".
        num_null: classifiers under the null hypothesis, each as slow as the test itself.
        seed: seed of everything random.

    Raises:
        DataError: the arrays do not fit or are not finite, or hold fewer than 10 data sets.
        ConfigurationError: an unknown classifier, or a num_null that is no positive integer.

    References:
        Linhart, Gramfort, Rodrigues (2023), L-C2ST: Local diagnostics for posterior approximations in
        simulation-based inference, NeurIPS.
    """
    draws, true = check_samples(samples, truth, min_datasets=10)
    at = as_floats("observed_samples", observed_samples)
    if at.ndim != 3 or at.shape[2] != true.shape[1] or not at.shape[1]:
        raise DataError(
            f"Expected observed_samples of shape (n_observed, S, {true.shape[1]}), got {at.shape}."
        )
    check_finite("observed_samples", at)
    x, x_observed = _rows("data", data, len(true)), _rows("observed_data", observed_data, len(at))
    if x.shape[1] != x_observed.shape[1]:
        raise DataError(
            f"Expected observed_data of {x.shape[1]} numbers each, as data, got "
            f"{x_observed.shape[1]}. Pass the same variables."
        )
    pairs = np.stack([np.concatenate([draws[:, 0], x], axis=1), np.concatenate([true, x], axis=1)])
    points = np.concatenate([at, np.repeat(x_observed[:, None, :], at.shape[1], axis=1)], axis=2)
    mean, sd = z_scaling(pairs[1])
    pairs, points = (pairs - mean) / sd, (points - mean) / sd
    statistic = _sureness(pairs, points, classifier, derive(seed, "lc2st"))
    rng = generator(seed, "lc2st", "swaps")
    null = []
    for trial in range(positive_int(num_null, "num_null")):
        swap = rng.random(len(true)) < 0.5
        swapped = np.where(swap[None, :, None], pairs[::-1], pairs)
        null.append(_sureness(swapped, points, classifier, derive(seed, "lc2st", trial)))
    as_sure = np.sum(np.array(null) >= statistic, axis=0)
    return LocalTest(statistic, (as_sure + 1.0) / (len(null) + 1.0), np.array(null))


def _sureness(pairs: Floats, points: Floats, classifier: Classifier, seed: int) -> Floats:
    """Statistic t of every observation: pairs (2, n, width), points (n_observed, S, width)."""
    model = classifier_named(classifier, pairs.shape[2], seed)
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - slow to import

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # stopping at 1000 epochs is the rule for all classifiers alike
        model.fit(pairs.reshape(-1, pairs.shape[2]), np.repeat([0, 1], pairs.shape[1]))
    sure = model.predict_proba(points.reshape(-1, points.shape[2]))[:, 1].reshape(points.shape[:2])
    statistic: Floats = np.mean((sure - 0.5) ** 2, axis=1)
    return statistic


def _rows(name: str, values: object, n: int) -> Floats:
    array = as_floats(name, values)
    if array.ndim < 1 or len(array) != n:
        raise DataError(
            f"Expected {name} of {n} data sets, got shape {array.shape}. Pass one for each data "
            "set with draws, in their order."
        )
    rows = array.reshape(n, -1)
    check_finite(name, rows)
    return rows
