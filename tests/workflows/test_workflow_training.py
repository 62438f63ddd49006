"""What a training leaves behind, and what it is a function of."""

import random
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, workflow

from sbi_models import History
from sbi_models.approximators import ContinuousApproximator, load_approximator
from sbi_models.datasets import Batches
from sbi_models.errors import TrainingError
from sbi_models.simulators import Simulator
from sbi_models.training.module import TrainingModule

DATA = SIMULATOR.sample(150, seed=1)
VALIDATION = SIMULATOR.sample(40, seed=2)


def fit(made, method, *, epochs=4, validation_data=VALIDATION, **arguments):
    """A small training: 150 simulations in batches of 32 (the last one shorter), or 5 simulated batches an
    epoch."""
    own = {"data": DATA} if method == "fit_offline" else {"num_batches_per_epoch": 5}
    return getattr(made, method)(
        epochs=epochs, batch_size=32, validation_data=validation_data, **own, **arguments
    )


def weights(made):
    approximator = getattr(made, "approximator", made)
    return {name: value.clone() for name, value in approximator.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


both = pytest.mark.parametrize("method", ["fit_online", "fit_offline"])


class Stop(Exception):
    """Raised by a listener to end a training."""


# --- history


@both
@pytest.mark.parametrize(
    "validation_data", [None, 30, np.int64(30), VALIDATION], ids=["none", "int", "int64", "data"]
)
def test_the_history_has_a_loss_an_epoch(method, validation_data):
    """history["loss"] has one finite float an epoch, and so has ["val_loss"] exactly with validation data;
    the listener hears them."""
    made, heard = workflow(), []
    history = fit(
        made,
        method,
        epochs=3,
        validation_data=validation_data,
        on_epoch_end=lambda epoch, losses: heard.append((epoch, losses)),
    )
    assert isinstance(history, History)
    assert made.history is history
    assert history.epochs == 3
    assert sorted(history.history) == (["loss"] if validation_data is None else ["loss", "val_loss"])
    assert all(len(values) == 3 and np.isfinite(values).all() for values in history.history.values())
    assert [epoch for epoch, _ in heard] == [1, 2, 3]
    assert [losses for _, losses in heard] == [
        {name: values[i] for name, values in history.history.items()} for i in range(3)
    ]
    assert not made.approximator.training


def test_an_epoch_loss_is_the_mean_over_rows(monkeypatch):
    """With a step too small to move anything, the loss of an epoch and of the validation is the sum over all
    rows, over their number, to 1e-5: batches of 32 count more than the last one, of 22, and the mean of the
    means of batches is told apart."""
    seen, plain = {True: [], False: []}, ContinuousApproximator.loss

    def spied(self, prepared, generator=None):
        losses = plain(self, prepared, generator)
        seen[self.training].append(losses.detach().double())
        return losses

    monkeypatch.setattr(ContinuousApproximator, "loss", spied)
    history = fit(workflow(initial_learning_rate=1e-14), "fit_offline", epochs=1).history
    assert [len(losses) for losses in seen[True]] == [32] * 4 + [22]
    assert history["val_loss"] == [pytest.approx(float(torch.cat(seen[False]).mean()), rel=1e-5)]
    over_rows = float(torch.cat(seen[True]).mean())
    assert history["loss"] == [pytest.approx(over_rows, rel=1e-5)]
    of_batches = np.mean([float(losses.mean()) for losses in seen[True]])
    assert of_batches != pytest.approx(over_rows, rel=1e-4)


def test_validation_noise_is_fixed():
    """The validation loss of a network that does not move is the same in every epoch, the training loss is
    not."""
    for method in ("fit_online", "fit_offline"):
        history = fit(workflow(initial_learning_rate=1e-14), method).history
        np.testing.assert_allclose(history["val_loss"], history["val_loss"][0], rtol=1e-6)
        assert np.ptp(history["loss"]) > 1e-3


@both
def test_training_noise_is_never_used_twice(method, monkeypatch):
    """Every training step of every epoch has a random stream of its own, other than that of the
    validation."""
    seeds, plain = {True: [], False: []}, ContinuousApproximator.loss

    def spied(self, prepared, generator=None):
        seeds[self.training].append(generator.initial_seed())
        return plain(self, prepared, generator)

    monkeypatch.setattr(ContinuousApproximator, "loss", spied)
    fit(workflow(), method)
    assert len(seeds[True]) == len(set(seeds[True])) == 20
    assert len(seeds[False]) == 4
    assert len(set(seeds[False]) - set(seeds[True])) == 1


# --- seeds


@both
def test_the_seed_decides_everything(method):
    """The same seed gives the same weights and history to the bit, whatever the global states; another seed
    gives other ones."""
    results = []
    for seed, global_seed in [(1, 0), (1, 5), (2, 0)]:
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        made = workflow(seed=seed)
        results.append((fit(made, method, validation_data=20).history, weights(made)))
    assert results[0][0] == results[1][0]
    assert equal(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]
    assert not torch.equal(
        results[0][1]["inference_network.field.out.weight"],
        results[2][1]["inference_network.field.out.weight"],
    )


def test_without_a_seed_np_random_seed_governs():
    """Unseeded workflows made after the same np.random.seed are equal, and consecutive ones differ."""
    np.random.seed(4)
    first, second = workflow(seed=None), workflow(seed=None)
    np.random.seed(4)
    assert workflow(seed=None).seed == first.seed != second.seed


@both
def test_global_states_are_left_alone(method):
    """A training leaves the random states of torch, NumPy and Python as they were."""
    made = workflow()
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        np.random.get_state()[2],
        random.getstate(),
    )
    fit(made, method, epochs=1)
    after = torch.get_rng_state(), np.random.get_state()[1], np.random.get_state()[2], random.getstate()
    assert torch.equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_online_training_uses_every_row_once():
    """Three epochs of five batches of 32 ask for rows 0 to 480 of one table in turn, none twice, up to a
    block in one call."""
    asked = []

    class Spy(Simulator):
        def rows(self, start, stop, *, seed, **arguments):
            asked.append((seed, start, stop))
            return super().rows(start, stop, seed=seed, **arguments)

    spy = Spy([call.function for call in SIMULATOR.calls], is_batched=True)
    fit(workflow(simulator=spy), "fit_online", epochs=3, validation_data=None)
    table = Counter(seed for seed, *_ in asked).most_common(1)[0][0]
    assert [(start, stop) for seed, start, stop in asked if seed == table] == [
        (0, 160),
        (160, 320),
        (320, 480),
    ]
    assert len({seed for seed, *_ in asked}) == 3  # the others are for the moments and for certificates


