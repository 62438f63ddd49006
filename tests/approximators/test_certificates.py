"""Certificates: p-values that are exact, statistics that are what their names say, and what becomes of
files."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from small_approximators import approximator, data

from sbi_models import seeding
from sbi_models.approximators import Certificate, EnsembleApproximator, load_approximator
from sbi_models.approximators.certificates.certificate import NOT_KNOWN, p_in_words
from sbi_models.approximators.certificates.conformal import ConformalPValues, beta_binomial_tail
from sbi_models.approximators.certificates.explanations import GIVEN, describe_unusual, unusual_statistics
from sbi_models.approximators.certificates.ranks import Sizes, joint_p_values, p_values_of_each, tie_breakers
from sbi_models.approximators.certificates.scores import NonconformityScores, NormalScores
from sbi_models.approximators.certificates.statistics import observation_statistics
from sbi_models.errors import ConfigurationError, DataError, NotFittedError

LEVELS = (0.05, 0.2, 0.5)


def normal(*shape, seed=0):
    return torch.as_tensor(seeding.generator(seed, "certificates").normal(size=shape))


def learned(made, n=900):
    made.learn_certificate(data(n, seed=7), None, seed=1)
    return made


def within_binomial(p_values, level):
    """Whether the number of p-values at or below a level is one that a binomial number of that probability
    has 999 times in 1000."""
    low, high = stats.binom.interval(0.999, len(p_values), level)
    return low <= np.sum(np.asarray(p_values) <= level) <= high


def test_joint_p_values_are_uniform_whatever_the_scores_have_to_do_with_each_other():
    """Over 2000 new calibrations, an observation like the others has p <= a with probability a, with nine
    dependent scores."""
    mix = normal(9, 9, seed=1)
    p_values = [
        float(joint_p_values(scores[1:], scores[:1])) for scores in normal(2000, 100, 9, seed=2) @ mix
    ]
    assert all(within_binomial(p_values, level) for level in LEVELS)
    assert min(p_values) == pytest.approx(1 / 100)


def test_repeated_scores_cost_nothing():
    """The joint p-value of a score and copies of it is that of the score alone."""
    calibration, observed = normal(500, 1), normal(40, 1, seed=1)
    alone = joint_p_values(calibration, observed)
    torch.testing.assert_close(joint_p_values(calibration.repeat(1, 5), observed.repeat(1, 5)), alone)


def test_p_values_of_each_score_are_ranks_among_simulations():
    """Each is one plus the number of simulations with as large a score, over one plus their number."""
    calibration, observed = normal(50, 3).round(decimals=1), normal(7, 3, seed=1).round(decimals=1)
    expected = (1 + (calibration[None] >= observed[:, None]).sum(dim=1)) / 51
    torch.testing.assert_close(p_values_of_each(calibration, observed), expected.to(torch.float64))


def test_joint_p_values_with_known_ones_are_uniform():
    """Over 2000 new sets of references, p-values that other simulations gave, kept the same throughout,
    and scores that depend on them, are together as small as they should be; the rank is that of a loop
    over rows."""
    calibration, rows = normal(300, 4, seed=1), normal(2000, 100, 4, seed=2)
    p_values = []
    for row in rows:
        known, scores = p_values_of_each(calibration, row), row[:, :2] + row[:, 2:] ** 2
        p_values.append(float(joint_p_values(scores[1:], scores[:1], (known[1:], known[:1]))))
    assert all(within_binomial(p_values, level) for level in LEVELS)
    ranks = (scores[None] >= scores[:, None]).sum(dim=1) / 100
    both = torch.cat([ranks, known], dim=1)
    keys = [(float(row.min()), float(row.mean())) for row in both]
    assert p_values[-1] == pytest.approx(sum(key <= keys[0] for key in keys) / 100)


def test_known_p_values_are_as_fine_as_they_were():
    """A thousand simulations tell a rare row from a hundred references that are only somewhat rare, where all
    other scores are equal."""
    known = (torch.full((100, 1), 0.01, dtype=torch.float64), torch.full((1, 1), 0.001, dtype=torch.float64))
    assert float(joint_p_values(torch.zeros(100, 1), torch.zeros(1, 1), known)) == pytest.approx(1 / 101)


def test_references_that_are_unlike_the_training_are_noticed():
    """Ranks among 400 simulations: no one of 2000 sets of references like these is called unusual, and each
    with a shift by one sd is."""
    for shift, expected in ((0.0, 0), (1.0, 50)):
        unusual = 0
        for i in range(2000 if not expected else 50):
            scores = normal(600, 2, seed=i)
            scores[400:] += shift
            p_values = p_values_of_each(scores[:400], scores)
            unusual += not ConformalPValues(
                p_values, [400, 400], torch.empty(600, 0), torch.zeros(600, dtype=torch.bool)
            ).look_like_training_simulations(400)
        assert unusual == expected


def test_normal_scores_are_normal_and_increase_without_end():
    """Scores of new log-normal numbers pass a Kolmogorov test, and grow strictly beyond what was seen; those
    of a constant stay 0."""
    scores = NormalScores()
    scores.fit(torch.cat([normal(4000, 1).exp(), torch.full((4000, 1), 3.0, dtype=torch.float64)], dim=1))
    new = scores(
        torch.cat(
            [normal(500, 1, seed=3).exp(), torch.full((500, 1), 3.0 + 1e-8, dtype=torch.float64)], dim=1
        )
    )
    assert stats.kstest(new[:, 0].numpy(), "norm").pvalue > 0.01
    assert new[:, 1].abs().max() < 5
    far = scores(torch.tensor([[1e2, 3.0], [1e3, 3.0], [1e4, 4.0]], dtype=torch.float64))
    assert (far[:, 0].diff() > 1).all()
    assert far[2, 1] > 1e3


def test_a_space_sees_what_no_number_alone_shows():
    """A point between two arms of a cross is ordinary in each number, and the one with the farthest
    neighbours."""
    arms = 0.02 * normal(1000, 2)
    arms[:500, 0] += normal(500, seed=1)
    arms[500:, 1] += normal(500, seed=2)
    space = NonconformityScores(neighbours=True)
    space.fit(arms[torch.randperm(1000, generator=torch.Generator().manual_seed(0))])
    odd = space(torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    assert odd[0, 0] < 2
    assert odd[0, 2] > space(arms)[:, 2].quantile(0.995)


def test_statistics_are_what_their_names_say():
    """Moments, quantiles and extremes of a masked set are those that NumPy and SciPy find of the elements
    that are there."""
    values, mask = normal(5, 12, 2), torch.ones(5, 12, dtype=torch.bool)
    mask[:, 9:] = False
    values[~mask] = 1e6
    found = observation_statistics({"x": (values, mask)})
    there = values[:, :9, 1].numpy()
    expected = {
        "mean of x[1]": there.mean(axis=1),
        "median of x[1]": np.median(there, axis=1),
        "log sd of x[1]": np.log(there.std(axis=1)),
        "minimum of x[1]": there.min(axis=1),
        "maximum of x[1]": there.max(axis=1),
        "skewness of x[1]": stats.skew(there, axis=1),
        "log kurtosis of x[1]": np.log(stats.kurtosis(there, axis=1, fisher=False)),
        "log interquartile range of x[1]": np.log(stats.iqr(there, axis=1)),
        "log ratio of the sds of the halves of x[1]": np.log(
            there[:, 5:].std(axis=1) / there[:, :4].std(axis=1)
        ),
        "correlation of x[0] and x[1]": [
            np.corrcoef(values[i, :9, 0], values[i, :9, 1])[0, 1] for i in range(5)
        ],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("shape", [(1,), (40,), (1, 1), (3, 2), (7, 1), (6, 40), (4, 5, 3), (8, 8, 1)])
def test_statistics_of_any_shape_are_finite(shape):
    """Vectors, sets and images, also of constants, have finite statistics in float64, (n,) each."""
    for values in (normal(6, *shape).to(torch.float32), torch.zeros(6, *shape)):
        found = observation_statistics({"x": (values, None)})
        assert found
        assert all(
            value.shape == (6,) and value.dtype == torch.float64 and value.isfinite().all()
            for value in found.values()
        )


def test_p_values_of_an_approximator_are_uniform_under_the_model():
    """Of 1000 new simulations, as many have p <= 0.05, 0.2 and 0.5 as binomial bounds let, in all spaces
    together and in each."""
    certificates = learned(approximator(), 6000).certify(data(1000, seed=11), seed=0)
    for level in LEVELS:
        assert within_binomial([c.novelty for c in certificates], level)
        for space in certificates[0].spaces:
            assert within_binomial([c.spaces[space] for c in certificates], level)


def test_a_network_that_sees_nothing_does_not_hide_an_outlier():
    """With a summary network whose weights are zero, an observation with an outlier still fails, and the
    statistics say why."""
    made = approximator()
    for parameter in made.summary_network.parameters():
        parameter.data.zero_()
    learned(made)
    new = data(3, seed=5)
    new["x"][1, 2] += 12
    verdicts = made.certify(new)
    assert [c.verdict for c in verdicts] == ["passed", "failed", "passed"]
    assert "of x is above that of all simulations" in verdicts[1].warnings[0]


def test_files_keep_what_was_learned(tmp_path):
    """Certificates of a loaded approximator are those of the saved one, and JSON holds them."""
    made = learned(approximator())
    loaded = load_approximator(made.save(tmp_path / "file"))
    new = data(5, seed=9)
    saved = [c.as_dict() for c in made.certify(new, seed=0)]
    assert [c.as_dict() for c in loaded.certify(new, seed=0)] == saved
    assert json.loads(json.dumps(saved)) == saved


def test_old_files_load_and_say_that_nothing_is_known(tmp_path):
    """A file without these tensors, as all were before, loads and draws the same; its certificates are "not
    known"."""
    made = approximator()
    assert not any(name.startswith("novelty") for name in made.state_dict())
    loaded = load_approximator(made.save(tmp_path / "old"))
    (certificate,) = loaded.certify(data(1, seed=9))
    assert (certificate.verdict, certificate.trusted, certificate.p_value) == ("not known", False, None)
    assert certificate.warnings == (NOT_KNOWN,)
    draws = [a.sample(num_samples=3, conditions=data(2), seed=1)["theta"] for a in (made, learned(made))]
    np.testing.assert_array_equal(*draws)


