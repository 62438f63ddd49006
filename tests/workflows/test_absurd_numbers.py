"""Numbers near the limits of floating point, and far from those of the training."""

import numpy as np
import pytest

import sbi_models as bf
from sbi_models.approximators.standardizer import Standardizer
from sbi_models.errors import ConfigurationError, DataError, TrustWarning


def data(n=200, seed=0):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 2))
    return {"theta": theta, "x": theta + rng.normal(size=(n, 2))}


def trained(data, **options):
    roles = {
        "inference_variables": "theta",
        "inference_conditions": "x",
        "standardize": "all",
        "seed": 1,
        "progress": False,
    }
    workflow = bf.BasicWorkflow(**(roles | options))
    workflow.fit_offline(data, epochs=1, batch_size=50)
    return workflow


@pytest.mark.parametrize("network", ["coupling_flow", "flow_matching", "autoregressive_mixture"])
def test_one_absurd_row_has_no_density_and_the_others_theirs(network):
    """log_prob is -inf, or a number, for parameters from 1e3 to 1e308, in that row alone; conditions are
    refused, by row."""
    simulations = data()
    workflow, few = (
        trained(simulations, inference_network=network),
        {name: value[:3] for name, value in simulations.items()},
    )
    expected = workflow.log_prob(few)
    for far in (1e3, 1e19, 1e30, 1e39, 1e308):
        theta = few["theta"].copy()
        theta[1, 0] = -far
        found = workflow.log_prob(few | {"theta": theta})
        np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])
        assert found[1] < -1e4
    x = few["x"].copy()
    x[2] = 1e300
    with pytest.raises(DataError, match=r"too large for float32 in data set 2 of 3 \(counted from 0\)"):
        workflow.log_prob(few | {"x": x})


@pytest.mark.parametrize("power", [-1000, -300, 300, 990])
def test_draws_in_units_of_any_size(power):
    """Parameters and data in units of 2^k give the draws and densities of a unit of 1, to the bit up to the
    factor."""
    simulations = data()
    unit = 2.0**power
    plain, scaled = trained(simulations), trained({name: unit * value for name, value in simulations.items()})
    few = {name: value[:5] for name, value in simulations.items()}
    draws = plain.sample(num_samples=20, conditions=few, seed=1)["theta"]
    found = scaled.sample(num_samples=20, conditions={"x": unit * few["x"]}, seed=1)["theta"]
    np.testing.assert_allclose(found / unit, draws, rtol=1e-12)
    density = scaled.log_prob({name: unit * value for name, value in few.items()})
    np.testing.assert_allclose(density + 2 * power * np.log(2), plain.log_prob(few), rtol=1e-6)


def test_moments_of_the_largest_and_least_numbers():
    """Mean and sd in float64 of numbers whose squares overflow or vanish, in the transform of adapters, too;
    constants keep an sd of 1."""
    torch = pytest.importorskip("torch")
    values = torch.as_tensor(np.random.default_rng(0).normal(3.0, 1.0, (500, 2)))
    for unit in (1e-300, 1e300):
        scaled = values * unit
        standardizer = Standardizer(("x",))
        standardizer.declare({"x": 2})
        standardizer.fit({"x": scaled})
        torch.testing.assert_close(standardizer.x_mean / unit, values.mean(dim=0))
        torch.testing.assert_close(standardizer.x_sd / unit, values.std(dim=0, correction=0))
        adapted = bf.Adapter().standardize("x").fitted({"x": scaled}).forward({"x": scaled})["x"]
        torch.testing.assert_close(adapted, (values - values.mean(dim=0)) / values.std(dim=0, correction=0))
        standardizer.fit({"x": torch.full_like(values, unit)})
        assert standardizer.x_sd.tolist() == [1.0, 1.0]


def test_draws_that_overflow_are_an_error_or_told():
    """Draws beyond the largest double are refused, and those that a logarithm cuts there are told."""
    simulations = data()
    big = trained(
        {"theta": simulations["theta"] / np.abs(simulations["theta"]).max() * 1.5e308, "x": simulations["x"]}
    )
    with pytest.raises(DataError, match=r"Expected draws of 'theta' that a double can hold.*larger unit"):
        big.sample(num_samples=20_000, conditions={"x": 100 * simulations["x"][:1]}, seed=1)
    logs = simulations | {"theta": np.exp(np.clip(230 * simulations["theta"], -700, 700))}
    workflow = trained(logs, adapter=bf.Adapter().log("theta"))
    with pytest.warns(TrustWarning, match="of the draws of 'theta' are too large for a double"):
        draws = workflow.sample(num_samples=3000, conditions={"x": simulations["x"][:5]}, seed=1)["theta"]
    assert np.isfinite(draws).all()


def test_missing_arguments_are_errors_of_the_project():
    """sample without conditions, or with none of its arguments by name, and others like it, say what they
    take."""
    workflow = bf.BasicWorkflow(inference_variables="theta", inference_conditions="x", seed=1)
    for call, name in (
        (lambda: workflow.sample(num_samples=5), "conditions"),
        (lambda: workflow.approximator.sample(conditions={}), "num_samples"),
        (workflow.log_prob, "data"),
        (workflow.certify, "conditions"),
        (workflow.fit_offline, "data"),
        (workflow.simulate, "num_simulations"),
    ):
        with pytest.raises(
            ConfigurationError,
            match=f"Expected the argument '{name}' of .* got none. Pass {name}=...; its arguments",
        ):
            call()
    with pytest.raises(
        ConfigurationError, match=r"Expected other arguments of .*sample: too many positional"
    ):
        workflow.sample(5, {})


def test_type_errors_inside_stay_as_they_are():
    """A TypeError of a function that was called rightly is not taken for one of its arguments."""
    workflow = bf.BasicWorkflow(inference_variables="theta", inference_conditions="x", seed=1, progress=False)

    def wrong(epoch, losses):
        return epoch + "1"

    with pytest.raises(TypeError, match="unsupported operand"):
        workflow.fit_offline(data(), epochs=1, batch_size=50, on_epoch_end=wrong)