def test_offline_training_shuffles_anew_in_every_epoch(monkeypatch):
    """Each epoch of a training passes over the data in the order of its own number."""
    epochs, plain = [], Batches.__iter__

    def spied(self):
        for k, batch in enumerate(plain(self)):
            if self.seed is not None and k == 0:
                epochs.append(self.epoch)
            yield batch

    monkeypatch.setattr(Batches, "__iter__", spied)
    fit(workflow(), "fit_offline", epochs=3)
    assert epochs == [0, 1, 2]


# --- checkpoints


@both
@pytest.mark.parametrize("stop", [1, pytest.param(2, marks=pytest.mark.nightly), 4])
def test_a_resumed_training_ends_as_an_undisturbed_one(method, stop, tmp_path):
    """Stopped in epoch `stop` of 4 and restored, a training has the weights and the history of one that was
    never stopped, to the bit."""
    whole = workflow()
    expected = fit(whole, method)

    def stops(epoch, losses):
        if epoch == stop:
            raise Stop

    with pytest.raises(Stop):
        fit(workflow(checkpoint_filepath=tmp_path), method, on_epoch_end=stops)
    resumed, heard = workflow(checkpoint_filepath=tmp_path, restore=True), []
    history = fit(resumed, method, on_epoch_end=lambda epoch, losses: heard.append(epoch))
    assert heard == list(range(stop, 5))  # what was heard but not yet written is repeated
    assert history.history == expected.history
    assert equal(weights(resumed), weights(whole))
    assert equal(weights(load_approximator(tmp_path / "model.safetensors")), weights(whole))