def test_too_few_simulations_teach_nothing():
    """After 150 simulations certificates are "not known"; after 200 they are known."""
    assert learned(approximator(), 150).certify(data(1))[0].novelty is None
    assert learned(approximator(), 200).certify(data(1))[0].novelty is not None


def test_members_of_an_ensemble_are_taken_together(tmp_path):
    """Two members give p-values that are uniform under the model, jointly, and the ensemble of a file gives
    the same."""
    ensemble = EnsembleApproximator({"a": approximator(), "b": approximator(steps=5)})
    ensemble.learn_certificate(data(6000, seed=7), None, seed=1)
    new = data(400, seed=11)
    certificates = ensemble.certify(new, seed=3)
    for level in LEVELS:
        assert within_binomial([c.novelty for c in certificates], level)
    assert all(c.disagreement >= 0 and 0 < c.agreement <= 1 for c in certificates)
    loaded = load_approximator(ensemble.save(tmp_path / "file"))
    assert [c.as_dict() for c in loaded.certify(new, seed=3)] == [c.as_dict() for c in certificates]


def test_members_that_disagree_are_noticed():
    """One of two equal members whose posterior is shifted for some observations only fails these by the
    agreement of members."""
    ensemble = EnsembleApproximator(
        {"a": approximator(random_weights=False), "b": approximator(random_weights=False)}
    )
    ensemble.learn_certificate(data(900, seed=7), None, seed=1)
    for parameter in ensemble.members["b"].inference_network.parameters():
        parameter.data += 0.5
    certificate = ensemble.certify(data(1, seed=2), seed=0)[0]
    assert certificate.agreement == pytest.approx(1 / 201)
    assert any("disagree" in warning for warning in certificate.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": np.full((2, 6, 1), np.nan)},
            "Expected finite numbers, got NaN or inf in 2 of 2 rows of variable 'x' of the conditions",
        ),
        (
            {"x": np.zeros((2, 5, 1))},
            r"Expected 'x' in the conditions of shape \(n, 6, 1\), as in training, got \(2, 5, 1\)",
        ),
        ({"x": np.zeros((0, 6, 1))}, "at least one row"),
        ({"x": np.zeros((3, 6, 1))}, "same number of rows"),
    ],
)
def test_observations_that_do_not_fit_are_errors(change, message):
    """NaN, another shape, no rows and unequal rows are refused as by `sample`, with what was expected."""
    with pytest.raises(DataError, match=message):
        learned(approximator()).certify({**data(2), **change})


