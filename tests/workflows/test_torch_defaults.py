"""What users have set for all of PyTorch changes nothing: results are those of a plain session, to the
bit."""

import contextlib

import numpy as np
import pytest
import torch
from torch.distributions import Gamma, SigmoidTransform, TransformedDistribution, Uniform

import sbi_models as bf
from sbi_models.networks import DeepSet, SummaryNetwork, network_named, register
from sbi_models.torch_defaults import as_user, aside


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def everything():
    """All settings at once; nothing can be computed on that device."""
    with default_dtype(torch.float64), torch.device("meta"), torch.inference_mode():
        yield


@contextlib.contextmanager
def half_without_gradients():
    with default_dtype(torch.float16), torch.no_grad():
        yield


NETWORKS = {
    "coupling_flow": {"widths": (8, 8), "depth": 2},
    "flow_matching": {"widths": (8, 8), "steps": 4},
    "diffusion_model": {"widths": (8, 8), "steps": 4, "density_steps": 2},
    "consistency_model": {"widths": (8, 8)},
    "autoregressive_mixture": {"components": 2, "trunk_width": 8, "head_width": 8},
    "scoring_rules": {"widths": (8, 8)},
}
SUMMARIES = {
    "deep_set": {"summary_dim": 3, "widths": (8,), "head_widths": (8,)},
    "set_transformer": {"summary_dim": 3, "width": 8, "heads": 2},
    "time_series_network": {"summary_dim": 3, "widths": (8,), "hidden_dim": 4},
    "time_series_transformer": {"summary_dim": 3, "width": 8, "heads": 2},
}


def small(name):
    """A network of that name, made where this is called."""
    return network_named(name, {**NETWORKS, **SUMMARIES}[name])


def data(length=0, n=48):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(n, 2))
    shape = (n, length, 2) if length else (n, 2)
    return {"theta": theta, "x": (theta[:, None] if length else theta) + rng.normal(size=shape)}


def results(workflow, data, path):
    """Losses, draws, log densities, estimates and certificates, of the trained and of the loaded
    approximator."""
    history = workflow.fit_offline(data, epochs=1, batch_size=24, validation_data=data)
    workflow.approximator.save(path)
    conditions, found = (
        {name: value[:2] for name, value in data.items()},
        [history.history["loss"], history.history["val_loss"]],
    )
    for approximator in (workflow.approximator, bf.load(path)):
        if approximator.has_draws:
            found.append(approximator.sample(num_samples=3, conditions=conditions, seed=1)["theta"])
        else:
            found += [value for rule in approximator.estimate(conditions).values() for value in rule.values()]
        if all(member.has_density for member in approximator.members.values()):
            found.append(approximator.log_prob(conditions))
    found.append([certificate.novelty for certificate in workflow.approximator.certify(conditions, seed=1)])
    workflow.fit_offline(data, epochs=1, batch_size=24)
    return [np.array(value, dtype=float) for value in found]


def basic(**options):
    given = {
        "inference_variables": "theta",
        "inference_conditions": "x",
        "inference_network": small("coupling_flow"),
        "seed": 1,
        "standardize": "all",
        "progress": False,
    }
    return bf.BasicWorkflow(**(given | options))


def ensemble():
    roles = {"inference_variables": "theta", "inference_conditions": "x", "seed": 1, "progress": False}
    return bf.EnsembleWorkflow(
        inference_networks=small("coupling_flow"), ensemble_size=2, batched=True, **roles
    )


def cases():
    for name in NETWORKS:
        yield name, lambda name=name: basic(inference_network=small(name)), 0
    for name in SUMMARIES:
        yield (
            name,
            lambda name=name: basic(
                summary_network=small(name), summary_variables="x", inference_conditions=None
            ),
            6,
        )
    yield "ensemble", ensemble, 0


@pytest.mark.nightly_cases("ensemble", "set_transformer", "time_series_network")
@pytest.mark.parametrize(
    ("make", "length"), [pytest.param(make, length, id=name) for name, make, length in cases()]
)
def test_defaults_of_the_user_change_nothing(make, length, tmp_path):
    """Fit, sample, log_prob, estimate, certify, save and load are the same to the bit under other defaults,
    which stay set."""
    expected = results(make(), data(length), tmp_path / "model")
    for name, setting in {"everything": everything, "half": half_without_gradients}.items():
        if name == "half" and make is not ensemble:
            continue
        with setting():
            before = (
                torch.get_default_dtype(),
                torch.get_default_device(),
                torch.is_inference_mode_enabled(),
                torch.is_grad_enabled(),
            )
            found = results(make(), data(length), tmp_path / "model")
            after = (
                torch.get_default_dtype(),
                torch.get_default_device(),
                torch.is_inference_mode_enabled(),
                torch.is_grad_enabled(),
            )
        assert after == before, name
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_online_training_with_torch_priors_and_corrections(tmp_path):
    """Simulations, an online training, weights by a torch prior and a composition are the same under the
    default dtype float64."""

    def found():
        prior = {
            "theta": Gamma(torch.tensor(2.0, dtype=torch.float32), torch.tensor(1.0, dtype=torch.float32))
        }
        simulator = bf.make_simulator([prior, lambda theta, rng: {"x": theta + rng.normal()}])
        workflow = basic(simulator=simulator, ema=0.9)
        workflow.fit_online(epochs=1, num_batches_per_epoch=3, batch_size=16)
        conditions = simulator.sample(2, seed=0)
        likelihood = lambda theta, x: -0.5 * ((x - theta) ** 2).reshape(len(theta), -1).sum(axis=1)  # noqa: E731
        with pytest.warns(bf.errors.TrustWarning):
            return workflow.importance_sample(
                num_samples=5, conditions=conditions, log_likelihood=likelihood, seed=1
            )[0]["theta"]

    expected = found()
    with default_dtype(torch.float64):
        np.testing.assert_array_equal(found(), expected)


