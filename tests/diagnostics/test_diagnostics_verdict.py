"""The verdict: right words for known flaws, right effect sizes, few false alarms, clear answers to odd
input."""

import json
import re

import numpy as np
import pytest
from gaussian_posterior import gaussian

from sbi_models.diagnostics import Estimate, judge
from sbi_models.diagnostics.verdict import Judgement
from sbi_models.diagnostics.verdict_tests import _holm
from sbi_models.diagnostics.verdict_words import sentence_of, summary
from sbi_models.errors import ConfigurationError, DataError

FLAWS = {
    "calibrated": {},
    "over-confident": {"width": 0.8},
    "under-confident": {"width": 1.25},
    "biased": {"shift": 0.3},
}


def flawed(expected: str, seed: int, dim: int):
    """500 data sets of 200 draws each whose verdict is known."""
    if expected == "uninformative":
        rng = np.random.default_rng(seed)
        return rng.normal(size=(500, 200, dim)), rng.normal(size=(500, dim))
    return gaussian(seed, n=500, draws=200, dim=dim, **FLAWS[expected])


@pytest.mark.parametrize("expected", [*FLAWS, "uninformative"])
@pytest.mark.parametrize("dim", [2, pytest.param(10, marks=pytest.mark.nightly)])
def test_the_word_is_right_for_known_flaws(expected, dim):
    """sd x 0.8, sd x 1.25, mean + 0.3 sd, the prior itself, and the exact posterior are told apart in each of
    3 seeds."""
    verdicts = [judge(*flawed(expected, seed, dim), seed=seed) for seed in range(3)]
    assert [verdict.label for verdict in verdicts] == [expected] * 3
    assert {label for verdict in verdicts for label in verdict.labels.values()} == {expected}
    assert all(verdict.joint is not None and verdict.joint.label == expected for verdict in verdicts)
    assert all(verdict.is_calibrated == (expected == "calibrated") for verdict in verdicts)


def test_p_values_of_an_exact_posterior_are_uniform():
    """Over 400 exact parameters, p-values of bias and spread have the mean and quantiles of a uniform, those
    of ranks are not too small."""
    tests = judge(*gaussian(1, n=60, draws=30, dim=400)).parameters
    for name in ("bias", "spread", "ranks"):
        p = np.array([check.p_value for row in tests for check in row.checks if check.name == name])
        assert abs(p.mean() - 0.5) < 0.06, name
        assert abs(np.mean(p < 0.1) - 0.1) < 0.06, name


@pytest.mark.nightly_cases("0.5-0.0", "2.0-0.0", "1.0--0.5", "0.8-0.4")
@pytest.mark.parametrize(("width", "shift"), [(1.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, -0.5), (0.8, 0.4)])
def test_effects_are_those_put_in(width, shift):
    """Of 40 parameters the width factor averages 1 / width, the bias shift / width, and 95 % intervals hold
    them for 33 or more."""
    rows = judge(*gaussian(2, n=400, draws=100, dim=40, width=width, shift=shift * width)).parameters
    factors, biases = [row.width_factor for row in rows], [row.bias for row in rows]
    assert np.mean([factor.value for factor in factors]) == pytest.approx(1 / width, rel=0.02)
    assert np.mean([bias.value for bias in biases]) == pytest.approx(shift, abs=0.03 / width)
    assert sum(factor.low <= 1 / width <= factor.high for factor in factors) >= 33
    assert sum(bias.low <= shift <= bias.high for bias in biases) >= 33


@pytest.mark.nightly_cases("60-25")
@pytest.mark.parametrize(("draws", "dim"), [(20, 3), (60, 25), (500, 2)])
def test_joint_width_is_right_with_few_draws(draws, dim):
    """The joint width factor of an exact posterior is 1 within 4 %, whatever the number of draws and
    parameters."""
    verdict = judge(*gaussian(3, n=1000, draws=draws, dim=dim))
    assert verdict.joint is not None
    assert verdict.joint.width_factor.value == pytest.approx(1.0, rel=0.04)
    assert verdict.joint.bias.low == 0.0