def test_arguments_are_checked():
    """A level outside (0, 1), a misspelt argument, and an approximator without training are errors that say
    so; any integer is a seed."""
    made = learned(approximator())
    for level in (0, 1, 5, True, "0.05", None):
        with pytest.raises(ConfigurationError, match="strictly between 0 and 1"):
            made.certify(data(1), level=level)
    with pytest.raises(ConfigurationError, match="Did you mean 'level'"):
        made.certify(data(1), levels=0.1)
    with pytest.raises(NotFittedError, match="has not been trained"):
        approximator(built=False).certify(data(1))
    assert made.certify(data(1), seed=np.int64(3), level=np.float64(0.1))[0].level == 0.1


def test_reasons_are_true_of_the_numbers():
    """What is above 99 % of simulations or more is named, with that share rounded down; ties are neither
    above nor below, so that a value that all simulations have is never named; each statistic comes once,
    derived ones last, and no more than three."""
    usual = torch.arange(1000, dtype=torch.float64)[:, None].repeat(1, 7)
    usual[:, 3] = 0.0
    usual[900:, 4] = 1000.0
    names = ["a of x", "a of x" + GIVEN, "b of x", "minimum of x", "maximum of x", "median of x", "c of x"]
    values = torch.tensor([[1500.0, -5.0, 994.5, 0.0, 1000.0, 2000.0, 500.0]], dtype=torch.float64)
    scores = torch.tensor([[9.0, -8.0, 2.6, 3.0, 3.0, 20.0, 0.1]], dtype=torch.float64)
    (found,) = unusual_statistics(names, values, scores, usual)
    assert describe_unusual(found) == (
        "a of x is above that of all simulations",
        "b of x is above that of 99.5 % of simulations",
        "median of x is above that of all simulations",
    )
    many = unusual_statistics(
        [f"{c} of x" for c in "abcde"], torch.full((1, 5), 2e3), torch.ones(1, 5), torch.zeros(100, 5)
    )
    assert len(many[0]) == 3


