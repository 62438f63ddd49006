"""C2ST: can a classifier tell two sets of draws apart?"""

import warnings

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats
from sbi_models.diagnostics.metrics.classifiers import Classifier, check_pair, classifier_named, z_scaling
from sbi_models.seeding import derive


def c2st(first: object, second: object, classifier: Classifier = "mlp", *, folds: int = 5, seed: int = 0) -> float:
    """The accuracy of a classifier that tells draws of one set from those of the other: 0.5 is indistinguishable, 1 far apart.

    Cross-validated; inputs in units of the mean and sd of the first set. Between a posterior and its reference, the usual score of
    benchmarks, on 10 000 draws each.

    Args:
        first: draws, shape (n, dim), any space; such as the reference posterior.
        second: draws, shape (m, dim), of the same space. Take m = n: the accuracy of unequal sets is above 0.5 by guessing.
        classifier: "mlp" or "random_forest", as for `classifier_named`.
        folds: of the cross-validation.
        seed: of folds and classifier.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer draws than folds.
        ConfigurationError: an unknown classifier.

    References:
        Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests, ICLR.
        Lueckmann, Boelts, Greenberg, Gonçalves, Macke (2021), Benchmarking simulation-based inference, AISTATS.
    """
    a, b = check_pair(first, second, least=max(folds, 2))
    model = classifier_named(classifier, a.shape[1], derive(seed, "c2st", "classifier"))
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - slow to import
    from sklearn.model_selection import StratifiedKFold, cross_val_score  # noqa: PLC0415

    mean, sd = z_scaling(a)
    inputs: Floats = (np.concatenate([a, b]) - mean) / sd
    labels = np.repeat([0, 1], [len(a), len(b)])
    split = StratifiedKFold(folds, shuffle=True, random_state=derive(seed, "c2st", "folds") % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the benchmark stops at 1000 epochs, too
        return float(np.mean(cross_val_score(model, inputs, labels, cv=split, scoring="accuracy")))
