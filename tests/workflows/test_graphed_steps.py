"""Whole steps as CUDA graphs: the training is the one without them. What needs a GPU is skipped where there
is none."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sbi_models import BasicWorkflow, CompositionalWorkflow, EnsembleWorkflow, make_simulator
from sbi_models.networks import (
    ConsistencyModel,
    CouplingFlow,
    DeepSet,
    DiffusionModel,
    FlowMatching,
    TimeSeriesTransformer,
)
from sbi_models.training import module as training
from sbi_models.training.cuda_graphs import GraphedSteps, _copied
from sbi_models.training.trainer import _takes_graphs

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
ROLES = {
    "inference_variables": "theta",
    "summary_variables": "x",
    "standardize": "all",
    "seed": 1,
    "progress": False,
}
SMALL = {"widths": (16, 16)}


def data(n=520):
    """Parameters and ten noisy looks at each; 520 rows are eight batches of 64 and one of 8."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(n, 2))
    return {"theta": theta, "x": theta[:, None, :] + 0.5 * rng.normal(size=(n, 10, 2))}


def basic(network=None, summary=None, **settings):
    return BasicWorkflow(
        inference_network=network or FlowMatching(**SMALL),
        summary_network=summary or DeepSet(4, (8, 8)),
        **ROLES,
        **settings,
    )


def ensemble(**settings):
    return EnsembleWorkflow(
        inference_networks=FlowMatching(**SMALL),
        summary_networks=DeepSet(4, (8, 8)),
        ensemble_size=3,
        **ROLES,
        **settings,
    )


def trained(workflow, **options):
    """History and weights after some epochs."""
    history = workflow.fit_offline(
        data(), epochs=2, batch_size=64, validation_data=data(100), **options
    ).history
    return history, {name: value.cpu() for name, value in workflow.approximator.state_dict().items()}


def assert_same(one, other, tolerance):
    for name, losses in one[0].items():
        np.testing.assert_allclose(losses, other[0][name], rtol=tolerance, err_msg=name)
    for name, value in one[1].items():
        assert torch.allclose(value.double(), other[1][name].double(), rtol=tolerance, atol=tolerance), name


@pytest.mark.nightly_cases("ensemble", "<lambda>")
@pytest.mark.parametrize(
    "make", [basic, ensemble, lambda **s: basic(CouplingFlow(widths=(16, 16)), ema=0.9, **s)]
)
def test_a_whole_step_is_the_step_that_lightning_takes(make, monkeypatch):
    """On a CPU, without a graph: the oracle is the training in which Lightning calls loss, backward, clipping
    and optimizer."""
    expected = trained(make(accelerator="cpu"))
    taken = []

    def use(module, optimizer):
        def step(inputs):
            taken.append(inputs)
            return module._whole_step(optimizer, inputs)

        module._graphed = step

    monkeypatch.setattr(training.TrainingModule, "use_graphs", use)
    assert_same(trained(make(accelerator="cpu")), expected, 1e-7)
    assert len(taken) == 2 * 9


class FakeGraph:
    """Stands in for a CUDA graph: counts how often it is replayed."""

    def __init__(self):
        self.replays = 0

    def replay(self):
        self.replays += 1


def test_shapes_that_come_often_are_recorded_and_others_are_not(monkeypatch):
    """The fourth step of a shape is recorded; inputs go to the places of the record, a batch that is shared
    once."""
    steps = GraphedSteps.__new__(GraphedSteps)
    steps._seen, steps._graphs, aside, recorded = {}, {}, [], []
    monkeypatch.setattr(steps, "_aside", lambda inputs: aside.append(inputs) or {"a": torch.zeros(())})

    def record(inputs):
        recorded.append((FakeGraph(), _copied(inputs), {"a": torch.ones(())}))
        return recorded[-1]

    monkeypatch.setattr(steps, "_recorded", record)
    for number in range(6):
        rows = {"x": torch.full((4, 2), float(number))}
        steps({"a": (rows, (torch.full((4, 1), -float(number)),))})
    steps({"a": ({"x": torch.zeros(3, 2)}, (torch.zeros(3, 1),))})
    assert len(aside) == 4
    ((graph, places, _),) = recorded
    assert graph.replays == 3
    assert float(places["a"][0]["x"][0, 0]) == 5
    assert float(places["a"][1][0][0, 0]) == -5


class Odd(nn.Module):
    """Someone's own summary network, of which nothing is known."""


