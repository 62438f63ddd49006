"""Two processes on a CPU, each with its rows of every batch, train as one does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, ensemble, workflow
from torch import nn

from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError, TrainingError
from sbi_models.networks import CouplingFlow, FlowMatching, SummaryNetwork, register
from sbi_models.training.member_parts import Part

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")

DATA, VALIDATION = SIMULATOR.sample(64, seed=1), SIMULATOR.sample(203, seed=2)
TWO = {"devices": 2, "strategy": "ddp_fork"}
FLOW = FlowMatching(widths=(8, 8), steps=2)


class Stop(Exception):
    """Stops a training as a kill would."""


def fit(made, **options):
    """Batches of 7 rows, of which a device has 3 or 4, and at the end of an epoch one of a single row, which
    one device has."""
    made.fit_offline(
        **({"data": DATA, "epochs": 4, "batch_size": 7, "validation_data": VALIDATION} | options)
    )
    return made


def trained(approximator):
    """What training alone changes: not what certificates keep."""
    return {
        name: value
        for name, value in approximator.state_dict().items()
        if "novelty" not in name and "usual" not in name
    }


def check_close(made, expected):
    """Weights and losses are the same up to rounding, and there are as many epochs of each."""
    for name, value in trained(expected.approximator).items():
        torch.testing.assert_close(trained(made.approximator)[name], value, rtol=1e-4, atol=1e-5)
    assert made.history.history.keys() == expected.history.history.keys()
    for name, losses in expected.history.history.items():
        assert made.history.history[name] == pytest.approx(losses, rel=1e-5, abs=1e-5)


def summarized(**arguments):
    """A workflow with a summary network and direct conditions beside it."""
    names = {"inference_conditions": None, "summary_variables": ["x"]}
    return workflow(**(names | {"summary_network": Plain(summary_dim=2)} | arguments))


@register("test_devices_plain")
class Plain(SummaryNetwork):
    """One layer, with something that a test chooses before it."""

    def __init__(self, summary_dim=2, before="nothing"):
        super().__init__()
        self.summary_dim, self.before = summary_dim, before

    def _build(self, input_shape):
        first = {
            "nothing": nn.Identity(),
            "dropout": nn.Dropout(0.1),
            "norm": nn.BatchNorm1d(input_shape[0]),
        }[self.before]
        self.layers = nn.Sequential(first, nn.Linear(input_shape[0], self.summary_dim))

    def forward(self, x, mask=None):
        return self.layers(x)


EARLY = {"ema": 0.5, "early_stopping": 1, "initial_learning_rate": 0.1}


@pytest.mark.nightly_cases("coupling flow and summaries", "ensemble")
@pytest.mark.parametrize(
    ("make", "settings", "options"),
    [
        (workflow, {"inference_network": FLOW, **EARLY}, {}),
        (summarized, {"inference_network": CouplingFlow(depth=2, widths=(8,))}, {"validation_data": None}),
        (ensemble, {"inference_networks": FLOW, **EARLY}, {"data_reuse": 0.5}),
    ],
    ids=["early stop", "coupling flow and summaries", "ensemble"],
)
def test_two_processes_train_as_one(make, settings, options):
    """Weights and losses are those of one device up to rounding, with slices of unequal length and a batch of
    one row."""
    check_close(fit(make(**settings, **TWO), **options), fit(make(**settings), **options))


def test_online(tmp_path):
    """Each process makes the simulations of the whole batch, and the same."""

    def online(**arguments):
        made = workflow(inference_network=FLOW, **arguments)
        made.fit_online(epochs=2, num_batches_per_epoch=4, batch_size=5)
        return made

    check_close(online(**TWO), online())


def test_a_step_that_no_member_takes(tmp_path):
    """The member with fewer batches, trained apart on two devices, sits the last step of every epoch out."""

    def part(**arguments):
        made = ensemble(inference_networks=FLOW, ema=0.9, checkpoint_filepath=tmp_path, **arguments)
        return fit(made, data={name: value[:57] for name, value in DATA.items()}, data_reuse=0, members=["0"])

    check_close(part(**TWO), part())
    assert Part.load(tmp_path / "model.only-0.part").members == ("0",)


def test_epochs_end_in_this_process_and_files_are_whole(tmp_path):
    """The listener is called once an epoch with the losses of the history, and the file of the best epoch has
    its weights."""
    heard = []
    settings = {"inference_network": FLOW, "save_best_only": True, "early_stopping": 2}
    made = workflow(checkpoint_filepath=tmp_path, **settings, **TWO)
    fit(
        made, data=VALIDATION, batch_size=64, on_epoch_end=lambda epoch, losses: heard.append((epoch, losses))
    )
    assert [epoch for epoch, _ in heard] == [1, 2, 3, 4]
    assert [losses["val_loss"] for _, losses in heard] == made.history.history["val_loss"]
    best = load_approximator(tmp_path / "model.safetensors")
    assert all(torch.equal(value, trained(best)[name]) for name, value in trained(made.approximator).items())
    assert best.certify(VALIDATION, seed=0)[0].novelty is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.resume.ckpt", "model.safetensors"]


@pytest.mark.nightly
def test_a_resumed_training_ends_as_an_undisturbed_one(tmp_path):
    """What the listener raises ends all processes and is raised here; restored, the training ends to the bit
    as one on two devices."""

    def stop(epoch, losses):
        if epoch == 3:
            raise Stop

    settings = {"inference_network": FLOW, "ema": 0.9, **TWO}
    with pytest.raises(Stop):
        fit(workflow(checkpoint_filepath=tmp_path, **settings), on_epoch_end=stop)
    resumed = fit(workflow(checkpoint_filepath=tmp_path, restore=True, **settings))
    whole = fit(workflow(**settings))
    assert resumed.history == whole.history
    assert all(
        torch.equal(value, trained(resumed.approximator)[name])
        for name, value in trained(whole.approximator).items()
    )


def test_a_loss_that_explodes_is_told_as_on_one_device():
    """The error is a TrainingError with the epoch, and the approximator keeps the weights that it came
    with."""
    made = workflow(inference_network=FLOW, **TWO, initial_learning_rate=1e30)
    made.approximator.build(DATA, seed=0)
    before = {name: value.clone() for name, value in made.approximator.state_dict().items()}
    with pytest.raises(
        TrainingError, match=r"^The training loss is nan in epoch 1\. Try a smaller initial_learning_rate"
    ):
        fit(made)
    assert all(torch.equal(value, before[name]) for name, value in made.approximator.state_dict().items())


@register("test_devices_own_loss")
class OwnLoss(FlowMatching):
    """A loss that draws its own random numbers, as far as anyone can tell."""

    def loss(self, theta, conditions, generator=None):
        return super().loss(theta, conditions, generator)


@register("test_devices_coupled")
class Coupled(FlowMatching):
    """A loss of which a row depends on the others."""

    def loss_given(self, theta, conditions, drawn):
        return super().loss_given(theta, conditions, drawn) * theta.std()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (
            workflow,
            {"inference_network": OwnLoss(widths=(8,))},
            "OwnLoss has a loss of its own, not draw and loss_given",
        ),
        (workflow, {"inference_network": Coupled(widths=(8,))}, "loss of a row depends on the other rows"),
        (summarized, {"summary_network": Plain(before="dropout")}, "layers with dropout"),
        (summarized, {"summary_network": Plain(before="norm")}, "more than 1 value per channel"),
        (workflow, {"compile": "eager"}, "Expected no compile with several devices"),
        (ensemble, {"batched": True}, "got 0, 1, which cannot: they train on devices=2"),
        (
            ensemble,
            {"inference_networks": OwnLoss(widths=(8,))},
            "networks of member '0' whose batches several devices can share",
        ),
    ],
)
def test_what_devices_cannot_share_is_refused_before_training(make, arguments, message):
    """With the reason."""
    with pytest.raises(ConfigurationError, match=message):
        fit(make(**arguments, **TWO))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": 0}, "Expected devices"),
        ({"devices": "all"}, "Expected devices"),
        ({"devices": 2, "strategy": "ddp", "seed": None}, 'Expected a seed with strategy "ddp"'),
        ({"strategy": "dpp"}, "Unknown strategy 'dpp'. Did you mean 'ddp'"),
    ],
)
def test_settings_that_are_none_are_refused(arguments, message):
    """Before anything else."""
    with pytest.raises(ConfigurationError, match=message):
        workflow(**arguments)


def test_all_devices_of_a_cpu_are_one():
    """devices="auto" is one process there, to the bit that of a training without it."""
    one, auto = (
        fit(workflow(inference_network=FLOW, **arguments), epochs=1)
        for arguments in ({}, {"devices": "auto"})
    )
    assert one.history == auto.history


def test_what_cannot_be_sent_is_told():
    """A local function does not go to processes that are spawned; the error says what does."""
    made = workflow(inference_network=FLOW, devices=2, strategy="ddp_spawn")
    with pytest.raises(ConfigurationError, match=r"Can't pickle .*Define functions at the top of a module"):
        fit(made, augmentations=lambda batch: batch)


@pytest.mark.integration
def test_spawned_processes_train_as_one():
    """As with those that are forked; the history and early stops come back."""
    settings = {"inference_networks": FLOW, **EARLY}
    check_close(fit(ensemble(**settings, devices=2, strategy="ddp_spawn")), fit(ensemble(**settings)))


_SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from test_workflow_devices import FLOW, fit, workflow
heard = []
made = fit(
    workflow(
        inference_network=FLOW, checkpoint_filepath={folder!r}, save_best_only=True, devices=2, strategy="ddp"
    ),
    on_epoch_end=lambda epoch, losses: heard.append(epoch),
)
print("heard", heard, made.history.epochs, flush=True)
"""