def test_joint_bias_is_the_length_of_the_shift():
    """A shift of 0.3 sds in each of 4 parameters is 0.6 joint sds."""
    verdict = judge(*gaussian(4, n=2000, dim=4, shift=0.3))
    assert verdict.joint is not None
    assert verdict.joint.bias.low < 0.6 < verdict.joint.bias.high
    assert verdict.joint.bias.value == pytest.approx(0.6, abs=0.05)


def test_contraction_has_its_interval():
    """Noise of half the prior sd leaves 0.2 of the variance: 0.8 is inside the interval, with the truth or
    with draws as the prior."""
    samples, truth = gaussian(5, n=500)
    for prior in (None, np.random.default_rng(5).normal(size=(2000, 2))):
        for row in judge(samples, truth, prior).parameters:
            assert row.contraction is not None
            assert row.contraction.low < 0.8 < row.contraction.high
            assert row.contraction.high - row.contraction.low < 0.08


def test_a_negative_share_of_the_prior_variance_has_the_sign_of_its_interval():
    """Posteriors wider than the prior: number and interval are negative, both with a minus, no hyphen."""
    sentence = judge(*gaussian(3, noise=2.0, width=2.0)).parameters[0].sentence
    assert re.search(r"; −\d+ % of the prior variance gone \(−\d+ to −\d+\)", sentence), sentence


def test_a_wrong_dependence_is_seen_jointly():
    """Draws with right marginals and without the posterior's correlation of 0.95 are flawed jointly, not by
    parameter."""
    rng = np.random.default_rng(6)
    mean = 3 * rng.normal(size=(500, 2))
    truth = mean + rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=500)
    verdict = judge(mean[:, None, :] + rng.normal(size=(500, 300, 2)), truth)
    assert set(verdict.labels.values()) == {"calibrated"}
    assert verdict.joint is not None
    assert verdict.joint.flaws
    assert verdict.label == verdict.joint.label


def test_a_wrong_form_of_right_width_is_miscalibrated():
    """Uniform draws of the mean and sd of a posterior that is exponential are found, and it is not called a
    matter of width."""
    rng = np.random.default_rng(7)
    place = 3 * rng.normal(size=(1500, 1))
    truth = place + rng.exponential(size=(1500, 1))
    samples = place[:, None, :] + 1 + rng.uniform(-np.sqrt(3), np.sqrt(3), size=(1500, 200, 1))
    (row,) = judge(samples, truth).parameters
    assert row.flaws
    assert row.width_factor.low < 1 < row.width_factor.high


def test_one_flawed_parameter_of_many_is_named():
    """Of ten parameters one is over-confident: it alone is, and it gives the verdict its word."""
    samples, truth = gaussian(8, n=500, draws=200, dim=10)
    mean = samples[..., 3].mean(axis=1, keepdims=True)
    samples[..., 3] = mean + 0.7 * (samples[..., 3] - mean)
    verdict = judge(samples, truth)
    assert verdict.label == "over-confident"
    assert [name for name, label in verdict.labels.items() if label != "calibrated"] == ["theta_3"]
    assert "theta_3" in verdict.sentence


def _moved(samples, *, width=(1.0, 1.0), shift=(0.0, 0.0)):
    """Draws with the sds of the data sets times `width`, and moved by `shift` of their sds."""
    mean, sd = samples.mean(axis=1, keepdims=True), samples.std(axis=1, keepdims=True)
    return mean + np.array(width) * (samples - mean) + np.array(shift) * sd