def test_modules_of_others_are_not_recorded_unless_vouched_for():
    made = basic()
    assert _takes_graphs(made.approximator, made.settings)
    made.approximator.odd = Odd()
    assert not _takes_graphs(made.approximator, made.settings)
    vouched = basic(cuda_graphs=True)
    vouched.approximator.odd = Odd()
    assert _takes_graphs(vouched.approximator, vouched.settings)
    for name in ("scoring rules", "compositional"):
        made = NETWORKS[name]()
        assert not _takes_graphs(made.approximator, made.settings)
    for settings in ({"cuda_graphs": False}, {"optimizer": torch.optim.SGD}, {"precision": "bf16-mixed"}):
        made = basic(**settings)
        assert not _takes_graphs(made.approximator, made.settings)


NETWORKS = {
    "flow matching": basic,
    "flow matching, averaged": lambda **s: basic(ema=0.9, **s),
    "transformer": lambda **s: basic(summary=TimeSeriesTransformer(4, width=16), **s),
    "dropout": lambda **s: basic(summary=TimeSeriesTransformer(4, width=16, dropout=0.1), **s),
    "coupling": lambda **s: basic(CouplingFlow(widths=(16, 16)), **s),
    "autoregressive": lambda **s: basic("autoregressive_mixture", **s),
    "consistency": lambda **s: basic(ConsistencyModel(**SMALL), **s),
    "scoring rules": lambda **s: basic("scoring_rules", **s),
    "compositional": lambda **s: CompositionalWorkflow(
        inference_network=DiffusionModel(**SMALL, drop_conditions=0.1),
        summary_network=DeepSet(4, (8, 8)),
        **ROLES,
        **s,
    ),
    "diffusion": lambda **s: basic(DiffusionModel(widths=(16, 16)), **s),
    "ensemble": lambda **s: ensemble(batched=True, **s),
    "ensemble side by side": lambda **s: ensemble(batched=False, **s),
}


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_on_a_gpu_train_as_steps_without_them(name, monkeypatch):
    """Also the last batch, which is shorter. Dropout draws other numbers inside a graph."""
    replays, plain = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: replays.append(1) or plain(self))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*without CUDA graphs.*")
        found = trained(NETWORKS[name](accelerator="gpu"))
    assert len(replays) == (0 if name in ("scoring rules", "compositional") else 4 * 8 - 3 + 1)
    expected = trained(NETWORKS[name](accelerator="gpu", cuda_graphs=False))
    assert_same(found, expected, 0.2 if name == "dropout" else 2e-3)
    again = trained(NETWORKS[name](accelerator="gpu"))
    assert_same(found, again, 0.0 if name != "dropout" else 1e-6)


@needs_gpu
def test_a_training_with_graphs_goes_on_to_the_bit(tmp_path):
    whole = trained(basic(accelerator="gpu", checkpoint_filepath=tmp_path / "whole"))

    class Killed(Exception):
        pass

    def kill(epoch, losses):
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        trained(basic(accelerator="gpu", checkpoint_filepath=tmp_path / "killed"), on_epoch_end=kill)
    resumed = trained(basic(accelerator="gpu", checkpoint_filepath=tmp_path / "killed", restore=True))
    assert_same(resumed, whole, 0.0)


@needs_gpu
def test_what_cannot_be_recorded_is_trained_after_a_warning(monkeypatch):
    plain = FlowMatching.loss_given

    def looking(self, theta, conditions, drawn):
        return plain(self, theta, conditions, drawn) * (1.0 if float(theta.sum()) > -1e9 else 2.0)

    monkeypatch.setattr(FlowMatching, "loss_given", looking)
    with pytest.warns(UserWarning, match="without CUDA graphs"):
        found = trained(basic(accelerator="gpu"))
    assert_same(found, trained(basic(accelerator="gpu", cuda_graphs=False)), 2e-3)


@needs_gpu
def test_online_training_records_while_simulations_are_prepared():
    def prior(rng):
        return {"theta": rng.normal(size=2)}

    def look(theta, rng):
        return {"x": theta[None, :] + 0.5 * rng.normal(size=(10, 2))}

    losses = []
    for graphs in (None, False):
        networks = {"inference_network": FlowMatching(**SMALL), "summary_network": DeepSet(4, (8, 8))}
        made = BasicWorkflow(
            make_simulator([prior, look]), accelerator="gpu", cuda_graphs=graphs, **networks, **ROLES
        )
        losses.append(made.fit_online(epochs=3, num_batches_per_epoch=30, batch_size=64).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
