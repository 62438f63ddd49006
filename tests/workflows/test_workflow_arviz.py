"""Posteriors for ArviZ: the same numbers under its names."""

import json
import sys

import numpy as np
import pytest
from linear_gaussian import SIMULATOR, ensemble, workflow

from sbi_models.diagnostics import to_arviz
from sbi_models.errors import ConfigurationError, DataError

DATA = SIMULATOR.sample(300, seed=1)
X = {"x": np.array([[0.3, -0.2], [0.0, 1.0], [1.0, 1.0]])}


@pytest.fixture(scope="module")
def trained():
    made = workflow()
    made.fit_offline(DATA, epochs=2)
    return made


def test_draws_densities_and_data_are_those_of_the_workflow(trained):
    """Posterior, log densities, observations and certificates under ArviZ's names equal those of sample,
    log_prob and certify."""
    data = trained.to_arviz(
        X, num_samples=40, variable_names={"theta": ["a", "b"]}, data_set_names=["u", "v", "w"], seed=3
    )
    draws = trained.sample(num_samples=40, conditions=X, seed=3)["theta"]
    posterior = data.posterior["theta"]
    assert posterior.dims == ("chain", "draw", "data_set", "theta_dim_0")
    assert posterior.sizes["chain"] == 1
    np.testing.assert_array_equal(posterior.sel(data_set="v", theta_dim_0="b").values[0], draws[1, :, 1])
    lp = trained.log_prob({"theta": draws[2], "x": np.repeat(X["x"][2:], 40, axis=0)})
    np.testing.assert_allclose(data.sample_stats["lp"].sel(data_set="w").values[0], lp, rtol=1e-5)
    np.testing.assert_array_equal(data.observed_data["x"].sel(data_set="u").values, X["x"][0])
    assert data.posterior_predictive["x"].shape == (1, 40, 3, 2)
    assert data.prior["theta"].shape == data.prior_predictive["x"].shape == (1, 40, 2)
    certificates = json.loads(data.posterior.attrs["certificates"])
    assert certificates == [certificate.as_dict() for certificate in trained.approximator.certify(X, seed=3)]


def test_arviz_goes_on_with_them(trained):
    """ArviZ's own summary has the means and sds of the draws."""
    import arviz  # noqa: PLC0415

    data = trained.to_arviz(X, num_samples=200, certificate=False, seed=np.int64(1))
    draws = trained.sample(num_samples=200, conditions=X, seed=1)["theta"]
    table = arviz.summary(data, kind="stats", round_to="none")
    np.testing.assert_allclose(table["mean"].to_numpy().reshape(3, 2), draws.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(table["sd"].to_numpy().reshape(3, 2), draws.std(axis=1, ddof=1), rtol=1e-6)


def test_an_ensemble_without_a_simulator_has_what_can_be_computed():
    """Draws of a mixture of a workflow without a simulator have densities, and neither predictive draws nor a
    prior."""
    made = ensemble(simulator=None)
    made.fit_offline(DATA, epochs=1)
    assert sorted(made.to_arviz(X, num_samples=5, seed=1).groups()) == [
        "observed_data",
        "posterior",
        "sample_stats",
    ]


def test_without_arviz_the_cure_is_named(trained, monkeypatch):
    """If ArviZ is not installed, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ConfigurationError, match=r'pip install "sbi-models\[arviz\]"'):
        trained.to_arviz(X, num_samples=3)


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ({}, {}, "at least one variable"),
        (np.zeros((2, 3, 1)), {}, "samples as a dict"),
        ({"a": np.zeros(3)}, {}, r"shape \(num_datasets, num_samples, ...\)"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 4))}, {}, "same numbers of data sets and draws"),
        ({"a": np.zeros((2, 3))}, {"data_set_names": ["1"]}, "Expected 2 data_set_names"),
        ({"a": np.zeros((2, 3, 2))}, {"variable_names": {"a": ["x"]}}, "Expected 2 names"),
        ({"a": np.zeros((2, 3))}, {"observed_data": {"x": np.zeros((5, 1))}}, "Expected observed_data 'x'"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(samples, options, message):
    """Shapes and names that do not go together are refused with what was expected."""
    with pytest.raises(DataError, match=message):
        to_arviz(samples, **options)
