"""A composition beside a learned likelihood: exact posteriors, which answer is returned and why, and what
does not fit."""

import json
import warnings

import numpy as np
import pytest
import torch
from compositional_models import compositional, exact, items, prior_score
from linear_gaussian import NOISE, SIMULATOR
from torch.distributions import Independent, Normal

import sbi_models as bf
from sbi_models.errors import ConfigurationError, DataError, NotFittedError, TrustWarning
from sbi_models.workflows.composed_likelihood import ComparedReport, elements_of
from sbi_models.workflows.likelihood.report import PosteriorReport

pytestmark = pytest.mark.xdist_group("composed-likelihoods")  # one process trains what these tests share

PRIOR = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
DATA = SIMULATOR.sample(20_000, seed=1)
ITEMS = items(2, 5, seed=2)
ONE = {"x": ITEMS["x"][:1]}
FEW = {"calibration_simulations": 500, "compute_prior_score": prior_score, "seed": 3}


def learned(data=DATA, **arguments):
    """A likelihood that is linear and normal, as the model, by least squares from its start."""
    settings = {
        "parameters": "theta",
        "observables": "x",
        "iid": "elements",
        "prior": PRIOR,
        "network": bf.networks.AutoregressiveMixture(1, trunk_width=0, head_width=8, head_blocks=0),
        "initial_learning_rate": 1e-7,
        "seed": 1,
        "progress": False,
    }
    made = bf.LikelihoodWorkflow(**(settings | arguments))
    if data is not None:
        made.fit_offline(data, epochs=1, batch_size=10_000)
    return made


@pytest.fixture(scope="module")
def right():
    return learned()


@pytest.fixture(scope="module")
def hasty():
    """A composition that was hardly trained."""
    made = compositional()
    made.fit_offline({name: value[:300] for name, value in DATA.items()}, epochs=1)
    return made


def ask(made, likelihood, conditions=ITEMS, **arguments):
    settings = {"num_samples": 2000, "conditions": conditions, "return_diagnostics": True, **FEW}
    return made.compositional_sample(likelihood=likelihood, **(settings | arguments))


