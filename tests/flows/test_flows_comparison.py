"""Two models on the same simulations: limits against SciPy and by counts, and the word that they lead to."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sbi_models.errors import DataError
from sbi_models.pipeline.model_comparison import Comparison, compare, compared

TRUE = {"narrow": -0.5, "exponential": -1.0, "lognormal": -float(np.exp(0.5)), "student": 0.0, "rare": -0.1}
"""The mean of each law of differences in `draw`."""


def draw(law: str, rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    """Differences of scores as they come: of a model that is too narrow, with disasters, heavy tails; laws in
    `TRUE`."""
    if law == "narrow":
        return -0.5 * rng.chisquare(1, shape)
    if law == "exponential":
        return -rng.exponential(size=shape)
    if law == "lognormal":
        return -rng.lognormal(size=shape)
    if law == "student":
        return rng.standard_t(4, shape)
    return np.where(rng.random(shape) < 0.05, -2.0, 0.2 * rng.normal(size=shape))


class Dependent:
    """A model of two variables without a density: unit normal around x, with a correlation between them."""

    inference_names = ("a", "b")

    def __init__(self, correlation: float) -> None:
        self._correlation = correlation
        self.members = {"": SimpleNamespace(has_density=False)}

    def sample(self, *, num_samples: int, conditions: Any, seed: int) -> Any:
        return self.around(conditions["x"][:, None], num_samples, np.random.default_rng(seed))

    def around(self, place: Any, num_samples: int, rng: np.random.Generator) -> Any:
        rho, noise = self._correlation, rng.normal(size=(2, len(place), num_samples, 1))
        return {"a": place + noise[0], "b": place + rho * noise[0] + np.sqrt(1 - rho**2) * noise[1]}


class Fake:
    """A model with given log densities; without them its posterior is unit normal around 3 x + shift."""

    inference_names = ("theta",)

    def __init__(self, log_densities: Any = None, shift: float = 0.0) -> None:
        self._log_densities, self._shift = log_densities, shift
        self.members = {"": SimpleNamespace(has_density=log_densities is not None)}

    def log_prob(self, data: Any) -> Any:
        return np.asarray(self._log_densities, dtype=np.float32)

    def sample(self, *, num_samples: int, conditions: Any, seed: int) -> Any:
        noise = np.random.default_rng(seed).normal(size=(len(conditions["x"]), num_samples, 1))
        return {"theta": 3 * conditions["x"][:, None, :] + self._shift + noise}


def of(differences: Any, **settings: float) -> Comparison:
    """The comparison with these differences of log densities."""
    return compared(
        np.asarray(differences, dtype=np.float64),
        np.zeros(len(differences)),
        **{"margin": 0.02, "level": 0.01} | settings,
    )


def test_limits_are_those_of_scipy_for_differences_without_skewness() -> None:
    """Mean and limits are those of SciPy's paired t-test, at half the level for each of two looks."""
    rng = np.random.default_rng(1)
    half = rng.normal(size=30)
    differences = np.concatenate([half, -half]) + 0.1
    found = of(differences)
    expected = stats.ttest_rel(differences, np.zeros(60)).confidence_interval(0.99)
    np.testing.assert_allclose(
        [found.difference, found.low, found.high], [0.1, expected.low, expected.high], rtol=1e-2
    )
    assert found.low <= expected.low
    assert found.high >= expected.high


@pytest.mark.parametrize("law", TRUE)
def test_a_limit_is_missed_as_seldom_as_it_says(law: str) -> None:
    """Of 1000 samples of 100 differences of skewed, heavy-tailed and rarely disastrous laws, no more have a
    lower limit above the true mean than a binomial of twice the level admits; by Student's t alone, more are
    too high for the skewed ones."""
    rng = np.random.default_rng([3, sorted(TRUE).index(law)])
    samples = draw(law, rng, (1000, 100))
    missed = sum(of(sample).low > TRUE[law] for sample in samples)
    assert missed <= stats.binom.isf(1e-4, 1000, 2 * 0.005)
    plain = samples.mean(1) - stats.t.isf(0.005, 99) * samples.std(1, ddof=1) / 10
    assert (plain > TRUE[law]).sum() > missed or law in {"student", "rare"}


@pytest.mark.parametrize(
    ("mean", "spread", "word"),
    [
        (0.10, 0.001, "better"),
        (0.03, 0.001, "better"),
        (0.00, 0.001, "equal"),
        (-0.01, 0.001, "equal"),
        (0.01, 0.001, "equal"),
        (0.012, 0.006, "equal or better"),
        (-0.01, 0.006, "not known"),
        (0.02, 0.04, "not known"),
        (-0.03, 0.006, "worse"),
        (-0.10, 0.001, "worse"),
    ],
)
def test_the_word_follows_from_the_limits_and_the_margin(mean: float, spread: float, word: str) -> None:
    """A margin of 0.02 nats, and limits 2.6 standard errors of a given size around a given mean: what passes
    is equal or better."""
    n = 1000
    noise = np.linspace(-1, 1, n)
    found = of(mean + noise / noise.std(ddof=1) * spread * np.sqrt(n))
    assert found.word == word
    assert found.not_worse == (word in {"better", "equal", "equal or better"})
    assert f"{mean:+.4f} nats (99 % interval " in found.in_words("models:/a/1")
    assert "on 1000 test simulations; the margin is 0.02" in found.in_words("models:/a/1")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.0, 1.0, "equal or better"), (1e-9, 1.0, "better"), (-1.0, 0.0, "not known"), (-1.0, -1e-9, "worse")],
)
def test_a_limit_of_zero_shows_no_sign(low: float, high: float, word: str) -> None:
    """Better is a mean whose limits are both above zero, worse one whose limits are both below."""
    made = Comparison("log density", (low + high) / 2, low, high, 0.02, 0.01, 100, 1.0)
    assert made.word == word


