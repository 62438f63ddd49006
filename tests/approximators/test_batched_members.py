"""Members of one architecture as one batched module: the same losses, gradients and trainings as one by one,
or refused for a reason."""

import numpy as np
import pytest
import torch

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator, EnsembleApproximator, ScoringRuleApproximator
from sbi_models.datasets import Batches, Sharing
from sbi_models.networks import (
    CouplingFlow,
    DeepSet,
    FlowMatching,
    InferenceNetwork,
    ScoringRuleNetwork,
    SetTransformer,
    SummaryNetwork,
    network_named,
    register,
    registry,
)
from sbi_models.training.batch_compatibility import batchable_members
from sbi_models.training.fit_plan import FitPlan
from sbi_models.training.module import TrainingModule
from sbi_models.training.settings import TrainingSettings
from sbi_models.training.trainer import train

CPU = torch.device("cpu")
ARGUMENTS = {
    "flow_matching": {"widths": (16, 16)},
    "diffusion_model": {"widths": (16, 16), "drop_conditions": 0.2},
    "consistency_model": {"widths": (16, 16)},
    "coupling_flow": {"widths": (16, 16), "depth": 2, "base": "student_t"},
    "scoring_rules": {"widths": (16, 16), "scoring_rules": ["mean", "quantile", "mixture"]},
    "deep_set": {"widths": (8, 8), "head_widths": (8,)},
    "set_transformer": {"width": 8, "blocks": 1, "heads": 2, "head_widths": (8,), "inducing_points": 3},
    "time_series_transformer": {"width": 8, "blocks": 1, "heads": 2, "head_widths": (8,)},
    "convolutional_network": {"widths": (4, 8), "head_widths": (8,)},
    "fusion_network": {
        "backbones": {
            "x": DeepSet(widths=(8, 8), head_widths=(8,)),
            "y": DeepSet(widths=(8,), head_widths=(8,)),
        }
    },
}
"""Arguments that make a network of each name small; a new network needs no entry, only time."""
CANNOT = {"time_series_network": "Batching rule not implemented for aten::gru"}
"""Networks that cannot be batched, and what says so."""


def names(kind):
    return sorted(
        name
        for name, cls in registry.NETWORKS.items()
        if issubclass(cls, kind) and cls.__module__.startswith("sbi_models")
    )


def data(n=50, seed=0, shape=(6, 2)):
    """theta (n, 3), with conditions c (n, 2) and sets, series or images x (n, *shape), y (n, 4, 1) that
    depend on it."""
    rng = seeding.generator(seed, "test data")
    theta = rng.normal(size=(n, 3))
    x = theta[:, :1].reshape(n, *[1] * len(shape)) + rng.normal(size=(n, *shape))
    return {
        "theta": theta,
        "c": theta[:, 1:] + rng.normal(size=(n, 2)),
        "x": x,
        "y": rng.normal(size=(n, 4, 1)),
    }


def ensemble(inference="flow_matching", summary=None, *, members=3, masks=None, shape=(6, 2), **arguments):
    """A built ensemble of members with such networks, instances or names, for the conditions c and what the
    summary network takes."""
    network = network_named(inference, ARGUMENTS.get(inference)) if isinstance(inference, str) else inference
    summary = network_named(summary, ARGUMENTS.get(summary)) if isinstance(summary, str) else summary
    roles = {"inference_variables": ["theta"], "inference_conditions": ["c"], "summary_variables": []}
    adapted = roles
    if summary is not None:
        roles = roles | {"summary_variables": list(summary.input_names) or ["x"]}
        adapted = roles | ({"summary_variables": []} if summary.input_names else {})
    kind = ScoringRuleApproximator if isinstance(network, ScoringRuleNetwork) else ContinuousApproximator
    made = EnsembleApproximator(
        {
            str(k): kind(
                adapter=default_adapter(adapted),
                roles=roles,
                inference_network=network.clone(),
                summary_network=None if summary is None else summary.clone(),
                masks=masks,
                **arguments,
            )
            for k in range(members)
        }
    )
    made.build(data(shape=shape) | {"mask": np.ones((50, shape[0]))}, seed=0)
    return made


class InDouble:
    """Batches in float64, which tells a wrong computation from rounding."""

    def __init__(self, batches):
        self.batches, self.fingerprint = batches, batches.fingerprint

    def set_epoch(self, epoch):
        self.batches.set_epoch(epoch)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            yield [_double(rows) for rows in batch] if isinstance(batch, list) else _double(batch)