@register("layers_of_its_own_for_defaults")
class EagerSummary(SummaryNetwork):
    """A network of a user that makes a layer in its constructor."""

    def __init__(self):
        super().__init__()
        self.summary_dim, self.layer = 2, torch.nn.Linear(2, 2)

    def _build(self, input_shape):
        self.inner = DeepSet(2)
        self.inner.build(input_shape)

    def forward(self, x, mask=None):
        return self.layer(self.inner(x, mask))


def test_layers_of_users_are_of_single_precision():
    """A network that makes layers in its constructor trains under float64 and in inference mode, whether a
    name or an instance."""
    with default_dtype(torch.float64), torch.inference_mode():
        for network in ("layers_of_its_own_for_defaults", EagerSummary, EagerSummary()):
            workflow = basic(summary_network=network, summary_variables="x", inference_conditions=None)
            workflow.fit_offline(data(6), epochs=1, batch_size=48)
            assert {p.dtype for p in workflow.approximator.parameters()} == {torch.float32}


def test_functions_of_the_user_have_the_defaults_of_the_user():
    """Inside of public calls, simulators, augmentations and callbacks see the device and dtype that the user
    has set."""
    seen = []

    def look(result):
        seen.append((torch.get_default_device().type, torch.get_default_dtype()))
        return result

    simulator = bf.make_simulator(
        [
            lambda rng: look({"theta": rng.normal(size=2)}),
            lambda theta, rng: look({"x": theta + rng.normal(size=2)}),
        ]
    )
    with default_dtype(torch.float64), torch.device("meta"):
        workflow = basic(simulator=simulator)
        workflow.fit_online(
            epochs=1,
            num_batches_per_epoch=2,
            batch_size=16,
            augmentations=look,
            on_epoch_end=lambda *_: look(None),
        )
    assert set(seen) == {("meta", torch.float64)}


def test_as_user_inside_of_aside():
    """What is put aside is given back, at any depth, and left as it was."""
    device = lambda: torch.get_default_device().type  # noqa: E731
    with torch.device("meta"):
        assert aside(lambda: [device(), as_user(lambda: [device(), aside(device)]), device()]) == [
            "cpu",
            ["meta", "cpu"],
            "cpu",
        ]
        assert device() == "meta"


def test_a_prior_through_an_inverse_transform_is_drawn():
    """sigmoid(theta) of draws of a TransformedDistribution through the inverse of a sigmoid is uniform
    (Kolmogorov distance of 4000)."""
    prior = TransformedDistribution(Uniform(0.0, 1.0), [SigmoidTransform().inv])
    draws = bf.make_simulator([{"theta": prior}], is_batched=True).sample(4000, seed=0)["theta"]
    uniform = np.sort(1 / (1 + np.exp(-draws[:, 0])))
    assert np.abs(uniform - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / np.sqrt(4000)


def test_a_gpu_that_is_not_there(monkeypatch):
    """accelerator="gpu" without a GPU, and more devices than there are, are errors before anything is
    simulated."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    calls = []
    simulator = bf.make_simulator(
        [lambda rng: calls.append(1) or {"theta": rng.normal(size=2), "x": rng.normal(size=2)}]
    )
    for network in ("coupling_flow", "auto"):
        workflow = basic(simulator=simulator, accelerator="gpu", inference_network=network)
        with pytest.raises(
            bf.errors.ConfigurationError, match=r'Expected a GPU .* got none.* accelerator="auto"'
        ):
            workflow.fit_offline(data(), validation_data=5)
    with pytest.raises(bf.errors.ConfigurationError, match="Expected a GPU"):
        basic(simulator=simulator, accelerator="gpu").fit_online(validation_data=5)
    assert not calls
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(bf.errors.ConfigurationError, match="Expected at most the 1 GPUs"):
        basic(accelerator="gpu", devices=2, strategy="ddp_spawn").fit_offline(data(), 1, 32)