def test_the_answer_of_a_good_likelihood_is_the_exact_posterior(hasty, right):
    """Five items, and a network that was hardly trained: means within 0.12 exact sd, sds
    within 8 %, without a warning; both answers are in the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrustWarning)
        draws, (report,) = ask(hasty, right, ONE)
    mean, sd = exact(ONE["x"])
    assert np.abs(draws["theta"].mean(axis=1) - mean).max() <= 0.12 * sd
    np.testing.assert_allclose(draws["theta"].std(axis=1) / sd, 1, atol=0.08)
    assert (report.returned, report.warnings) == ("likelihood", ())
    assert report.likelihood_p_value > 0.01
    np.testing.assert_allclose(report.likelihood_mean["theta"], mean[0], atol=0.1 * sd)
    apart = np.abs(np.subtract(report.composed_mean["theta"], report.likelihood_mean["theta"]))
    wider = np.square(report.composed_sd["theta"]) - np.square(report.likelihood_sd["theta"])
    assert report.difference == pytest.approx((apart / report.likelihood_sd["theta"]).max())
    explained = (apart - 2 * np.sqrt(np.maximum(wider, 0))) / report.likelihood_sd["theta"]
    assert report.unexplained == pytest.approx(max(0.0, explained.max()), abs=1e-9)
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["likelihood"]["method"] == "mcmc"


def test_a_wrong_likelihood_is_found_out_by_its_test(hasty):
    """Learned from data that are half an item's sd off, with 20 items: the draws are those of the
    composition, with a warning."""
    wrong = learned(DATA | {"x": DATA["x"] + [0.5 * NOISE, 0.0]})
    many = items(1, 20, seed=5)
    with pytest.warns(TrustWarning, match="learned likelihood is doubted.*posterior simulation-based"):
        draws, (report,) = ask(hasty, wrong, many, num_samples=50)
    assert report.returned == "composition"
    assert report.likelihood_p_value < 1e-6
    assert abs(report.likelihood_shift) == pytest.approx(0.5 * np.sqrt(20), abs=0.8)
    np.testing.assert_array_equal(draws["theta"][0].mean(axis=0), report.composed_mean["theta"])


def test_without_simulations_nothing_is_tested(hasty, right):
    """A list of data sets of other numbers of items, by components: without p-values, chains alone speak for
    the likelihood."""
    x = [ITEMS["x"][0], ITEMS["x"][1, :2]]
    draws, reports = ask(hasty, right, {"x": x}, num_samples=20, split=True, calibration_simulations=0)
    assert [value.shape for value in draws.values()] == [(2, 20, 1)] * 2
    assert [report.num_items for report in reports] == [5, 2]
    assert all(np.isnan(report.likelihood_p_value) for report in reports)
    assert [report.returned for report in reports] == ["likelihood"] * 2


# ---- which one is returned ----------------------------------------------------

GOOD = PosteriorReport(method="mcmc", effective_draws=900.0, log_evidence=0.0, outside_reach=0.0)
BAD = PosteriorReport(
    method="mcmc", effective_draws=3.0, log_evidence=0.0, outside_reach=0.0, warnings=("few draws",)
)


@pytest.mark.parametrize(
    ("composed", "of_likelihood", "p_value", "returned"),
    [
        ({}, GOOD, 0.5, "likelihood"),
        ({"sbc_p_value": 1e-5}, GOOD, 0.5, "likelihood"),
        ({"sbc_p_value": 0.5}, GOOD, 1e-5, "composition"),
        ({"sbc_p_value": 0.5}, BAD, 0.5, "composition"),
        ({"sbc_p_value": 1e-9}, GOOD, 1e-5, "likelihood"),
        ({"sbc_p_value": 1e-5}, GOOD, 1e-9, "composition"),
        ({"notes": ("lost",)}, BAD, np.nan, "composition"),
    ],
)
def test_which_answer_is_returned(composed, of_likelihood, p_value, returned):
    """The likelihood unless it is doubted, then the composition; of two doubted ones that of the larger
    p-value, and the composition where there is none. Doubts of what is returned are warnings."""
    report = ComparedReport(
        method="calibrated",
        num_items=5,
        **composed,
        likelihood=of_likelihood,
        likelihood_p_value=p_value,
        likelihood_shift=1.0,
        likelihood_variance=1.0,
        difference=0.0,
        sd_ratio=1.0,
    )
    assert report.returned == returned
    doubted = bool(report.likelihood_doubts)
    assert bool(report.warnings) == (doubted or returned == "composition")
    assert set(report.likelihood_doubts if returned == "likelihood" else report.composition_doubts) <= set(
        report.warnings
    )


@pytest.mark.parametrize(("apart", "ratio", "warned"), [(0.4, 2.0, 0), (0.6, 1.0, 1), (0.0, 0.5, 1)])
def test_two_good_answers_that_differ_are_a_warning(apart, ratio, warned):
    """More than half an sd apart without an explanation, or the composition much narrower; not if it is
    wider."""
    good = {"likelihood": GOOD, "difference": 3.0, "unexplained": apart, "sd_ratio": ratio}
    report = ComparedReport(method="gauss", num_items=5, **good)
    assert len(report.warnings) == warned
    doubted = ComparedReport(method="gauss", num_items=5, notes=("lost",), **good)
    assert doubted.warnings == ()


# ---- items as elements --------------------------------------------------------


def test_elements_of_sets_with_conditions():
    """Three sets of 2, 1 and 3 elements in two data sets; one condition has a value for each set, one for
    each element: what putting them one after the other by hand gives."""
    made = bf.LikelihoodWorkflow(parameters="theta", observables="x", conditions=["s", "e"], iid="sets")
    x = [np.arange(2.0)[:, None], np.array([[5.0]]), np.arange(7.0, 10)[:, None]]
    given = {"x": x, "s": np.array([[1.0], [2.0], [3.0]]), "e": [-part for part in x]}
    found = elements_of(made.approximator, given, [2, 1])
    for name, values in {
        "x": [[0, 1, 5], [7, 8, 9]],
        "s": [[1, 1, 2], [3, 3, 3]],
        "e": [[0, -1, -5], [-7, -8, -9]],
    }.items():
        for part, expected in zip(found[name], values, strict=True):
            np.testing.assert_array_equal(part[:, 0], expected)


# ---- what does not fit --------------------------------------------------------


def of_rows(**arguments):
    """A likelihood that was trained on a few simulations with other names or shapes."""
    data = {"theta": DATA["theta"][:64], "x": DATA["x"][:64]} | arguments.pop("data", {})
    made = learned(None, **arguments)
    made.fit_offline(data, epochs=1, batch_size=64)
    return made


SOME = DATA["theta"][:64]


@pytest.mark.parametrize(
    ("likelihood", "error", "message"),
    [
        (lambda: "nle", ConfigurationError, "likelihood as a trained LikelihoodWorkflow, got str"),
        (compositional, ConfigurationError, "trained LikelihoodWorkflow, got CompositionalWorkflow"),
        (lambda: learned(None), NotFittedError, "has not been trained"),
        (lambda: of_rows(iid=None), ConfigurationError, 'iid="elements".*got iid=None'),
        (
            lambda: of_rows(parameters="mu", data={"mu": SOME}, prior={"mu": PRIOR}),
            ConfigurationError,
            "with the parameters of the composition, 'theta', got 'mu'",
        ),
        (
            lambda: of_rows(observables="y", data={"y": SOME}),
            ConfigurationError,
            "observables and conditions of the composition, 'x', got 'y'",
        ),
        (
            lambda: of_rows(data={"x": SOME[:, :1]}),
            ConfigurationError,
            r"Expected 'x' of the likelihood as single elements .*\(2,\).*got shape \(1,\)",
        ),
        (
            lambda: of_rows(prior=None),
            ConfigurationError,
            "Expected the density of the prior for likelihood=",
        ),
    ],
    ids=["text", "workflow", "untrained", "iid", "parameters", "observables", "width", "prior"],
)
def test_likelihoods_that_do_not_fit(hasty, monkeypatch, likelihood, error, message):
    """Refused before anything is composed."""
    made = likelihood()
    monkeypatch.setattr(type(hasty.approximator), "compose", lambda *a, **k: pytest.fail("it has composed"))
    with pytest.raises(error, match=message):
        ask(hasty, made)


def test_items_that_do_not_fit(hasty, right):
    """NaN, and an axis too few, are refused as without a likelihood."""
    with pytest.raises(DataError, match=r"Expected 'x' of shape \(num_datasets, n_compositional, 2\)"):
        ask(hasty, right, {"x": ITEMS["x"][0]})
    with pytest.raises(DataError, match="NaN"):
        ask(hasty, right, {"x": np.where(np.arange(2) == 1, np.nan, ITEMS["x"])})


def test_a_torch_prior_of_the_call_is_that_of_the_likelihood(hasty):
    """A likelihood without a prior takes that of the call; another one gives another posterior."""
    made = of_rows(prior=None)
    settings = {"num_samples": 500, "calibration_simulations": 0}
    means = []
    for scale in (1.0, 0.05):
        prior = Independent(Normal(torch.zeros(2), scale * torch.ones(2)), 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrustWarning)
            _, (report,) = ask(hasty, made, ONE, compute_prior_score={"theta": prior}, **settings)
        means.append(np.abs(report.likelihood_mean["theta"]).max())
    assert means[1] < means[0] / 5
