from pathlib import Path

import numpy as np
import pytest

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.networks import DeepSet, FlowMatching
from sbi_models.tracking import Store, Tracker, load, register


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_a_real_approximator_goes_through_the_registry(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved, registered and loaded, by us or by MLflow, an approximator draws what it drew before."""
    import mlflow.pyfunc  # noqa: PLC0415

    random = seeding.generator(0, "tracking test")
    data = {"theta": random.normal(size=(64, 2)).astype(np.float32), "x": random.normal(size=(64, 20, 1)).astype(np.float32)}
    roles = {"inference_variables": ["theta"], "summary_variables": ["x"]}
    made = ContinuousApproximator(
        adapter=default_adapter(roles), roles=roles, inference_network=FlowMatching(), summary_network=DeepSet(), info={"unit": "m"}
    )
    made.build(data, seed=0)
    path = made.save(tmp_path / "model.keras")
    registered = register(store, "real", path, Tracker.start(store, "npe", "first", "key").run_id)
    before = made.sample(num_samples=5, conditions={"x": data["x"][:3]}, seed=1)["theta"]
    after = load(registered.uri, store).sample(num_samples=5, conditions={"x": data["x"][:3]}, seed=1)["theta"]
    np.testing.assert_array_equal(after, before)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    served = mlflow.pyfunc.load_model("models:/real@champion")
    np.testing.assert_array_equal(served.predict(data["x"][:3], params={"num_samples": 5, "seed": 1}), before)
