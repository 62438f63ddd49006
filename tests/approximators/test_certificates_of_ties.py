"""Words of certificates on statistics that many simulations share."""

import numpy as np
import pytest
import torch

from sbi_models.approximators.certificates.out_of_distribution import (
    ObservationFeatures,
    OutOfDistributionScores,
)
from sbi_models.approximators.certificates.statistics import observation_statistics

GIVEN = " (given the summaries)"


def features(x):
    """Statistics of sets (n, m) of counts, with mean and sd as summaries."""
    sets = torch.as_tensor(x, dtype=torch.float64)[..., None]
    named = observation_statistics({"x": (sets, None)})
    summaries = torch.cat([sets.mean(dim=1), sets.std(dim=1)], dim=1)
    none = torch.empty(len(x), 0, dtype=torch.float64)
    return ObservationFeatures(
        summaries, torch.stack(list(named.values()), dim=1), tuple(named), none, (), none
    )


def counts(n, rng, highest, size):
    return rng.poisson(rng.uniform(0.3, highest, size=(n, 1)), size=(n, size)).astype(float)


@pytest.mark.parametrize(("highest", "size"), [(3.0, 40), (4.0, 40), (3.0, 10)])
def test_what_many_simulations_share_is_not_named(highest, size):
    """A minimum of 0, as 80 to 98 % of the simulations have it, is above and below of none, for sets like
    those of the simulations and for others; what no simulation has still is named."""
    rng = np.random.default_rng(0)
    known, held_out = (features(counts(n, rng, highest, size)) for n in (2000, 1500))
    scores = OutOfDistributionScores()
    scores.fit(known, held_out, 1)
    new = np.concatenate(
        [
            counts(600, rng, highest, size),
            np.where(rng.uniform(size=(200, size)) < 0.5, 0.0, 2.0),
            np.where(rng.uniform(size=(200, size)) < 0.7, 0.0, 6.0),
        ]
    )
    points = features(new)
    minimum = points.names.index("minimum of x")
    assert 0.8 < float((held_out.statistics[:, minimum] == 0).double().mean()) < 0.99
    named = 0
    for row, words in enumerate(scores.unusual(points)):
        for sentence in words:
            name = sentence.split(" is ")[0].removesuffix(GIVEN)
            column = points.names.index(name)
            ties = held_out.statistics[:, column] == points.statistics[row, column]
            assert float(ties.double().mean()) < 0.15, sentence
            named += 1
    assert named > 50
    (words,) = scores.unusual(features(np.full((1, size), 9.0)))
    assert "mean of x is above that of all simulations" in words
