"""EnsembleWorkflow(batched=True): one module for all members, and the training that they have side by
side."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, ensemble

from sbi_models.approximators import load_approximator
from sbi_models.datasets import Sharing
from sbi_models.errors import ConfigurationError, TrainingError
from sbi_models.networks import CouplingFlow, FlowMatching, SetTransformer
from sbi_models.networks.registry import register
from sbi_models.training import trainer
from sbi_models.training.batch_compatibility import Batchable
from sbi_models.training.fit_plan import FitPlan
from sbi_models.training.module import TrainingModule
from sbi_models.training.settings import TrainingSettings

DATA = SIMULATOR.sample(97, seed=1)
VALIDATION = SIMULATOR.sample(40, seed=2)
FLOW = FlowMatching(widths=(16, 16), steps=4)


class Stop(Exception):
    """Raised by a listener to end a training."""


def fit(made, *, method="fit_offline", epochs=2, **options):
    """The ensemble, trained in float32."""
    own = {"data": DATA} if method == "fit_offline" else {"num_batches_per_epoch": 5}
    getattr(made, method)(epochs=epochs, batch_size=8, validation_data=VALIDATION, **own, **options)
    return made


def make(batched, **arguments):
    return ensemble(**({"ensemble_size": 3, "batched": batched} | arguments))


def weights(made):
    return {name: value.clone() for name, value in getattr(made, "approximator", made).state_dict().items()}


def check_close(made, expected):
    """Histories and weights are the same but for rounding in float32."""
    assert made.history.history.keys() == expected.history.history.keys()
    for name, values in expected.history.history.items():
        np.testing.assert_allclose(made.history.history[name], values, rtol=1e-4, err_msg=name)
    for name, value in weights(expected).items():
        assert (weights(made)[name] - value).double().norm() <= 1e-4 * value.double().norm(), name


@pytest.fixture
def sizes(monkeypatch):
    """How many members each batched step trains."""
    seen, plain = [], TrainingModule._batched_step

    def step(self, batched, rows):
        seen.append(len(rows))
        return plain(self, batched, rows)

    monkeypatch.setattr(TrainingModule, "_batched_step", step)
    return seen


@pytest.mark.parametrize("method", ["fit_offline", "fit_online"])
@pytest.mark.parametrize("reuse", [0, 0.5, 1.0])
def test_it_is_the_training_side_by_side(method, reuse, sizes):
    """In memory and online, sharing all, some and no data, members get the weights and losses that they get
    side by side.

    Without a row in common, of 97 rows one member has one more, for which it takes a step alone.
    """
    made = fit(make(True), method=method, data_reuse=reuse)
    steps = 5 if method == "fit_online" else {0: 4, 0.5: 7, 1.0: 13}[reuse]
    assert sizes == [3] * 2 * steps
    check_close(made, fit(make(False), method=method, data_reuse=reuse))
    assert len(sizes) == 2 * steps


def test_members_with_batches_of_another_size_step_apart(sizes):
    """Where a member has a row less in its last batch than the others, those are batched without it, and
    nothing else changes."""
    rows = {name: value[:95] for name, value in DATA.items()}  # windows of 32, 31 and 32
    runs = []
    for batched in (True, False):
        runs.append(make(batched))
        runs[-1].fit_offline(rows, epochs=2, batch_size=8, data_reuse=0)
    assert sizes == 2 * [3, 3, 3, 2]
    check_close(*runs)


@pytest.mark.nightly
def test_each_member_is_clipped_by_itself(monkeypatch):
    """Steep gradients, under an optimizer that feels their norm, are clipped member by member as side by
    side."""
    network = CouplingFlow(depth=2, transform="affine", widths=(8, 8))
    steep = {
        "optimizer": torch.optim.SGD,
        "initial_learning_rate": 0.5,
        "ema": 0.9,
        "inference_networks": network,
    }
    made = fit(make(True, **steep), epochs=2)
    check_close(made, fit(make(False, **steep), epochs=2))
    monkeypatch.setattr(trainer, "GRADIENT_NORM", 1e6)
    with pytest.raises(TrainingError, match="loss is nan"):  # and without clipping it diverges
        fit(make(True, **steep), epochs=2)


def test_members_of_other_architectures_train_beside_the_batch(sizes):
    """Two of one architecture are batched, a third of another is not, and all have the training that they
    have side by side."""
    networks = {
        "inference_networks": {"a": FLOW, "other": CouplingFlow(widths=(8, 8)), "b": FLOW},
        "ensemble_size": None,
    }
    made = fit(make(True, **networks), epochs=2)
    assert sizes == [2] * 2 * 13
    check_close(made, fit(make(False, **networks), epochs=2))


SCRIPT = {"0": [5.0, 4.0, 3.0, 2.0, 1.0], "1": [1.0, 2.0, 3.0, 4.0, 5.0], "2": [3.0, 2.0, 3.0, 4.0, 5.0]}


@pytest.mark.nightly_cases("0.9")
@pytest.mark.parametrize("ema", [None, 0.9])
def test_members_that_have_stopped_move_no_more(ema, monkeypatch, sizes):
    """With a patience of 1, member 1 stops after epoch 2 and member 2 after 3; from then on, only the others
    are in the batch and move."""
    plain = TrainingModule._means

    def means(self):
        own = plain(self)
        return own | {
            f"{name}/val_loss": SCRIPT[name][self.current_epoch]
            for name in SCRIPT
            if f"{name}/val_loss" in own
        }

    monkeypatch.setattr(TrainingModule, "_means", means)
    made, expected = (make(batched, early_stopping=1, ema=ema) for batched in (True, False))
    epochs = []
    fit(made, epochs=5, on_epoch_end=lambda epoch, losses: epochs.append(weights(made)))
    assert sizes == [3] * 2 * 13 + [2] * 13  # in the last two epochs, member 0 is alone
    moved = [
        {key.split(".")[1] for key, value in later.items() if not torch.equal(value, earlier[key])}
        for earlier, later in pairwise(epochs)
    ]
    assert moved == [{"0", "1", "2"}, {"0", "2"}, {"0"}, {"0"}]
    check_close(made, fit(expected, epochs=5))
    assert made.history.best_epochs == {"0": 5, "1": 1, "2": 2}


@pytest.mark.nightly_cases("fit_online")
@pytest.mark.parametrize("method", ["fit_offline", "fit_online"])
def test_a_resumed_training_ends_as_an_undisturbed_one(method, tmp_path):
    """Stopped in epoch 3 and restored, with averaged weights and members that stop, all is as in one life, to
    the bit; the file too."""
    options = {"early_stopping": 1, "ema": 0.9, "initial_learning_rate": 0.05}

    def run(on_epoch_end=None, **arguments):
        return fit(
            make(True, **options, **arguments),
            method=method,
            epochs=7,
            data_reuse=0.3,
            on_epoch_end=on_epoch_end,
        )

    def stop(epoch, losses):
        if epoch == 3:
            raise Stop

    whole = run()
    with pytest.raises(Stop):
        run(stop, checkpoint_filepath=tmp_path)
    resumed = run(checkpoint_filepath=tmp_path, restore=True)
    assert resumed.history.history == whole.history.history
    assert len({len(values) for values in whole.history.history.values()}) > 1  # some stopped earlier
    saved = weights(load_approximator(tmp_path / "model.safetensors"))
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name])
        assert torch.equal(value, saved[name])


def test_a_checkpoint_of_one_mode_is_refused_by_the_other(tmp_path):
    """A training goes on in the mode that it began in; the error names both."""
    for batched, expected in ((True, "none, got 0, 1, 2"), (False, "0, 1, 2, got none")):
        folder = tmp_path / str(batched)
        fit(make(batched, checkpoint_filepath=folder), epochs=1)
        with pytest.raises(
            ConfigurationError, match=rf"belongs to another training: expected batched members {expected}\."
        ):
            fit(make(not batched, checkpoint_filepath=folder, restore=True), epochs=1)


def test_a_member_that_explodes_is_named(monkeypatch):
    """A loss of a batched member that is not finite is an error with its name, and all get back the weights
    that they came with."""
    plain = TrainingModule._batched_step

    def step(self, batched, rows):
        with torch.no_grad():
            batched.members["1"].inference_network.field.out.bias.fill_(float("inf"))
        return plain(self, batched, rows)

    monkeypatch.setattr(TrainingModule, "_batched_step", step)
    made = make(True)
    made.approximator.build(DATA, seed=0)
    before = weights(made)
    with pytest.raises(TrainingError, match="loss of member '1' is inf in epoch 1"):
        fit(made)
    assert all(torch.equal(value, weights(made)[name]) for name, value in before.items())


# --- the choice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"compile": "eager"},
            "got 0, 1, 2, which cannot: compile='eager' compiles the networks of each member",
        ),
        (
            {"inference_networks": {"a": FLOW, "b": CouplingFlow()}, "ensemble_size": None},
            "got no two of one architecture",
        ),
        (
            {
                "summary_networks": SetTransformer(width=8, heads=2, dropout=0.1),
                "summary_variables": ["x"],
                "inference_conditions": None,
            },
            "got 0, 1, 2, which cannot: members with dropout",
        ),
    ],
)
def test_what_is_demanded_and_impossible_is_refused(arguments, message):
    """batched=True is an error that says why, before training; without it the members train side by side."""
    data = {
        name: value[..., None] if name == "x" and "summary_variables" in arguments else value
        for name, value in DATA.items()
    }
    with pytest.raises(
        ConfigurationError,
        match=rf"with batched=True, {message}.*Leave batched out, and they train side by side",
    ):
        make(True, **arguments).fit_offline(data, epochs=1, batch_size=32)
    assert make(None, **arguments).fit_offline(data, epochs=1, batch_size=32).epochs == 1


def test_batched_is_a_truth_value_or_none():
    """Anything else is refused when the workflow is made."""
    with pytest.raises(ConfigurationError, match="batched as True, False or None, got 'yes'"):
        make("yes")


def test_without_a_word_members_are_batched_on_a_gpu_where_they_can(monkeypatch, sizes):
    """None trains side by side on a CPU, and on a GPU those as a batch that pass the trial there; False never
    does."""
    fit(make(None), epochs=1)
    assert sizes == []
    asked = []

    def batchable(approximator, device, half, among):
        asked.append((device.type, half))
        return Batchable(groups=[["0", "1"]], reasons={"2, 3": "something"})

    monkeypatch.setattr(trainer, "batchable_members", batchable)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = make(None, ensemble_size=4).approximator
    assert trainer._groups(made, TrainingSettings(precision="bf16-mixed"), FitPlan(Sharing(4))) == [
        ["0", "1"]
    ]
    assert asked == [("cuda", torch.bfloat16)]
    assert trainer._groups(made, TrainingSettings(accelerator="cpu"), FitPlan(Sharing(4))) == []
    assert trainer._groups(made, TrainingSettings(), FitPlan(Sharing(4), batched=False)) == []
    assert trainer._groups(made.members["0"], TrainingSettings(), FitPlan(Sharing(1))) == []
    assert len(asked) == 1


def test_side_by_side_calls_the_loss_of_members(monkeypatch):
    """A network that has a loss of its own, and nothing else, trains side by side as it always did."""
    calls = []

    @register("test_batched_plain")
    class Plain(FlowMatching):
        def loss(self, theta, conditions, generator=None):
            calls.append(len(theta))
            return super().loss(theta, conditions, generator)

    fit(make(None, inference_networks=Plain(widths=(8,))), epochs=1)
    assert calls.count(8) == 3 * 12
    with pytest.raises(ConfigurationError, match="Plain has a loss of its own, not draw and loss_given"):
        fit(make(True, inference_networks=Plain(widths=(8,))), epochs=1)