def _double(rows):
    return (
        None
        if rows is None
        else {key: value.double() if value.is_floating_point() else value for key, value in rows.items()}
    )


def trained(batched, reuse, shape=(6, 2), **networks):
    """History and weights after three epochs in float64, with validation, clipping, weight decay and an
    average of the weights."""
    made = ensemble(shape=shape, **networks).double()
    prepared, held_out = (
        made.prepare(data(n, seed, shape) | {"mask": _mask(n, shape)}) for n, seed in ((40, 1), (20, 2))
    )
    batches = Batches(prepared, 16, 3, Sharing(3, reuse).windows(40, 4))
    settings = TrainingSettings(ema=0.8, accelerator="cpu", progress=False, initial_learning_rate=3e-3)
    left = train(
        made,
        InDouble(batches),
        InDouble(Batches(held_out, 20, None)),
        3,
        settings=settings,
        plan=FitPlan(Sharing(3, reuse), batched=batched),
        seed=5,
        weight_decay=5e-3,
        checkpoint=None,
        on_epoch_end=None,
    )
    return left.history.history, made.state_dict()


def _mask(n, shape):
    return (seeding.generator(0, "mask").random((n, shape[0])) < 0.7).astype(float)


def check_same(shape=(6, 2), reuses=(1.0, 0.5), **networks):
    start = ensemble(shape=shape, **networks).double()
    for reuse in reuses:
        (history, weights), (expected_history, expected) = (
            trained(batched, reuse, shape, **networks) for batched in (True, False)
        )
        assert history.keys() == expected_history.keys()
        for key, values in expected_history.items():
            np.testing.assert_allclose(history[key], values, rtol=1e-10, atol=1e-12)
        for key, value in expected.items():
            torch.testing.assert_close(weights[key], value, rtol=1e-10, atol=1e-11)
        assert all(not torch.equal(value, weights[key]) for key, value in start.named_parameters())


@pytest.mark.nightly_cases("coupling_flow", "autoregressive_mixture")
@pytest.mark.parametrize("inference", [name for name in names(InferenceNetwork) if name != "ratio"])
def test_inference_networks_train_as_side_by_side(inference):
    """In float64 the losses and weights of a batched training are those of one side by side, whether or not
    data are shared."""
    check_same(inference=inference)


@pytest.mark.nightly_cases("set_transformer", "nested_set", "time_series_transformer", "fusion_network")
@pytest.mark.parametrize("summary", sorted(set(names(SummaryNetwork)) - CANNOT.keys()))
def test_summary_networks_train_as_side_by_side(summary):
    """The same for members with a summary network, and with a mask where one can be given."""
    shape = {"convolutional_network": (6, 5, 2), "nested_set": (3, 6, 2)}.get(summary, (6, 2))
    check_same(shape, (0.5,), summary=summary)
    if shape == (6, 2) and summary != "fusion_network":
        check_same(shape, (0.5,), summary=summary, masks={"summary_variables": "mask"})


def test_affine_couplings_train_as_side_by_side():
    """The other transform of coupling flows, and a network of plain layers."""
    check_same(inference=CouplingFlow(transform="affine", subnet="mlp", widths=(8,)), reuses=(0.0,))


@pytest.mark.parametrize("name", sorted(CANNOT))
def test_networks_that_cannot_be_batched_are_known(name):
    """They are told before training, with the reason."""
    found = batchable_members(ensemble(summary=name), CPU)
    assert found.groups == []
    assert CANNOT[name] in found.reasons["0, 1, 2"]


# --- what cannot be batched


class OwnLoss(FlowMatching):
    """Another loss, on top of that of its base class."""

    def loss(self, theta, conditions, generator=None):
        return 2 * super().loss(theta, conditions, generator)


class OwnNoise(FlowMatching):
    """Draws inside the loss."""

    def loss_given(self, theta, conditions, drawn):
        return super().loss_given(theta + torch.randn(theta.shape), conditions, drawn)


class NumPyNoise(FlowMatching):
    """Draws inside the loss where PyTorch cannot see it."""

    def loss_given(self, theta, conditions, drawn):
        return super().loss_given(theta, conditions + np.random.normal(), drawn)


