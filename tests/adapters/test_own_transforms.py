"""A user's own transform, from its registration to a file that another process loads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from own_transforms import Log10

import sbi_models
from sbi_models import BasicWorkflow, make_simulator
from sbi_models.adapters import KINDS, Adapter, Transform, register_transform, transforms
from sbi_models.errors import ConfigurationError, ModelFileError
from sbi_models.networks import CouplingFlow

CONDITIONS = {"x": np.array([[0.5], [2.0]])}

LOAD = """
import sys
import numpy as np
from sbi_models.approximators import load_approximator
from sbi_models.errors import ModelFileError
path, out = sys.argv[1:]
try:
    load_approximator(path)
except ModelFileError as error:
    print(error)
import own_transforms
draws = load_approximator(path).sample(num_samples=20, conditions={"x": np.array([[0.5], [2.0]])}, seed=3)
np.save(out, draws["rate"])
"""
"""A fresh process that loads a file without the registration, then with it, and draws from its model."""


def simulator():
    def prior(rng):
        return {"rate": np.exp(rng.normal())}

    def likelihood(rate, rng):
        return {"x": rate + 0.1 * rng.normal()}

    return make_simulator([prior, likelihood])


def workflow(adapter):
    return BasicWorkflow(
        simulator=simulator(),
        adapter=adapter,
        inference_network=CouplingFlow(depth=1, widths=(8, 8)),
        inference_variables=["rate"],
        inference_conditions=["x"],
        seed=1,
    )


def load_in_fresh_process(path):
    """Standard output of the process, and its draws, (2, 20, 1)."""
    out = path.with_name("draws.npy")
    folders = [str(Path(sbi_models.__file__).parents[1]), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {folders!r}\n{LOAD}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, np.load(out)


@pytest.mark.nightly
def test_a_transform_of_ones_own_is_trained_saved_and_loaded(tmp_path):
    """A fresh process is told to register it, and draws the same numbers to the bit once it has."""
    trained = workflow(Adapter().then(Log10("rate", unit=2.0)))
    trained.fit_offline(simulator().sample(64, seed=2), epochs=1, batch_size=32)
    path = tmp_path / "model.safetensors"
    trained.approximator.save(path)
    message, draws = load_in_fresh_process(path)
    expected = trained.approximator.sample(num_samples=20, conditions=CONDITIONS, seed=3)["rate"]
    np.testing.assert_array_equal(draws, expected)
    assert "unknown adapter transform 'log10'" in message
    assert "Register your own before loading" in message
    assert "@register_transform('log10')" in message


class Unregistered(Log10):
    """A subclass that inherits the kind of a registered class, and is not that class."""


class Claiming(Transform):
    """A class that takes a kind without registration."""

    kind = "log"

    def forward(self, batch):
        return batch

    def inverse(self, batch):
        return batch

    def config(self):
        return {}


@pytest.mark.parametrize("transform", [Unregistered("rate"), Claiming()])
def test_unregistered_transforms_are_refused_before_a_training(transform):
    """A workflow and a file refuse it, with the decorator as the cure; the adapter alone may be used."""
    adapter = Adapter().then(transform)
    torch.testing.assert_close(
        adapter.inverse(adapter.forward({"rate": torch.ones(2, 1)}))["rate"], torch.ones(2, 1)
    )
    for use in (adapter.check, adapter.to_json, lambda: workflow(adapter)):
        with pytest.raises(
            ConfigurationError, match=rf"got {type(transform).__name__}, which no file.*@register_transform"
        ):
            use()


def test_a_config_without_an_argument_is_refused_before_a_training():
    """Rebuilt from it, a transform would have the default: other draws, without a word. Where the argument is
    the default, nothing is lost."""

    @register_transform("test_forgetful")
    class Forgetful(Log10):
        def config(self):
            return {"name": self.name}

    assert workflow(Adapter().then(Forgetful("rate"))) is not None
    adapter = Adapter().then(Forgetful("rate", unit=2.0))
    for use in (adapter.check, adapter.to_json, lambda: workflow(adapter)):
        with pytest.raises(ConfigurationError, match=r"config\(\) of Forgetful .*without 'unit'\. Add them"):
            use()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"nam": "rate"}, "unknown argument 'nam'"),
        ({}, "missing 1 required positional argument: 'name'"),
        ({"name": "rate", "unit": torch.ones(1)}, "not JSON serializable"),
    ],
)
def test_a_config_that_does_not_rebuild_is_refused_before_a_training(config, message):
    """A file that nobody could load is noticed when the workflow is made."""

    @register_transform("test_careless")
    class Careless(Log10):
        def config(self):
            return config

    with pytest.raises(ConfigurationError, match=rf"(?s)Expected config\(\) of Careless.*{message}"):
        workflow(Adapter().then(Careless("rate")))


def test_kinds_are_registered_once_and_for_transforms_alone():
    """A kind that is taken, a class of another sort and an empty name are refused."""
    with pytest.raises(ConfigurationError, match=r"Expected a new name for a transform, got 'log'"):
        register_transform("log")(type("Other", (Claiming,), {}))
    with pytest.raises(ConfigurationError, match="Expected a subclass of Transform"):
        register_transform("test_int")(int)
    with pytest.raises(ConfigurationError, match="as text, got ''"):
        register_transform("")(type("Other", (Claiming,), {}))
    assert KINDS["log"] is transforms.Log
    with pytest.raises(ModelFileError, match="unknown adapter transform 'test_int'"):
        Adapter.from_json([{"kind": "test_int", "config": {}}])