def test_scores_of_ties_are_those_of_mid_ranks():
    """A value that all simulations have scores 0; one that the lower 60 % have scores as their middle, the 30
    % quantile."""
    scores = NormalScores()
    tied = torch.cat([torch.zeros(600), torch.linspace(1, 2, 400)]).to(torch.float64)
    scores.fit(torch.stack([torch.full((1000,), 3.0, dtype=torch.float64), tied], dim=1))
    found = scores(torch.tensor([[3.0, 0.0], [3.0, 1.5]], dtype=torch.float64))
    assert found[:, 0].tolist() == [0.0, 0.0]
    assert -1.8 < float(found[0, 1]) < -1.2  # between knots 0.2 apart, from the lowest score to that of 60 %
    assert float(found[1, 1]) == pytest.approx(stats.norm.ppf(0.8), abs=0.1)


def test_p_values_of_tied_scores_are_valid_and_as_frequent_as_they_say():
    """Over 1000 sets of Poisson scores, p <= a has probability a with ties broken at random, and at most a
    without; where a tenth of all simulations is tied at the top, none of these is called rare."""
    rng = seeding.generator(3, "ties")
    rows = torch.as_tensor(rng.poisson(3.0, size=(1000, 200, 2)).astype(float))
    random = [float(joint_p_values(row[1:], row[:1], ties=tie_breakers(1, i))) for i, row in enumerate(rows)]
    careful = [float(joint_p_values(row[1:], row[:1])) for row in rows]
    assert all(within_binomial(random, level) for level in LEVELS)
    assert all(
        np.mean(np.asarray(careful) <= level) <= stats.binom.ppf(0.999, 1000, level) / 1000
        for level in LEVELS
    )
    common = torch.cat([torch.ones(20, 1), torch.zeros(179, 1)]).to(torch.float64)
    at_top = joint_p_values(common, torch.ones(500, 1, dtype=torch.float64), ties=tie_breakers(500, 1))
    assert (at_top == 21 / 200).all()