# Seconds: the process that is killed imports PyTorch and Lightning first.
@pytest.mark.acceptance
def test_a_killed_process_can_be_resumed(tmp_path):
    """A process killed in epoch 3 leaves what another process needs to end as an undisturbed training."""
    whole = workflow()
    expected = fit(whole, "fit_offline")
    script = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from linear_gaussian import SIMULATOR, workflow
        workflow(checkpoint_filepath={str(tmp_path)!r}).fit_offline(
            SIMULATOR.sample(150, seed=1), epochs=4, batch_size=32,
            validation_data=SIMULATOR.sample(40, seed=2),
            on_epoch_end=lambda epoch, losses: os._exit(9) if epoch == 3 else None,
        )
    """
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=False, timeout=120
    )
    assert killed.returncode == 9
    resumed = workflow(checkpoint_filepath=tmp_path, restore=True)
    assert fit(resumed, "fit_offline").history == expected.history
    assert equal(weights(resumed), weights(whole))


def test_restoring_a_finished_training_trains_no_more(tmp_path):
    """Restored after its last epoch, a training returns its history and weights at once."""
    first = workflow(checkpoint_filepath=tmp_path, checkpoint_name="mine")
    history = fit(first, "fit_offline")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.resume.ckpt", "mine.safetensors"]
    again, heard = workflow(checkpoint_filepath=tmp_path, checkpoint_name="mine", restore=True), []
    assert fit(again, "fit_offline", on_epoch_end=lambda *args: heard.append(args)).history == history.history
    assert heard == []
    assert equal(weights(again), weights(first))


def test_without_restore_a_training_starts_anew(tmp_path):
    """restore=False in a folder with a checkpoint gives the result of a new training; restore=True without
    one starts one."""
    expected = fit(workflow(), "fit_offline").history
    stale = workflow(checkpoint_filepath=tmp_path, seed=7)
    fit(stale, "fit_offline", epochs=2)
    assert fit(workflow(checkpoint_filepath=tmp_path), "fit_offline").history == expected
    assert (
        fit(workflow(checkpoint_filepath=tmp_path / "new", restore=True), "fit_offline").history == expected
    )


@pytest.mark.parametrize("name", ["val_loss", "loss"])
def test_save_best_only_keeps_the_lowest_loss(name, tmp_path, monkeypatch):
    """The file holds the weights of the epoch of lowest validation (else training) loss, also over a restart;
    otherwise the last ones."""
    script, epochs = [3.0, 1.0, 2.0, 1.5], []

    def scripted(self):
        return {"loss": 9.0 - len(epochs), name: script[self.current_epoch]}

    monkeypatch.setattr(TrainingModule, "epoch_losses", scripted)

    def run(folder, *, save_best_only, restore=False, stop=None):
        made = workflow(checkpoint_filepath=folder, save_best_only=save_best_only, restore=restore)

        def listen(epoch, losses):
            if epoch == stop:
                raise Stop
            epochs.append(weights(made))

        fit(
            made,
            "fit_offline",
            validation_data=VALIDATION if name == "val_loss" else None,
            on_epoch_end=listen,
        )
        return weights(load_approximator(folder / "model.safetensors"))

    assert equal(run(tmp_path / "best", save_best_only=True), epochs[1])
    assert equal(run(tmp_path / "last", save_best_only=False), epochs[3])
    assert not equal(epochs[1], epochs[3])
    with pytest.raises(Stop):
        run(tmp_path / "stopped", save_best_only=True, stop=4)
    assert equal(run(tmp_path / "stopped", save_best_only=True, restore=True), epochs[1])


# --- losses that are not finite


def test_a_training_that_explodes_is_stopped():
    """A learning rate without bounds ends in a TrainingError that names epoch, loss and cures."""
    with pytest.raises(
        TrainingError, match=r"training loss is (nan|inf) in epoch \d.*smaller initial_learning_rate"
    ):
        fit(workflow(initial_learning_rate=1e30), "fit_offline", validation_data=None)


@pytest.mark.parametrize(("name", "word"), [("loss", "training"), ("val_loss", "validation")])
def test_a_loss_that_is_not_finite_leaves_no_checkpoint(name, word, tmp_path, monkeypatch):
    """NaN in epoch 2, in training or validation, is refused with its epoch, and the checkpoint stays that of
    epoch 1."""
    add, epochs = TrainingModule._add, []

    def poisoned(self, key, losses, count):
        add(self, key, losses * float("nan") if key == name and self.current_epoch == 1 else losses, count)

    monkeypatch.setattr(TrainingModule, "_add", poisoned)
    made = workflow(checkpoint_filepath=tmp_path)
    with pytest.raises(TrainingError, match=rf"The {word} loss is nan in epoch 2\."):
        fit(made, "fit_offline", on_epoch_end=lambda epoch, losses: epochs.append(weights(made)))
    assert len(epochs) == 1
    assert equal(weights(load_approximator(tmp_path / "model.safetensors")), epochs[0])