def test_as_many_as_it_takes_do_tell() -> None:
    """With as many simulations as are wanted by the spread of a hundred, seven of eight models that are equal
    are called so, and none of those that are worse by two margins passes."""
    rng = np.random.default_rng(3)
    equal = passed = 0
    for _ in range(200):
        wanted = of(0.2 * rng.normal(size=100)).wanted
        equal += of(0.2 * rng.normal(size=wanted)).word == "equal"
        passed += of(0.2 * rng.normal(size=wanted) - 0.04).not_worse
    assert equal >= 175
    assert passed == 0


@pytest.mark.parametrize(
    ("difference", "word"), [(0.0, "equal"), (-1.0, "worse"), (1.0, "better"), (-0.0078125, "equal")]
)
def test_without_spread_the_difference_is_known(difference: float, word: str) -> None:
    """Models that differ by a constant need no limits."""
    found = of(np.full(30, difference))
    assert (found.word, found.low, found.high, found.is_open) == (word, difference, difference, False)


@pytest.mark.parametrize(
    ("new", "old", "word"), [(1, 0, "not known"), (9, 0, "worse"), (9, 9, "not known"), (0, 3, "equal")]
)
def test_densities_of_zero(new: int, old: int, word: str) -> None:
    """A challenger that says of simulations that their parameters cannot be never passes, and is worse where
    that is no chance; where both say so, and where the champion alone does, the other simulations decide."""
    rng = np.random.default_rng(4)
    first = rng.normal(size=400)
    second = first + 0.01 * rng.normal(size=400)
    first[:new] = -np.inf
    second[new : new + old] = -np.inf
    first[-1] = second[-1] = -np.inf
    found = compared(first, second, margin=0.02, level=0.01)
    assert (found.word, found.impossible) == (word, (new, old))
    assert found.not_worse == (new == 0)
    if new:
        assert f"it says of {new} of them that their parameters cannot be" in found.in_words("models:/a/1")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_an_error(wrong: float) -> None:
    """NaN and infinite densities are told with their number, and whose they are."""
    scores = np.array([0.0, wrong, 0.0])
    with pytest.raises(DataError, match="scores of the challenger that are numbers, got 1 of 3"):
        compared(scores, np.zeros(3), margin=0.02, level=0.01)
    with pytest.raises(DataError, match="scores of the champion"):
        compared(np.zeros(3), scores, margin=0.02, level=0.01)


def test_models_without_a_density_have_the_energy_score() -> None:
    """If one of two has no density, draws decide: a shifted posterior is worse, a right one better, equal
    ones equal; a shift of 0.4 sds makes the score worse by about 0.4² / 2, as it does a log density in
    nats."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 1))
    test = {"x": x, "theta": 3 * x + rng.normal(size=(600, 1))}
    right, wrong, dense = Fake(), Fake(shift=0.4), Fake(np.zeros(600))
    worse, better, equal = (
        compare(*pair, test, seed=0) for pair in ((wrong, dense), (dense, wrong), (right, right))
    )  # type: ignore[arg-type]
    assert {found.score for found in (worse, better, equal)} == {"energy score"}
    assert (worse.word, better.word, equal.word, equal.difference) == ("worse", "better", "equal", 0.0)
    assert worse.difference == pytest.approx(-0.08, abs=0.03)
    assert "of the other's" in worse.in_words("models:/a/1")


def test_a_wrong_dependence_of_two_variables_is_worse() -> None:
    """Without a density, a challenger of correlation -0.95 between two variables is worse than a champion of
    the true +0.95, whose marginals are the same, and the other way round it is better."""
    x = np.random.default_rng(5).normal(size=(600, 1))
    right, wrong = Dependent(0.95), Dependent(-0.95)
    drawn = right.around(x[:, None], 1, np.random.default_rng(6))
    test = {"x": x} | {name: values[:, 0] for name, values in drawn.items()}
    assert compare(wrong, right, test, seed=0).word == "worse"  # type: ignore[arg-type]
    assert compare(right, wrong, test, seed=0).word == "better"  # type: ignore[arg-type]


def test_each_limit_has_half_of_its_level() -> None:
    """Limits of symmetric differences are Student's at level / 2, for levels of 0.2, 0.05 and 0.001 alike, to
    a thousandth of a standard error."""
    half = np.random.default_rng(7).normal(size=200)
    differences = np.concatenate([half, -half]) + 0.3
    for level in (0.2, 0.05, 0.001):
        found = of(differences, level=level)
        reach = stats.t.isf(level / 2, 399) * differences.std(ddof=1) / 20
        np.testing.assert_allclose([found.low, found.high], [0.3 - reach, 0.3 + reach], atol=1e-3 * reach)
