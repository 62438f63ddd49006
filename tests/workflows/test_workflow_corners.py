"""Corners of the door: several inputs, failing simulations, ambiguous files, values far out, networks without
a name."""

import pickle

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, workflow
from safetensors.numpy import save_file
from torch.distributions import Uniform

from sbi_models import Adapter, BasicWorkflow, load, make_simulator, seeding
from sbi_models.datasets.files import read_file
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import DeepSet, FlowMatching, FusionNetwork, TimeSeriesNetwork
from sbi_models.simulators import FailurePolicy

DATA = SIMULATOR.sample(64, seed=0)


def test_several_inputs_through_the_default_adapter(tmp_path):
    """A fusion of inputs of different shapes trains, samples, is saved and loaded, without an adapter of
    one's own."""
    rng = seeding.generator(1)
    data = {
        "theta": rng.normal(size=(64, 2)),
        "x": rng.normal(size=(64, 6, 1)),
        "y": rng.normal(size=(64, 9, 3)),
    }
    made = BasicWorkflow(
        inference_variables="theta",
        summary_variables=["x", "y"],
        inference_network=FlowMatching(widths=(16,), steps=4),
        summary_network=FusionNetwork(
            {"x": DeepSet(summary_dim=3, widths=(8,)), "y": TimeSeriesNetwork(widths=(8,), hidden_dim=4)}
        ),
        standardize="all",
        seed=0,
        progress=False,
    )
    made.fit_offline(data, epochs=1)
    draws = made.sample(num_samples=3, conditions=data, seed=1)["theta"]
    loaded = load(made.approximator.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.sample(num_samples=3, conditions=data, seed=1)["theta"], draws)


def test_trainings_do_without_simulations_that_failed():
    """With a policy that lets some simulations fail, moments, batches and validation are made of the
    others."""

    def failing(rng):
        if rng.random() < 0.1:
            raise ValueError("no convergence")
        theta = rng.normal(size=2)
        return {"theta": theta, "x": theta + 0.1}

    simulator = make_simulator(failing, failures=FailurePolicy(allowed=0.5))
    history = workflow(simulator=simulator).fit_online(
        epochs=1, num_batches_per_epoch=8, batch_size=16, validation_data=50
    )
    assert np.isfinite(history.history["loss"] + history.history["val_loss"]).all()


def test_files_that_might_be_one_simulation_or_many(tmp_path):
    """Vectors of equal length are refused until one says which axis they have."""
    for k in range(3):
        np.savez(tmp_path / f"{k}.npz", theta=np.arange(50.0) + 0.4 * k + 0.1, x=np.arange(50.0))
    with pytest.raises(
        DataError,
        match=r"every variable of .*0\.npz has 50 rows or components.*simulations_per_file='one' or 'many'",
    ):
        workflow().fit_disk(tmp_path, "*.npz", epochs=1)
    made = workflow()
    made.fit_disk(tmp_path, "*.npz", epochs=1, simulations_per_file="many")
    assert made.sample(num_samples=2, conditions={"x": np.zeros(1)}, seed=0)["theta"].shape == (1, 2, 1)


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".safetensors"])
def test_damaged_files_are_named(tmp_path, suffix):
    """Whatever a changed byte makes a reader raise, the file is named, or is read with other numbers."""
    rng, messages = np.random.default_rng(0), []
    good = tmp_path / f"good{suffix}"
    if suffix == ".npz":
        np.savez_compressed(good, **DATA)
    elif suffix == ".pkl":
        good.write_bytes(pickle.dumps(DATA))
    else:
        save_file(DATA, good)
    content = bytearray(good.read_bytes())
    for _ in range(40):
        damaged = bytearray(content)
        damaged[int(rng.integers(min(len(content), 400)))] ^= int(rng.integers(1, 256))
        good.write_bytes(damaged)
        try:
            read_file(good)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(good.name in message for message in messages)


def test_values_that_no_network_can_take_are_refused():
    """Conditions and parameters so far out that networks overflow give an error that names the rows, not
    NaN."""
    made = workflow(inference_network="coupling_flow")
    made.fit_offline(DATA, epochs=1)
    far = {"x": np.where(np.arange(64)[:, None] == 3, 1e30, DATA["x"])}
    with pytest.raises(DataError, match=r"draws of 1 of 64 data sets are no finite numbers \(rows 3\)"):
        made.sample(num_samples=2, conditions=far, seed=0)
    with pytest.raises(DataError, match=r"log densities of 1 of 64 data sets"):
        made.log_prob(DATA | far)


def test_a_class_without_a_name_of_its_own_is_refused():
    """An unregistered subclass, which a file would hold as its parent, is refused when the workflow is
    made."""

    class Mine(FlowMatching):
        pass

    with pytest.raises(ConfigurationError, match=r"Mine has no registered name.*@register"):
        workflow(inference_network=Mine())
    with pytest.raises(ConfigurationError, match="summary_dim as a positive integer, got 0"):
        DeepSet(summary_dim=0).build((3, 1))


def test_an_adapter_of_ones_own_keeps_the_bounds_of_a_prior():
    """The bounds of a prior hold with an adapter that leaves the parameter alone; one that changes it is the
    user's own affair."""
    simulator = make_simulator(
        [
            {"theta": Uniform(torch.zeros(2), torch.ones(2))},
            lambda theta, rng: {"x": theta + rng.normal(size=2)},
        ]
    )
    made = workflow(simulator=simulator, adapter=Adapter().scale("x", by=0.1))
    made.fit_online(epochs=1, num_batches_per_epoch=2)
    draws = made.sample(num_samples=500, conditions={"x": np.full((4, 2), 9.0)}, seed=0)["theta"]
    assert ((draws > 0) & (draws < 1)).all()
    own = workflow(simulator=simulator, adapter=Adapter().constrain("theta", lower=-1.0, upper=2.0))
    assert len([step for step in own.approximator.adapter.transforms if "theta" in str(step.config())]) == 2
