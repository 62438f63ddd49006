"""Simulations ahead of the training, in a thread or in other processes, change neither weights nor history by
a bit."""

import logging
import threading
from functools import cache

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, workflow
from sent_functions import fails_late, likelihood, meta, prior, scaled

from sbi_models import make_simulator
from sbi_models.networks import DeepSet
from sbi_models.simulators import Simulator, background, worker_pool
from sbi_models.simulators.table import Table

GUIDE = make_simulator([prior, likelihood])
META = make_simulator([prior, scaled], meta_fn=meta)
HERE = 1

pytestmark = pytest.mark.xdist_group("background")  # the tests share processes that take seconds to start


class Stop(Exception):
    """Raised by a listener to end a training."""


def noisy(batch):
    return batch | {"x": batch["x"] + 0.1 * np.random.normal(size=batch["x"].shape)}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Others are started for any work and waited for, so that short trainings show what long ones do."""
    monkeypatch.setattr(background, "_TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(background, "_WORTHWHILE_SECONDS", 0.0)
    monkeypatch.setattr(background, "_PATIENCE", 60.0)
    monkeypatch.setattr(worker_pool, "cores", lambda: 2)


@pytest.fixture
def here(monkeypatch):
    """Seed, block and thread of each block that this process computes."""
    computed, plain = [], Table.block

    def block(self, index):
        computed.append((self.seed, index, threading.current_thread() is threading.main_thread()))
        return plain(self, index)

    monkeypatch.setattr(Table, "block", block)
    return computed


def made(simulator, **arguments):
    sets = {
        "summary_network": DeepSet(4, (8,), (8,)),
        "summary_variables": ["x"],
        "inference_conditions": None,
    }
    return workflow(simulator=simulator, **({} if simulator is SIMULATOR else sets), **arguments)


def trained(simulator, workers, *, build=made, **arguments):
    """History and weights after 3 epochs of 20 batches of 32, in two chunks an epoch."""
    approximator = build(simulator)
    fitted = {"epochs": 3, "num_batches_per_epoch": 20, "batch_size": 32, "validation_data": 30} | arguments
    history = approximator.fit_online(**fitted, workers=workers)
    return history.history, {
        name: value.clone() for name, value in approximator.approximator.state_dict().items()
    }


def assert_same(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    assert all(torch.equal(a[1][name], b[1][name]) for name in a[1])


@pytest.mark.nightly_cases("meta_fn")
@pytest.mark.parametrize(
    ("simulator", "augmentations"), [(GUIDE, noisy), (META, None)], ids=["global state", "meta_fn"]
)
# Seconds: each process imports PyTorch and the package.
@pytest.mark.acceptance
def test_other_processes_do_not_change_a_bit(simulator, augmentations, here):
    """One other process and two, with augmentations that use the global state too, give what this process
    gives, and leave that state."""
    expected = trained(simulator, HERE, augmentations=augmentations)
    alone = len(here)
    for workers in (None, 2):
        here.clear()
        np.random.seed(11)
        before = np.random.get_state()
        assert_same(trained(simulator, workers, augmentations=augmentations), expected)
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])
        assert np.random.get_state()[2:] == before[2:]
        assert len(here) <= alone - 1900  # of 1920 to train on


@pytest.mark.nightly
@pytest.mark.parametrize("augmentations", [None, noisy], ids=["plain", "augmented"])
def test_a_thread_does_not_change_a_bit(augmentations, here):
    """Batched functions with rng run in a thread unless told otherwise, with the results of this thread and
    of two processes."""
    expected = trained(SIMULATOR, HERE, augmentations=augmentations)
    assert all(in_main for *_, in_main in here)
    here.clear()
    assert_same(trained(SIMULATOR, None, augmentations=augmentations), expected)
    training = list(dict.fromkeys(seed for seed, *_ in here))[-2]  # the last one is for certificates
    assert {in_main for seed, _, in_main in here if seed == training} == {False}
    assert_same(trained(SIMULATOR, 2, augmentations=augmentations), expected)


@cache
def _undisturbed():
    """History and weights of a training of this process alone."""
    return trained(GUIDE, HERE, augmentations=noisy)


@pytest.mark.nightly
@pytest.mark.parametrize(("workers", "stop"), [(None, 1), (2, 2)])
def test_a_resumed_training_ends_as_an_undisturbed_one(workers, stop, tmp_path):
    """Left in epoch 1 or 2 of 3 and restored, with others ahead in both parts, a training ends as one of this
    process alone."""
    expected = _undisturbed()

    def stops(epoch, losses):
        if epoch == stop:
            raise Stop

    with pytest.raises(Stop):
        trained(
            GUIDE,
            workers,
            augmentations=noisy,
            on_epoch_end=stops,
            build=lambda s: made(s, checkpoint_filepath=tmp_path),
        )
    restored = lambda s: made(s, checkpoint_filepath=tmp_path, restore=True)  # noqa: E731
    assert_same(trained(GUIDE, workers, augmentations=noisy, build=restored), expected)


@pytest.mark.nightly
def test_epochs_and_fits_share_their_workers(monkeypatch):
    """A training of three epochs, and the next one, borrow the same processes, and simulate no row twice or
    too many."""
    sent, plain = [], worker_pool.WorkerPool.submit

    def submit(self, table, indices):
        sent.extend(indices)  # rows, since each is a block
        return plain(self, table, indices)

    trained(GUIDE, None)
    monkeypatch.setattr(worker_pool.WorkerPool, "submit", submit)
    monkeypatch.setattr(worker_pool, "ProcessPoolExecutor", lambda **_: pytest.fail("processes are started"))
    trained(GUIDE, None)
    assert sent == [
        0,
        *range(2, 1920),
    ]  # the trial, and all but the two rows that were computed here meanwhile


@pytest.mark.nightly
def test_a_failure_ends_the_training_at_its_row():
    """The SimulationError of a worker is that of this process, and comes after the steps before it."""
    reached = {}
    for workers in (HERE, None, 2):
        simulator, epochs = make_simulator([prior, fails_late]), []
        with pytest.raises(Exception, match="too stiff") as caught:
            workflow(simulator=simulator).fit_online(
                epochs=4,
                num_batches_per_epoch=20,
                batch_size=32,
                workers=workers,
                on_epoch_end=lambda epoch, _, to=epochs: to.append(epoch),
            )
        reached[workers] = (type(caught.value), str(caught.value), epochs)
    assert reached[HERE][2] == [1, 2]
    assert reached[None] == reached[2] == reached[HERE]


@pytest.mark.nightly
def test_functions_that_cannot_be_sent_train_here(caplog):
    """A lock in a closure: one warning for all simulations of two trainings, whose results are those of this
    process."""
    lock = threading.Lock()

    def locked(theta):
        with lock:
            return likelihood(theta)

    simulator = make_simulator([prior, locked])
    expected = trained(simulator, HERE)
    with caplog.at_level(logging.WARNING):
        for workers in (None, 2):
            assert_same(trained(simulator, workers), expected)
    assert len([text for text in caplog.messages if "'locked' cannot be pickled" in text]) == 1


def test_a_subclass_with_rows_of_its_own_trains_here():
    """Overridden rows are called for every range, in this thread, and train as before."""

    class Spy(Simulator):
        def rows(self, start, stop, **arguments):
            threads.add(threading.current_thread())
            return super().rows(start, stop, **arguments)

    threads = set()
    spy = Spy([call.function for call in SIMULATOR.calls], is_batched=True)
    assert_same(trained(spy, None, build=lambda s: workflow(simulator=s)), trained(SIMULATOR, HERE))
    assert threads == {threading.main_thread()}
