"""Classifiers trained side by side against scikit-learn's, one at a time."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier

from sbi_models.diagnostics import c2st, c2st_of_each
from sbi_models.diagnostics.metrics.stacked_mlps import accuracies, trained
from sbi_models.errors import DataError


def sets(pairs=3, n=300, width=2, seed=0):
    """Pairs of normals, the second of each wider; shapes (pairs, n, width)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(pairs, n, width)), rng.normal(size=(pairs, n, width)) * np.array([1.0, 1.5, 3.0])[
        :pairs, None, None
    ]


def sklearn_of(x, y, epochs, state=7):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        units = (10 * x.shape[1], 10 * x.shape[1])
        return MLPClassifier(hidden_layer_sizes=units, max_iter=epochs, random_state=state).fit(
            x.astype(np.float32), y
        )


def test_losses_and_weights_are_those_of_scikit_learn():
    """Ten epochs of three networks on different data, with a last batch that is not full: losses to 1e-4,
    weights to 1e-2."""
    a, b = sets(n=350)
    x, y = np.concatenate([a, b], axis=1), np.repeat([0, 1], 350)
    stack, losses = trained(x, np.broadcast_to(y, (3, 700)), (20, 20), 7, 10)
    for k in range(3):
        theirs = sklearn_of(x[k], y, 10)
        np.testing.assert_allclose(losses[k], theirs.loss_curve_, rtol=1e-4)
        ours = stack.views(stack.parameters[k : k + 1])
        for mine, other in zip(ours[::2], theirs.coefs_, strict=True):
            np.testing.assert_allclose(mine[0].numpy(), other, atol=1e-2)
        for mine, other in zip(ours[1::2], theirs.intercepts_, strict=True):
            np.testing.assert_allclose(mine[0, 0].numpy(), other, atol=1e-2)
        assert accuracies(stack, slice(k, k + 1), x[k : k + 1], y)[0] == pytest.approx(
            theirs.score(x[k].astype(np.float32), y), abs=0.005
        )


@pytest.mark.nightly
def test_each_network_stops_by_itself_and_is_left_as_it_was():
    """Data that are told apart at once, and data that are not: other numbers of epochs; each as if it were
    alone."""
    a, b = sets(n=100)
    x, y = (
        np.concatenate([a, b + np.array([9.0, 0.0, 0.0])[:, None, None]], axis=1),
        np.broadcast_to(np.repeat([0, 1], 100), (3, 200)),
    )
    together, losses = trained(x, y, (20, 20), 3, 400)
    assert len({len(loss) for loss in losses}) > 1
    assert len(losses[0]) == pytest.approx(sklearn_of(x[0], y[0], 400, state=3).n_iter_, rel=0.1)
    for k in range(3):
        alone, loss = trained(x[k : k + 1], y[k : k + 1], (20, 20), 3, 400)
        assert loss[0] == pytest.approx(losses[k], rel=1e-3)
        torch.testing.assert_close(alone.parameters[0], together.parameters[k], rtol=0.0, atol=0.02)


@pytest.mark.nightly
def test_c2st_is_the_cross_validated_accuracy_of_scikit_learn():
    """Within 1.5 % on 300 and 301 draws, whose folds are of two lengths."""
    a, b = sets()
    first, second = a[2], np.concatenate([b[2], b[2][:1] + 0.1])
    x, y = np.concatenate([first, second]), np.repeat([0, 1], [300, 301])
    x = (x - first.mean(axis=0)) / first.std(axis=0)
    split = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
    theirs = np.mean(
        [
            sklearn_of(x[rows], y[rows], 1000).score(x[left].astype(np.float32), y[left])
            for rows, left in split
        ]
    )
    assert theirs > 0.7
    assert c2st(first, second, seed=1) == pytest.approx(theirs, abs=0.015)


@pytest.mark.nightly
def test_pairs_together_score_as_each_alone():
    """Up to what the order of sums does to a few labels."""
    first, second = sets(pairs=2, n=60)
    together = c2st_of_each(first, second, folds=2, seed=2)
    assert together == pytest.approx(
        [c2st(a, b, folds=2, seed=2) for a, b in zip(first, second, strict=True)], abs=0.02
    )
    assert together[1] > together[0]


def test_pairs_of_other_shapes_are_refused():
    """A DataError that names the shapes."""
    first, second = sets(pairs=2, n=20)
    with pytest.raises(DataError, match="same shapes"):
        c2st_of_each([first[0], first[1][:10]], [second[0], second[1][:10]])