_UNSEEDED = """
import os, sys
sys.path.insert(0, {here!r})
from test_workflow_devices import FLOW, SIMULATOR, fit, workflow
data = SIMULATOR.sample(64, seed=int(os.environ.get("LOCAL_RANK", 0)))
fit(workflow(inference_network=FLOW, devices=2, strategy="ddp"), data=data)
"""


@pytest.mark.integration
def test_processes_with_other_data_are_found(tmp_path):
    """A script that draws other data in each process ends before training, with an error that says so."""
    script = tmp_path / "script.py"
    script.write_text(_UNSEEDED.format(here=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert (
        "Expected the same settings, seed and data in all 2 processes, got others in 1 of them" in done.stderr
    )


@pytest.mark.integration
def test_a_script_that_runs_in_every_process(tmp_path):
    """With "ddp" both processes end with the history, one of them hears of epochs and writes files: the
    approximator of one device."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.format(here=str(Path(__file__).parent), folder=str(tmp_path / "there")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("heard")) == [
        "heard [1, 2, 3, 4] 4",
        "heard [] 4",
    ]
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        "model.resume.ckpt",
        "model.safetensors",
    ]
    fit(workflow(inference_network=FLOW, checkpoint_filepath=tmp_path / "here", save_best_only=True))
    one, two = (
        trained(load_approximator(tmp_path / where / "model.safetensors")) for where in ("here", "there")
    )
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=1e-5)
