import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from fakes import load_fake, write_approximator
from mlflow.exceptions import MlflowException

import sbi_models.approximators
from sbi_models.errors import TrustWarning
from sbi_models.tracking import Tracker, loading, open_store, register, registry

pytestmark = pytest.mark.xdist_group("served")  # the tests share registered models

X = np.linspace(0, 1, 60).reshape(3, 20, 1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """A fake of each kind, registered and loaded through MLflow, as a user of MLflow alone would."""

    @cache
    def make(kind: str = "shift") -> Any:
        run_id = Tracker.start(store, "npe", kind, kind).run_id
        register(store, kind, write_approximator(root / kind, kind=kind), run_id, aliases=["champion"])
        return mlflow.pyfunc.load_model(f"models:/{kind}@champion")

    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store = open_store(root)
        patch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
        for module in (sbi_models.approximators, loading, registry):
            patch.setattr(module, "load_approximator", load_fake)
        yield make


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_mlflow_serves_the_posterior(served: Callable[..., Any]) -> None:
    """Through MLflow, equal seeds give equal draws of shape (num_datasets, num_samples, dim), other seeds
    others."""
    model = served()
    first, again, other = (model.predict(X, params={"num_samples": 7, "seed": seed}) for seed in (3, 3, 4))
    assert first.shape == (3, 7, 2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert model.predict(X).shape == (3, 1000, 2)
    (taken,) = model.metadata.signature.inputs.inputs
    assert (str(taken.shape), taken.type) == ("(-1, -1, 1)", np.float64)


def test_inputs_are_converted(served: Callable[..., Any]) -> None:
    """The sampler itself takes float32, integers, nested lists and a dict, and draws the same for equal
    values."""
    sampler = served().unwrap_python_model()
    ones = np.ones((2, 20, 1))
    inputs = [ones, ones.astype(np.float32), ones.astype(int), ones.tolist(), {"x": ones}]
    draws = [sampler.predict(None, value, {"num_samples": 4}) for value in inputs]
    assert draws[0].shape == (2, 4, 2)
    for other in draws[1:]:
        np.testing.assert_array_equal(other, draws[0])


@pytest.mark.parametrize(
    ("value", "params", "message"),
    [
        (np.full((1, 20, 1), np.nan), {}, "got 20 of 20 that are NaN or infinite"),
        (np.zeros((1, 19, 1)), {}, "Expected x of shape"),
        ([[1.0], [1.0, 2.0]], {}, "numbers of one shape in 'x', got ragged"),
        ({"y": X}, {}, "none named 'x'"),
        ({"x": X, "y": X}, {}, "Unknown array 'y'"),
        (X, {"num_samples": 0}, "num_samples as an integer from 1 to 100000, got 0"),
        (X, {"num_samples": 100_001}, "num_samples"),
        (X, {"num_samples": 2.5}, "num_samples"),
        (X, {"num_samples": True}, "num_samples"),
        (X, {"seed": -1}, "seed"),
        (
            X,
            {"output": "sumary"},
            "output as one of draws, summary, log_density, log_likelihood, got 'sumary'",
        ),
        (X, {"output": "summary", "num_samples": 1}, "num_samples as an integer from 2"),
        (X, {"num_sample": 5}, "Unknown param 'num_sample'. Did you mean 'num_samples'?"),
        (np.zeros((60, 20, 1)), {"num_samples": 100_000}, "at most 10000000 numbers in one answer"),
        (np.float32(1.0), {}, "Expected x of shape"),
        (np.zeros((10_001, 20, 1)), {"num_samples": 1}, "at most 10000 data sets in one request, got 10001"),
        (
            np.zeros((9_000, 1200, 1), dtype=np.float32),
            {"num_samples": 1},
            "at most 10000000 numbers in one request, got 10800000",
        ),
        (X, {"certificate": "yes"}, "certificate as true or false, got 'yes'"),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(
    served: Callable[..., Any], value: Any, params: dict[str, Any], message: str
) -> None:
    """NaN, wrong shapes, names and parameters are an invalid parameter value in one short line, never the
    whole array."""
    with pytest.raises(MlflowException) as caught:
        served().unwrap_python_model().predict(None, value, params)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert message in caught.value.message
    assert len(caught.value.message) < 200


def test_several_conditions_and_variables_go_by_name(served: Callable[..., Any]) -> None:
    """With two conditions and two variables, dicts go in and come out; a lone array is refused."""
    model = served("two_by_two")
    z = np.ones((3, 3))
    draws = model.predict({"x": X, "z": z}, params={"num_samples": 5})
    assert {name: array.shape for name, array in draws.items()} == {"a": (3, 5, 1), "b": (3, 5, 2)}
    with pytest.raises(MlflowException, match="dict with the arrays x, z"):
        model.unwrap_python_model().predict(None, X)


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_certificates_are_served_where_they_are_asked_for(served: Callable[..., Any]) -> None:
    """With certificate=True, through MLflow, a dict has the draws that come without, and a certificate for
    each data set, as JSON."""
    model = served()
    asked = model.predict(X, params={"num_samples": 4, "certificate": True})
    np.testing.assert_array_equal(asked["theta"], model.predict(X, params={"num_samples": 4}))
    assert [certificate["verdict"] for certificate in asked["certificates"]] == ["passed"] * 3
    assert json.loads(json.dumps(asked["certificates"])) == asked["certificates"]


def test_data_sets_that_fail_are_a_warning_without_being_asked_for(served: Callable[..., Any]) -> None:
    """An array of draws, as ever, comes with a TrustWarning that names the data set and the reason; others
    come without."""
    sampler = served().unwrap_python_model()
    odd = X.copy()
    odd[1:, 3] = 1000
    with pytest.warns(
        TrustWarning, match=r"data sets 1 and 2 of 3 \(counted from 0\) should not be trusted.*x is high"
    ):
        draws = sampler.predict(None, odd, {"num_samples": 4})
    assert draws.shape == (3, 4, 2)
    assert sampler.predict(None, X, {"num_samples": 4}).shape == (3, 4, 2)


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_summaries_are_those_of_the_draws(served: Callable[..., Any]) -> None:
    """output="summary", through MLflow: mean, sd and quantiles of the draws of the same seed, by variable,
    also with certificates."""
    model = served()
    draws = model.predict(X, params={"num_samples": 50, "seed": 3})
    summary = model.predict(
        X, params={"num_samples": 50, "seed": 3, "output": "summary", "certificate": True}
    )
    assert set(summary) == {"theta", "certificates"}
    theta = summary["theta"]
    assert theta["levels"] == [0.025, 0.25, 0.5, 0.75, 0.975]
    assert theta["quantiles"].shape == (3, 5, 2)
    np.testing.assert_allclose(theta["mean"], draws.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(theta["sd"], draws.std(axis=1) * np.sqrt(50 / 49), rtol=1e-6)
    for column, level in enumerate(theta["levels"]):
        np.testing.assert_allclose(
            theta["quantiles"][:, column], np.quantile(draws, level, axis=1), rtol=1e-6
        )


def test_log_densities_are_those_of_each_draw_given_its_own_observation(served: Callable[..., Any]) -> None:
    """output="log_density": the draws of the same seed, and their exact normal log densities, whatever number
    is computed at once."""
    sampler = served().unwrap_python_model()
    x = X * np.array([1.0, 5.0, -3.0]).reshape(3, 1, 1)
    answer = sampler.predict(None, x, {"num_samples": 7, "output": "log_density"})
    np.testing.assert_array_equal(answer["theta"], sampler.predict(None, x, {"num_samples": 7}))
    error = answer["theta"] - x.mean(axis=1)[:, None, :]
    np.testing.assert_allclose(
        answer["log_density"], (-0.5 * error**2 - 0.5 * np.log(2 * np.pi)).sum(axis=2), atol=1e-4
    )
    many = sampler.predict(None, x, {"num_samples": 9000, "output": "log_density"})
    assert many["log_density"].shape == (3, 9000)
