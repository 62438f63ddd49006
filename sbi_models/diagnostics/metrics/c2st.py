"""C2ST: classifier two-sample tests of two sets of draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats
from sbi_models.diagnostics.metrics.classifiers import Classifier, check_pair, classifier_named, z_scaling
from sbi_models.errors import DataError
from sbi_models.seeding import derive
from sbi_models.types import Array


def c2st(
    first: object, second: object, classifier: Classifier = "mlp", *, folds: int = 5, seed: int = 0
) -> float:
    """Accuracy of a classifier of two sets of draws: 0.5 is indistinguishable, 1 far apart.

    Cross-validated; inputs in units of the mean and sd of the first set. Between a posterior and its
    reference, the usual score of benchmarks, on 10 000 draws each.

    Args:
        first: draws, shape (n, dim), any space; such as the reference posterior.
        second: draws, shape (m, dim), of the same space. Take m = n: the accuracy of unequal sets is above
            0.5 by guessing.
        classifier: "mlp" or "random_forest", as for `classifier_named`.
        folds: folds of the cross-validation.
        seed: seed of folds and classifier.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer draws than folds.
        ConfigurationError: an unknown classifier.

    References:
        Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests, ICLR. Lueckmann, Boelts, Greenberg,
        Gonçalves, Macke (2021), Benchmarking simulation-based inference, AISTATS.
    """
    return c2st_of_each([first], [second], classifier, folds=folds, seed=seed)[0]


def c2st_of_each(
    first: Sequence[object],
    second: Sequence[object],
    classifier: Classifier = "mlp",
    *,
    folds: int = 5,
    seed: int = 0,
) -> list[float]:
    """`c2st` of several pairs of sets of the same shapes; networks of "mlp" train side by side.

    Args:
        first: a set of draws (n, dim) for each pair.
        second: other sets, as many, (m, dim) each.
        classifier: see `c2st`.
        folds: see `c2st`.
        seed: seed of folds and classifiers, the same for each pair.

    Raises:
        DataError: see `c2st`; also if the pairs do not have the same shapes.
        ConfigurationError: an unknown classifier.
    """
    pairs = [check_pair(a, b, least=max(folds, 2)) for a, b in zip(first, second, strict=True)]
    shapes = {(a.shape, b.shape) for a, b in pairs}
    if len(shapes) > 1:
        raise DataError(
            f"Expected pairs of the same shapes, got {sorted(shapes)}. Call c2st with one at a time."
        )
    ((size, width), (other, _)) = shapes.pop()
    state = derive(seed, "c2st", "classifier")
    model = classifier_named(classifier, width, state)
    from sklearn.model_selection import StratifiedKFold, cross_val_score  # noqa: PLC0415 - slow to import

    labels = np.repeat([0, 1], [size, other])
    split = StratifiedKFold(folds, shuffle=True, random_state=derive(seed, "c2st", "folds") % 2**32)
    inputs = [_scaled(a, b) for a, b in pairs]
    if classifier != "mlp":
        return [
            float(np.mean(cross_val_score(model, values, labels, cv=split, scoring="accuracy")))
            for values in inputs
        ]
    return _accuracies_of_mlps(
        np.stack(inputs), labels, list(split.split(labels, labels)), model.get_params()
    )


def _scaled(a: Floats, b: Floats) -> Floats:
    """Both sets, one after the other, in units of the mean and sd of the first."""
    mean, sd = z_scaling(a)
    scaled: Floats = (np.concatenate([a, b]) - mean) / sd
    return scaled


def _accuracies_of_mlps(
    inputs: Floats, labels: Array, splits: list[tuple[Array, Array]], settings: dict[str, Any]
) -> list[float]:
    """Mean accuracy over the folds for each pair of `inputs`, (pairs, n, dim)."""
    from sbi_models.diagnostics.metrics.stacked_mlps import accuracies, trained  # noqa: PLC0415 - scikit-learn is slow to import

    scores = []
    for length in sorted(
        {len(rows) for rows, _ in splits}
    ):  # the folds of most sets have one length, else two
        alike = [(rows, left) for rows, left in splits if len(rows) == length]
        known = np.concatenate([inputs[:, rows] for rows, _ in alike])
        targets = np.concatenate([np.broadcast_to(labels[rows], (len(inputs), length)) for rows, _ in alike])
        stack, _ = trained(
            known, targets, settings["hidden_layer_sizes"], settings["random_state"], settings["max_iter"]
        )
        for k, (_, left) in enumerate(alike):
            networks = slice(k * len(inputs), (k + 1) * len(inputs))
            scores.append(accuracies(stack, networks, inputs[:, left], labels[left]))
    return [float(mean) for mean in np.mean(scores, axis=0)]