@pytest.mark.parametrize(
    ("width", "shift", "label"),
    [
        ((0.5, 1.0), (0.0, 0.3), "over-confident"),
        ((1.0, 0.5), (0.3, 0.0), "over-confident"),
        ((0.8, 1.0), (0.0, 1.5), "biased"),
        ((1.0, 0.8), (1.5, 0.0), "biased"),
        ((1.3, 1.0), (0.0, 1.5), "biased"),
        ((1.0, 2.0), (0.3, 0.0), "under-confident"),
    ],
)
def test_the_surest_flaw_gives_the_word(width, shift, label):
    """Of two parameters that are flawed in two ways, the surest flaw is the word of the verdict, whichever
    comes first."""
    samples, truth = gaussian(21, n=400, draws=100)
    verdict = judge(_moved(samples, width=width, shift=shift), truth)
    assert len(set(verdict.labels.values())) == 2
    assert verdict.label == label


@pytest.mark.parametrize(
    ("width", "shift", "flaws"),
    [
        (0.5, 0.2, ("over-confident", "biased")),
        (0.75, -1.0, ("biased", "over-confident")),
        (1.25, 1.0, ("biased", "under-confident")),
        (2.0, -0.3, ("under-confident", "biased")),
    ],
)
def test_two_flaws_of_a_parameter_are_told_the_surest_first(width, shift, flaws):
    """A parameter that is moved and of the wrong width has both words, in the order of their p-values."""
    samples, truth = gaussian(22, n=600, draws=100, dim=1)
    (row,) = judge(_moved(samples, width=width, shift=shift), truth).parameters
    assert row.flaws == flaws
    assert row.label == flaws[0]


def test_p_values_are_adjusted_by_holms_method():
    """Each is the largest of (m - k + 1) p over those at least as small, at most 1, which is never below the
    adjusted one of a smaller p; found is what is at most the level."""
    p_values = [0.9, 0.022, 0.01, 0.02, 0.6]
    checks = _holm([(f"test {k}", float(k), p) for k, p in enumerate(p_values)], 0.07)
    np.testing.assert_allclose([check.adjusted for check in checks], [1.0, 0.08, 0.05, 0.08, 1.0])
    assert [check.p_value for check in checks] == p_values
    assert [check.found for check in checks] == [False, False, True, False, False]
    ordered = sorted(np.random.default_rng(24).uniform(size=40) ** 3)
    adjusted = [check.adjusted for check in _holm([("", 0.0, p) for p in ordered], 0.05)]
    assert adjusted == sorted(adjusted)
    assert adjusted[0] == pytest.approx(40 * ordered[0])


def test_an_uninformative_parameter_beside_an_informative_one():
    """A parameter that the data say nothing of is called uninformative; the approximator as a whole is
    calibrated, and says so."""
    samples, truth = gaussian(9, n=500, draws=200, dim=1)
    rng = np.random.default_rng(9)
    samples = np.concatenate([samples, rng.normal(size=(500, 200, 1))], axis=2)
    verdict = judge(
        samples,
        np.concatenate([truth, rng.normal(size=(500, 1))], axis=1),
        variable_names=["known", "unknown"],
    )
    assert verdict.labels == {"known": "calibrated", "unknown": "uninformative"}
    assert verdict.is_calibrated
    assert "nothing is learnt about unknown" in verdict.sentence


def test_information_in_the_spread_alone_is_seen():
    """A posterior that knows |theta| but not its sign, so that its mean says nothing, is informative."""
    rng = np.random.default_rng(10)
    truth = rng.normal(size=(400, 1))
    samples = np.abs(truth)[:, None, :] * rng.choice([-1.0, 1.0], size=(400, 100, 1)) + 0.01 * rng.normal(
        size=(400, 100, 1)
    )
    assert judge(samples, truth).parameters[0].informative


