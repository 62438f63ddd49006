"""Custom diagnostics get draws, test data and names, and return whatever they return."""

import numpy as np
import pytest
from linear_gaussian import SIMULATOR, workflow

from sbi_models.errors import ConfigurationError


@pytest.fixture(scope="module")
def trained():
    """A workflow that has seen a little training."""
    short = workflow(seed=1, simulator=SIMULATOR)
    short.fit_online(epochs=1, num_batches_per_epoch=2, batch_size=16)
    return short


def test_functions_get_draws_data_and_names(trained):
    """A plot function gets the draws, all test data with the right rows, and the keywords variable_keys and
    variable_names."""

    def look(samples, test_data, variable_keys=None, variable_names=None, **kwargs):
        return samples["theta"].shape, test_data["x"].shape[0], variable_keys, variable_names, kwargs

    test_data = SIMULATOR.sample(5, seed=3)
    result = trained.plot_custom_diagnostics(
        test_data, plot_fns={"look": look}, num_samples=7, variable_names=["a", "b"], seed=1
    )
    assert result == {"look": ((5, 7, 2), 5, ["theta"], ["a", "b"], {})}


def test_a_number_draws_test_data_from_the_simulator(trained):
    """With a number of data sets, of any integer type, every function sees the same simulated data."""
    metrics = {name: lambda samples, test_data, **kwargs: test_data["x"] for name in ("one", "two")}
    result = trained.compute_custom_diagnostics(np.int64(4), metrics, num_samples=3, seed=2)
    assert len(result["one"]) == 4
    np.testing.assert_array_equal(result["one"], result["two"])


def test_what_is_no_function_is_refused_before_drawing(trained):
    """A name without a function is a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="Expected a function under the name 'oops'"):
        trained.plot_custom_diagnostics(3, plot_fns={"oops": None})