def test_p_values_are_exact_given_the_size():
    """Scores whose spread depends on the size of a set: over 400 calibrations, p <= 0.05 has probability 0.05
    for each of three sizes; compared with all sizes together, it has not. An unheard-of size has the smallest
    p-value."""
    rng = seeding.generator(4, "sizes")
    found, mixed = {3.0: [], 4.0: [], 9.0: []}, []
    for _ in range(400):
        sizes = torch.as_tensor(rng.choice([3.0, 4.0, 9.0], size=(400, 1)))
        scores = torch.as_tensor(rng.normal(size=(400, 2)).__abs__()) * 9 / sizes
        observed = torch.tensor([[3.0], [4.0], [9.0]], dtype=torch.float64)
        new = torch.as_tensor(rng.normal(size=(3, 2)).__abs__()) * 9 / observed
        for size, p in zip(
            found, joint_p_values(scores, new, sizes=Sizes(sizes, observed)).tolist(), strict=True
        ):
            found[size].append(p)
        mixed.append(float(joint_p_values(scores, new[:1])))
    assert all(within_binomial(p_values, 0.05) for p_values in found.values())
    assert not within_binomial(mixed, 0.05)
    strange = Sizes(sizes, observed, torch.tensor([False, False, True]))
    assert float(joint_p_values(scores, new * 0, sizes=strange)[2]) == pytest.approx(1 / 401)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0497, "0.0497"), (0.05, "0.05"), (0.0502, "0.0502"), (0.0321, "0.032"), (0.5, "0.5")]
)
def test_a_p_value_shows_on_which_side_of_the_level_it_is(p, text):
    """Two digits where they do, more where two would round it to the level; the words of a certificate have
    it so."""
    assert p_in_words(p) == text
    assert (f"(p = {text})" in "".join(Certificate(novelty=p).warnings)) == (p <= 0.05)


def test_a_certificate_says_what_failed():
    """Tests are corrected for their number; importance weights fail where few draws are of use, sooner with a
    heavy tail."""
    assert Certificate(novelty=0.03).verdict == "failed"
    assert Certificate(novelty=0.03, agreement=0.5).verdict == "passed"
    both = Certificate(novelty=0.02, predictive=0.02)
    assert both.p_value == pytest.approx(0.04)
    assert len(both.warnings) == 2
    one = Certificate(novelty=0.03, predictive=0.6, together=0.04)
    assert (one.p_value, one.verdict, len(one.warnings)) == (0.04, "failed", 1)
    assert Certificate(novelty=0.03, predictive=0.02, together=0.06).verdict == "passed"
    nearest = Certificate(novelty=0.07, predictive=0.06, together=0.04)
    assert [warning[:4] for warning in nearest.warnings] == ["Data"]
    assert Certificate(novelty=0.5, pareto_k=0.9, effective_sample_size=0.3).verdict == "failed"
    assert Certificate(novelty=0.5, pareto_k=0.2, effective_sample_size=0.05).verdict == "failed"
    assert Certificate(novelty=0.5, pareto_k=0.2, effective_sample_size=0.3).trusted
    assert Certificate(novelty=0.5, pareto_k=0.9, effective_sample_size=0.9).trusted


@pytest.mark.parametrize(("m", "a", "b"), [(1, 1, 20), (200, 50, 951), (40, 3.5, 2.0)])
def test_the_tail_of_beta_binomial_numbers(m, a, b):
    """It is that of scipy.stats, which processes that simulate do not import, for its memory."""
    for found in (0, 1, m // 2, m):
        assert beta_binomial_tail(found, m, a, b) == pytest.approx(
            stats.betabinom.sf(found - 1, m, a, b), rel=1e-9
        )
