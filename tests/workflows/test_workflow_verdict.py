"""The verdict of every kind of workflow, on the linear-Gaussian model whose posterior is a formula."""

import numpy as np
import pytest
from compositional_models import compositional, exact
from linear_gaussian import SD, SIMULATOR, ensemble, exact_mean, workflow

from sbi_models.diagnostics import Verdict
from sbi_models.errors import ConfigurationError, DataError

MAKERS = {"basic": workflow, "ensemble": ensemble, "compositional": compositional}


def exact_draws(test, number=200, width=1.0, seed=0):
    """Draws of the exact posterior of test simulations, or of one of another width."""
    noise = np.random.default_rng(seed).normal(size=(len(test["x"]), number, 2))
    return {"theta": exact_mean(test["x"])[:, None, :] + width * SD * noise}


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_every_workflow_judges_what_it_has_learned(maker):
    """After two steps of training a workflow gives a verdict on its own draws, for each parameter, that
    repeats with the seed."""
    made = maker()
    made.fit_online(epochs=1, num_batches_per_epoch=2, batch_size=16)
    verdict = made.verdict(np.int64(60), num_samples=np.int64(30), seed=1, variable_names=["a", "b"])
    assert isinstance(verdict, Verdict)
    assert list(verdict.labels) == ["a", "b"]
    assert (verdict.num_datasets, verdict.num_draws) == (60, 30)
    assert not verdict.is_calibrated
    assert made.verdict(60, num_samples=30, seed=1, variable_names=["a", "b"]) == verdict


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_given_draws_are_judged(maker):
    """Exact draws are calibrated, those of 0.7 of the width over-confident by a factor of 1 / 0.7, whatever
    the workflow has learned."""
    test = SIMULATOR.sample(400, seed=2)
    assert maker().verdict(test, samples=exact_draws(test), seed=2).is_calibrated
    narrow = maker().verdict(test, samples=exact_draws(test, width=0.7), seed=2)
    assert narrow.label == "over-confident"
    assert narrow.joint is not None
    assert narrow.joint.width_factor.value == pytest.approx(1 / 0.7, rel=0.07)


def test_composed_draws_are_judged():
    """Exact posteriors of theta given 5 observations each are calibrated, those of a single one, which are
    wider, are not."""
    rng = np.random.default_rng(3)
    theta = SIMULATOR.sample(300, seed=3)["theta"]
    x = SIMULATOR.sample(1500, seed=4, theta=np.repeat(theta, 5, axis=0))["x"].reshape(300, 5, 2)
    mean, sd = exact(x)
    noise = rng.normal(size=(300, 200, 2))
    made = compositional()
    assert made.verdict(
        {"theta": theta, "x": x}, samples={"theta": mean[:, None] + sd * noise}, seed=3
    ).is_calibrated
    assert (
        made.verdict({"theta": theta, "x": x}, samples={"theta": mean[:, None] + SD * noise}, seed=3).label
        == "under-confident"
    )


def test_prior_draws_are_what_contraction_is_measured_by():
    """With a prior of twice the sd, the contraction is 1 - 0.2 / 4 instead of 0.8."""
    test = SIMULATOR.sample(300, seed=6)
    prior = {"theta": 2 * np.random.default_rng(6).normal(size=(5000, 2))}
    for row in workflow().verdict(test, samples=exact_draws(test), prior=prior, seed=6).parameters:
        assert row.contraction is not None
        assert row.contraction.value == pytest.approx(0.95, abs=0.01)


def test_bad_arguments_of_a_verdict_are_refused():
    """One data set, a misspelt option, and draws of another variable are errors that show the cure."""
    test = SIMULATOR.sample(30, seed=7)
    with pytest.raises(DataError, match="at least 20 data set"):
        workflow().verdict(SIMULATOR.sample(1, seed=7), samples={"theta": np.zeros((1, 50, 2))})
    with pytest.raises(ConfigurationError, match="Did you mean 'false_alarms'"):
        workflow().verdict(test, false_alarm=0.1)
    with pytest.raises(DataError, match="no draws of 'theta'"):
        workflow().verdict(test, samples={"thetas": np.zeros((30, 50, 2))})
