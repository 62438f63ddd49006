"""fit_disk finds the posterior that fit_offline finds, and resumes to the bit."""

import numpy as np
import pytest
import torch
from linear_gaussian import SD, SIMULATOR, exact_log_prob, exact_mean, workflow

from sbi_models.errors import DataError

TEST = SIMULATOR.sample(100, seed=8)


def write_files(folder, num_files=16, per_file=500):
    """Files of the linear-Gaussian model."""
    data = SIMULATOR.sample(num_files * per_file, seed=1)
    for k in range(num_files):
        np.savez(
            folder / f"{k}.npz",
            **{name: value[k * per_file : (k + 1) * per_file] for name, value in data.items()},
        )


@pytest.mark.nightly
def test_the_posterior_is_found(tmp_path):
    """After 250 steps from files the posterior of the linear-Gaussian model has the exact mean, sd and
    density."""
    write_files(tmp_path)
    trained = workflow(widths=(32, 32), seed=0)
    history = trained.fit_disk(tmp_path, pattern="*.npz", batch_size=128, epochs=4, validation_data=TEST)
    assert len(history.history["val_loss"]) == 4
    draws = trained.sample(num_samples=400, conditions=TEST, seed=1)["theta"]
    error = (draws.mean(axis=1) - exact_mean(TEST["x"])) / SD
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert draws.std(axis=1).mean() / SD == pytest.approx(1.0, abs=0.1)
    assert trained.log_prob(TEST).mean() == pytest.approx(exact_log_prob(TEST).mean(), abs=0.05)


def test_an_interrupted_training_goes_on_to_the_bit(tmp_path):
    """Stopped after its first epoch and restored, a training from files ends with the weights of an
    undisturbed one."""
    write_files(tmp_path, num_files=4, per_file=32)

    class Stop(Exception):
        pass

    def stop(epoch, losses):
        if epoch == 2:
            raise Stop

    def weights(folder, on_epoch_end=None):
        trained = workflow(seed=3, checkpoint_filepath=folder, restore=True)
        trained.fit_disk(tmp_path, pattern="*.npz", batch_size=24, epochs=3, on_epoch_end=on_epoch_end)
        return torch.cat([p.detach().reshape(-1) for p in trained.approximator.parameters()])

    whole = weights(tmp_path / "whole")
    with pytest.raises(Stop):
        weights(tmp_path / "stopped", stop)
    assert torch.equal(whole, weights(tmp_path / "stopped"))


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    """More rows in a batch than in all files is an error before training."""
    write_files(tmp_path, num_files=2, per_file=5)
    with pytest.raises(DataError, match="at most the 10 simulations"):
        workflow().fit_disk(tmp_path, pattern="*.npz", batch_size=11)
