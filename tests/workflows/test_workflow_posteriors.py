"""Trained workflows find posteriors that are known exactly."""

import numpy as np
import pytest
from linear_gaussian import SD, SIMULATOR, exact_log_prob, exact_mean, workflow

from sbi_models import BasicWorkflow, make_simulator
from sbi_models.networks import DeepSet, FlowMatching


def assert_is_exact(trained, test, mean, sd, exact, *, mean_error=0.1, sd_error=0.1, nats=0.05):
    """Means within a share of the exact sd (rms), sds within a share, mean log density within so many nats of
    the exact one."""
    draws = trained.sample(num_samples=400, conditions=test, seed=1)["theta"]
    assert np.sqrt(np.mean((draws.mean(axis=1) - mean) ** 2)) / sd < mean_error
    assert abs(draws.std(axis=1).mean() / sd - 1) < sd_error
    gap = np.mean(exact - trained.log_prob(test))
    assert abs(gap) < nats


@pytest.mark.nightly_cases("fit_online-0")
@pytest.mark.parametrize(
    ("method", "seed"),
    [("fit_online", 0), pytest.param("fit_online", 1, marks=pytest.mark.nightly), ("fit_offline", 2)],
)
# Seconds: the 500 steps of the claim.
def test_the_linear_gaussian_posterior_is_found(method, seed):
    """After 500 steps of flow matching, means, sds and log densities of 100 test data sets are those of the
    formula."""
    trained = workflow(widths=(32, 32), seed=seed)
    if method == "fit_online":
        history = trained.fit_online(epochs=5, num_batches_per_epoch=100, batch_size=128)
    else:
        history = trained.fit_offline(SIMULATOR.sample(12_800, seed=5), epochs=5, batch_size=128)
    assert history.history["loss"][-1] < 0.9 * history.history["loss"][0]
    test = SIMULATOR.sample(100, seed=99)
    assert_is_exact(trained, test, exact_mean(test["x"]), SD, exact_log_prob(test))


# Seconds: the steps that a summary network takes to a tenth of a posterior sd.
@pytest.mark.nightly
def test_a_deep_set_finds_the_mean_of_a_set():
    """With theta ~ 50 + 10 N(0, 1) and eight observations theta + 10 N(0, 1), the posterior through a summary
    network is the formula's."""
    simulator = make_simulator(
        [
            lambda batch_size, rng: {"theta": 50 + 10 * rng.normal(size=(batch_size, 1))},
            lambda theta, rng: {"x": theta[:, None, :] + 10 * rng.normal(size=(len(theta), 8, 1))},
        ],
        is_batched=True,
    )
    trained = BasicWorkflow(
        simulator,
        inference_variables="theta",
        summary_variables="x",
        inference_network=FlowMatching(widths=(48, 48), steps=8),
        summary_network=DeepSet(summary_dim=4, widths=(32, 32), head_widths=(32,)),
        standardize="all",
        initial_learning_rate=2e-3,
        seed=0,
        accelerator="cpu",
        progress=False,
    )
    trained.fit_online(epochs=4, num_batches_per_epoch=75, batch_size=128)
    test = simulator.sample(100, seed=98)
    mean, sd = 50 + (test["x"] - 50).sum(axis=1) / 9, 10 / 3
    exact = -(((test["theta"] - mean) / sd)[:, 0] ** 2) / 2 - np.log(sd * np.sqrt(2 * np.pi))
    assert_is_exact(trained, test, mean, sd, exact, mean_error=0.15)