class LooksAtValues(FlowMatching):
    """Branches on a value."""

    def loss_given(self, theta, conditions, drawn):
        return super().loss_given(theta, conditions if conditions.sum() > 0 else 2 * conditions, drawn)


class WrongGradient(FlowMatching):
    """Its weights take part twice, of which the second time a batched module does not know: as recurrent
    layers of PyTorch would."""

    def _build(self, theta_dim, condition_dim):
        super()._build(theta_dim, condition_dim)
        self.flat = [self.field.out.weight]

    def loss_given(self, theta, conditions, drawn):
        return super().loss_given(theta, conditions, drawn) + self.flat[0].square().sum()


class Counts(FlowMatching):
    """Has a buffer that training changes."""

    def _build(self, theta_dim, condition_dim):
        super()._build(theta_dim, condition_dim)
        self.register_buffer("seen", torch.zeros(()))

    def loss_given(self, theta, conditions, drawn):
        self.seen.add_(len(theta))
        return super().loss_given(theta, conditions, drawn)


@pytest.mark.parametrize(
    ("inference", "summary", "reason"),
    [
        (OwnLoss, None, "OwnLoss has a loss of its own, not draw and loss_given"),
        (OwnNoise, None, "random"),
        (NumPyNoise, None, "the losses of a batched module are not those of its members"),
        (LooksAtValues, None, "data-dependent control flow"),
        (WrongGradient, None, "of a batched module are not those of its members"),
        (Counts, None, "members change their buffers while they train"),
        (
            FlowMatching,
            SetTransformer(width=8, heads=2, dropout=0.1),
            "members with dropout draw random numbers of their own",
        ),
    ],
)
def test_what_cannot_be_batched_is_found_out_before_training(inference, summary, reason):
    """Whatever would come out otherwise in a batched module is refused, by rule or by trial, and leaves
    weights and random state alone."""
    if inference is not FlowMatching:
        register(f"test_batched_{inference.__name__}")(inference)
    np.random.seed(1)
    made = ensemble(inference(widths=(16, 16)), summary)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    state = torch.random.get_rng_state()
    found = batchable_members(made, CPU)
    assert found.groups == []
    assert reason in found.reasons["0, 1, 2"]
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_groups_are_members_of_one_architecture():
    """Members with the same networks, arguments and widths form a group; one without its like is in none, and
    nothing is wrong with it."""
    networks = {
        "a": FlowMatching(widths=(8,)),
        "b": FlowMatching(widths=(9,)),
        "c": FlowMatching(widths=(8,)),
        "d": CouplingFlow(),
    }
    roles = {"inference_variables": ["theta"], "inference_conditions": ["c"]}
    made = EnsembleApproximator(
        {
            name: ContinuousApproximator(
                adapter=default_adapter(roles), roles=roles, inference_network=network
            )
            for name, network in networks.items()
        }
    )
    made.build(data(), seed=0)
    found = batchable_members(made, CPU)
    assert found.groups == [["a", "c"]]
    assert found.reasons == {}


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_tried_as_well(half):
    """With mixed precision the trial computes in it, too; splines, whose gradients round most, pass."""
    assert batchable_members(ensemble("coupling_flow"), CPU, half).groups == [["0", "1", "2"]]


def test_one_call_of_a_batched_module_is_the_step_of_all_members(monkeypatch):
    """A batched step computes the loss once, not once a member; the members draw the noise that they draw
    alone."""
    calls, seeds, plain, loss = [], [], TrainingModule._generator, ContinuousApproximator.loss_given
    monkeypatch.setattr(
        ContinuousApproximator, "loss_given", lambda *arguments: calls.append(1) or loss(*arguments)
    )
    monkeypatch.setattr(
        TrainingModule, "_generator", lambda self, seed: seeds.append(seed) or plain(self, seed)
    )
    made = ensemble()
    batch = made.prepare(data())
    drawn = []
    for groups, expected in (([["0", "1", "2"]], 1), ([["0", "1"]], 1), ([], 0)):
        module = TrainingModule(
            made, seed=1, learning_rate=1e-3, weight_decay=0.0, total_steps=1, groups=groups
        )
        module.on_train_start()
        module.training_step(batch, 0)
        assert len(calls) == expected
        drawn.append(sorted(seeds))
        calls.clear()
        seeds.clear()
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 3
