import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator, EnsembleApproximator, ScoringRuleApproximator
from sbi_models.errors import TrustWarning
from sbi_models.networks import ConsistencyModel, CouplingFlow, DeepSet, FlowMatching, ScoringRuleNetwork
from sbi_models.tracking import Store, Tracker, load, register
from sbi_models.tracking.served import PosteriorSampler


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_a_real_approximator_goes_through_the_registry(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved, registered and loaded, by us or by MLflow, an approximator draws what it drew before."""
    import mlflow.pyfunc  # noqa: PLC0415

    random = seeding.generator(0, "tracking test")
    data = {"theta": random.normal(size=(64, 2)), "x": random.normal(size=(64, 20, 1))}
    roles = {"inference_variables": ["theta"], "summary_variables": ["x"]}
    made = ContinuousApproximator(
        adapter=default_adapter(roles),
        roles=roles,
        inference_network=FlowMatching(),
        summary_network=DeepSet(),
        info={"unit": "m"},
    )
    made.build(data, seed=0)
    path = made.save(tmp_path / "model.keras")
    registered = register(
        store, "real", path, Tracker.start(store, "npe", "first", "key").run_id, aliases=["champion"]
    )
    before = made.sample(num_samples=5, conditions={"x": data["x"][:3]}, seed=1)["theta"]
    after = load(registered.uri, store).sample(num_samples=5, conditions={"x": data["x"][:3]}, seed=1)[
        "theta"
    ]
    np.testing.assert_array_equal(after, before)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    served = mlflow.pyfunc.load_model("models:/real@champion")
    np.testing.assert_array_equal(served.predict(data["x"][:3], params={"num_samples": 5, "seed": 1}), before)


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_point_estimates_go_through_the_registry(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point estimator that is loaded, by us or by MLflow, estimates what it estimated before; MLflow gives
    each estimate by name."""
    import mlflow.pyfunc  # noqa: PLC0415

    random = seeding.generator(0, "tracking test")
    data = {"theta": random.normal(size=(64, 2)), "x": random.normal(size=(64, 3))}
    roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    made = ScoringRuleApproximator(
        adapter=default_adapter(roles), roles=roles, inference_network=ScoringRuleNetwork(widths=(8, 8))
    )
    made.build(data, seed=0)
    torch.nn.init.ones_(made.inference_network.body.out.weight)
    registered = register(
        store,
        "points",
        made.save(tmp_path / "points.safetensors"),
        Tracker.start(store, "npe", "first", "key").run_id,
        aliases=["champion"],
    )
    before = made.estimate(conditions={"x": data["x"][:3]})
    after = load(registered.uri, store).estimate(conditions={"x": data["x"][:3]})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    served = mlflow.pyfunc.load_model("models:/points@champion").predict(data["x"][:3])
    assert set(served) == {"mean.theta", "quantile.theta"}
    sampler = mlflow.pyfunc.load_model("models:/points@champion").unwrap_python_model()
    with pytest.raises(MlflowException, match="this model has point estimates, and no draws"):
        sampler.predict(None, data["x"][:3], {"output": "summary"})
    for rule, shape in {"mean": (3, 2), "quantile": (3, 3, 2)}.items():
        assert before[rule]["theta"].shape == shape
        np.testing.assert_array_equal(after[rule]["theta"], before[rule]["theta"])
        np.testing.assert_array_equal(served[f"{rule}.theta"], before[rule]["theta"])


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_an_ensemble_goes_through_the_registry(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ensemble is one model: loaded, by us or by MLflow, it draws from its mixture, with learned weights,
    what it drew before."""
    import mlflow.pyfunc  # noqa: PLC0415

    random = seeding.generator(0, "tracking test")
    data = {"theta": random.normal(size=(64, 2)), "x": random.normal(size=(64, 3))}
    roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    networks = {"flow": FlowMatching(widths=(8, 8), steps=4), "coupling": CouplingFlow()}
    members = {
        name: ContinuousApproximator(adapter=default_adapter(roles), roles=roles, inference_network=network)
        for name, network in networks.items()
    }
    made = EnsembleApproximator(members, weights={"flow": 0.3, "coupling": 0.7})
    made.build(data, seed=0)
    registered = register(
        store,
        "several",
        made.save(tmp_path / "several"),
        Tracker.start(store, "npe", "first", "key").run_id,
        aliases=["champion"],
    )
    before = made.eval().sample(num_samples=5, conditions={"x": data["x"][:3]}, seed=1)["theta"]
    after = load(registered.uri, store).sample(num_samples=5, conditions={"x": data["x"][:3]}, seed=1)[
        "theta"
    ]
    np.testing.assert_array_equal(after, before)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    served = mlflow.pyfunc.load_model("models:/several@champion")
    np.testing.assert_array_equal(served.predict(data["x"][:3], params={"num_samples": 5, "seed": 1}), before)


def test_what_a_served_model_says_of_densities(tmp_path: Path) -> None:
    """Log densities of draws are those of `log_prob`, for several variables; a network without a density is
    refused with the reason."""
    random = seeding.generator(0, "tracking test")
    data = {
        "theta": random.normal(size=(64, 2)),
        "tau": random.normal(size=64),
        "x": random.normal(size=(64, 3)),
    }
    roles = {"inference_variables": ["theta", "tau"], "inference_conditions": ["x"]}
    samplers = []
    for name, network in {"coupling": CouplingFlow(), "consistency": ConsistencyModel(widths=(8, 8))}.items():
        made = ContinuousApproximator(adapter=default_adapter(roles), roles=roles, inference_network=network)
        made.build(data, seed=0)
        samplers.append(PosteriorSampler())
        samplers[-1].load_context(SimpleNamespace(artifacts={"approximator": made.save(tmp_path / name)}))
    asked = {"num_samples": 5, "output": "log_density"}
    answer = samplers[0].predict(None, data["x"][:3], asked)
    assert {name: value.shape for name, value in answer.items()} == {
        "theta": (3, 5, 2),
        "tau": (3, 5, 1),
        "log_density": (3, 5),
    }
    row = {"theta": answer["theta"][1:2, 4], "tau": answer["tau"][1, 4], "x": data["x"][1:2]}
    np.testing.assert_allclose(
        answer["log_density"][1, 4], load(tmp_path / "coupling").log_prob(row)[0], rtol=1e-5
    )
    with pytest.raises(MlflowException, match="no density") as caught:
        samplers[1].predict(None, data["x"][:3], asked)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("several", [False, True])
def test_a_registered_model_warns_of_observations_unlike_its_training(
    store: Store, tmp_path: Path, several: bool
) -> None:
    """Draws of it for an observation far out come with a TrustWarning; for ordinary ones, or with
    certify=False, they do not.

    Of forty ordinary observations some fail their certificates by chance, which is no reason to warn.
    """
    random = seeding.generator(0, "certified tracking test")
    theta = random.normal(size=(1000, 2))
    data = {"theta": theta, "x": theta @ np.ones((2, 3)) + random.normal(size=(1000, 3))}
    roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    members = {
        name: ContinuousApproximator(
            adapter=default_adapter(roles),
            roles=roles,
            inference_network=FlowMatching(widths=(8, 8), steps=4),
        )
        for name in ("a", "b")[: 1 + several]
    }
    made = EnsembleApproximator(members) if several else members["a"]
    made.build(data, seed=0)
    made.eval().learn_certificate(data, None, seed=1)
    registered = register(
        store,
        "certified",
        made.save(tmp_path / "certified"),
        Tracker.start(store, "npe", "first", "key").run_id,
        aliases=["champion"],
    )
    far = {"x": np.array([[0.0, 0.0, 0.0], [30.0, 30.0, 30.0]])}  # the first is the mean of the simulations
    model = load(registered.uri, store)
    with pytest.warns(
        TrustWarning, match=r"data set 1 of 2 \(counted from 0\) should not be trusted"
    ) as warned:
        model.sample(num_samples=5, conditions=far, seed=1)
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(num_samples=5, conditions={"x": data["x"][:40]}, seed=1)
        load(registered.uri, store, certify=False).sample(num_samples=5, conditions=far, seed=1)
        load(tmp_path / "certified").sample(num_samples=5, conditions=far, seed=1)