def test_discrete_parameters_are_judged_exactly():
    """Four-valued parameters with many ties are calibrated when right in 20 seeds; draws of one value too
    many are found."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(300, 4, 1, 1)) * 2
        noise = rng.gumbel(size=(300, 4, 101, 1))
        values = np.argmax(
            logits + noise, axis=1
        )  # draws of the same categorical distribution, the truth being the last
        assert judge(values[:, :-1], values[:, -1], seed=seed).is_calibrated
    assert "biased" in judge(np.minimum(values[:, :-1] + 1, 3), values[:, -1]).parameters[0].flaws


def test_the_same_seed_gives_the_same_verdict():
    """Two calls agree; another seed changes p-values in their digits only."""
    problem = gaussian(11, n=200)
    assert judge(*problem, seed=1) == judge(*problem, seed=np.int64(1))
    first, second = (judge(*problem, seed=seed).parameters[0].checks[0].statistic for seed in (1, 2))
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


def test_json_holds_no_nan():
    """as_dict goes through strict JSON, with a constant parameter and with draws that are all equal."""
    samples, truth = gaussian(12, n=100, dim=3)
    samples[..., 0], truth[:, 0] = 0.1, 0.1
    samples[:10, :, 1] = 0.0
    verdict = judge(samples, truth)
    told = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert told["parameters"]["theta_0"]["label"] == "constant"
    assert told["parameters"]["theta_0"]["width_factor"]["value"] is None
    assert told["parameters"]["theta_1"]["width_factor"]["value"] is None
    assert told["parameters"]["theta_2"]["width_factor"]["value"] > 0
    assert told["label"] == verdict.label
    assert "0.1 in all test data" in str(verdict)


def test_a_constant_changes_nothing_for_the_others():
    """A constant parameter is set aside: the others have the tests and numbers that they have without it."""
    samples, truth = gaussian(13, n=100)
    zeros = np.zeros((100, 200, 1))
    with_it = judge(np.concatenate([samples, zeros], axis=2), np.concatenate([truth, zeros[:, 0]], axis=1))
    without = judge(samples, truth)
    assert str(with_it).splitlines()[:3] == str(without).splitlines()[:3]
    for row, expected in zip(
        [*with_it.parameters[:2], with_it.joint], [*without.parameters, without.joint], strict=True
    ):
        assert [check.p_value for check in row.checks] == pytest.approx(
            [check.p_value for check in expected.checks], rel=1e-9
        )


def test_copies_and_dead_draws_do_no_harm():
    """A parameter that is a copy of another leaves the exact posterior calibrated, without a warning; dead
    draws are over-confident."""
    samples, truth = gaussian(14, n=300)
    copied = judge(
        np.concatenate([samples, samples[..., :1]], axis=2),
        np.concatenate([truth, truth[:, :1]], axis=1),
        seed=1,
    )
    assert copied.label == "calibrated"
    assert judge(np.repeat(samples[:, :1], 50, axis=1), truth).label == "over-confident"


def test_one_parameter_has_no_joint_verdict_and_too_few_draws_neither():
    """The joint part is left out for one parameter, and for no more draws than parameters and two."""
    assert judge(*gaussian(15, n=50, dim=1)).joint is None
    assert judge(*gaussian(15, n=50, draws=12, dim=10)).joint is None
    assert judge(*gaussian(15, n=50, draws=13, dim=10)).joint is not None


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"n": 1}, "at least 20 data set"),
        ({"n": 19}, "at least 20 data set"),
        ({"draws": 1}, "at least 10 posterior draw"),
    ],
)
def test_too_little_is_refused(size, message):
    """One data set, 19 of them, or a single draw raise a DataError that says how many are needed."""
    with pytest.raises(DataError, match=message):
        judge(*gaussian(16, **size))


def test_one_bad_draw_is_refused():
    """A single NaN draw is an error that names its data set, not a verdict."""
    samples, truth = gaussian(17, n=30)
    samples[3, 4, 0] = np.nan
    with pytest.raises(DataError, match="1 of 30 data sets: 3"):
        judge(samples, truth)


def test_constants_alone_are_refused():
    """If no parameter varies, there is nothing to judge: a DataError."""
    with pytest.raises(DataError, match="constants only"):
        judge(np.zeros((30, 20, 1)), np.zeros((30, 1)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variable_keys": "thetta"}, DataError, "Did you mean 'theta'"),
        ({"variable_names": ["a"]}, DataError, "2 variable_names"),
        ({"false_alarms": 5}, ConfigurationError, "between 0 and 1"),
        ({"seed": -1}, ConfigurationError, "non-negative"),
        ({"falsealarms": 0.1}, ConfigurationError, "Did you mean 'false_alarms'"),
        ({"prior": {"phi": np.zeros((30, 2))}}, DataError, "prior draws of 'theta'"),
        ({"prior": np.zeros((30, 3))}, DataError, r"shape \(n, 2\)"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    """Unknown variables, wrong names, probabilities, seeds and priors, and misspelt options are errors that
    show the cure."""
    samples, truth = gaussian(18, n=30)
    with pytest.raises(error, match=message):
        judge({"theta": samples}, {"theta": truth}, **{"variable_keys": "theta", **options})


def test_the_whole_is_told_in_words():
    """The text of a verdict names word, direction, amount, interval and basis, and ends every sentence."""
    text = str(judge(*gaussian(19, n=500, shift=-0.4, width=0.7), variable_names=["speed", "spread"]))
    first, *rows = text.splitlines()
    assert "over-confident (speed, spread, all jointly)" in first.lower()
    assert "biased (speed, spread, all jointly)" in first
    assert "500 test data sets with 200 draws each" in first
    assert [row.split(":")[0].strip() for row in rows] == ["speed", "spread", "jointly"]
    assert "too low" in rows[0]
    assert "multiply sds by 1.4" in rows[1]
    assert all(line.endswith(".") for line in text.splitlines())


def test_estimates_hide_what_is_not_finite():
    """An estimate that is not defined is None in JSON."""
    assert Estimate(float("nan"), float("-inf"), 2.0).as_dict() == {"value": None, "low": None, "high": 2.0}


RIGHT, LOW, HIGH = Estimate(1.0, 0.9, 1.1), Estimate(0.8, 0.72, 0.89), Estimate(1.25, 1.12, 1.4)
NONE, OFF = Estimate(0.0, -0.1, 0.1), Estimate(0.2, 0.1, 0.3)


@pytest.mark.parametrize(
    ("width", "bias", "told"),
    [
        (RIGHT, NONE, ""),
        (Estimate(1.09, 1.0, 1.19), Estimate(0.14, 0.04, 0.24), ""),
        (LOW, NONE, "posteriors look too wide"),
        (HIGH, NONE, "posteriors look too narrow"),
        (RIGHT, OFF, "posteriors look too high"),
        (HIGH, Estimate(-0.2, -0.3, -0.1), "posteriors look too narrow and too low"),
    ],
)
def test_estimates_that_lean_are_told_beside_no_flaw(width, bias, told):
    """Right values outside of intervals half as wide again are told, as a wish for more data, in the sentence
    of a parameter and of the whole; those just outside of the interval are not. Jointly a bias, which is a
    length and never negative, is not told."""
    sentence = sentence_of((), width, bias, None, informative=True, checks=())
    assert sentence.startswith("No flaw found; right sds may be")
    assert told.replace(" and too low", "").replace("posteriors look too high", "") in sentence
    alone = sentence_of((), width, bias, Estimate(0.5, 0.4, 0.6), informative=True, checks=())
    assert (f"; {told}, which more test data would prove or refute" in alone) if told else "look" not in alone
    row = Judgement(
        "mass", "calibrated", (), alone, width, bias, Estimate(0.5, 0.4, 0.6), informative=True, checks=()
    )
    whole = summary("calibrated", [row], None, "60 test data sets", 0.0)
    assert (
        whole == "Calibrated: 60 test data sets show no "
        f"flaw{'; more of them would tell whether something is off with mass' * bool(told)}."
    )


def test_exact_posteriors_hardly_ever_lean():
    """Of 400 exact parameters at most 8, 2 %, are said to look wrong; a verdict without one says nothing."""
    rows = judge(*gaussian(5, n=100, draws=100, dim=400)).parameters
    assert sum("posteriors look too" in row.sentence for row in rows) <= 8
    assert judge(*gaussian(3, n=300, draws=100, dim=2)).sentence.endswith("show no flaw.")
