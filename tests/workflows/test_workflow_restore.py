"""What restore=True goes on with, and what it refuses to take for the same training."""

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, likelihood, prior, workflow

from sbi_models import Adapter, make_simulator
from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError, TrainingError
from sbi_models.training.module import TrainingModule

DATA = SIMULATOR.sample(64, seed=1) | {"b": SIMULATOR.sample(64, seed=2)["theta"]}


def weights(made):
    return torch.cat([value.detach().flatten() for value in getattr(made, "approximator", made).parameters()])


def louder(theta, rng):
    return {"x": theta + 0.9 * rng.normal(size=theta.shape)}


def doubled(batch):
    return batch | {"x": 2 * batch["x"]}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"inference_variables": ["b"]}, "roles"),
        ({"adapter": Adapter().scale("theta", by=10.0)}, "adapter"),
        ({"standardize": "all"}, "standardize"),
        ({"optimizer": torch.optim.SGD}, "optimizer"),
        ({"ema": 0.9}, "ema"),
    ],
)
def test_another_training_in_memory_is_refused(tmp_path, changed, named):
    """Other roles, adapters, standardization, or optimizers are no continuation of what the folder holds, and
    are named."""
    workflow(checkpoint_filepath=tmp_path).fit_offline(DATA, epochs=1)
    with pytest.raises(ConfigurationError, match=f"belongs to another training: expected {named}"):
        workflow(checkpoint_filepath=tmp_path, restore=True, **changed).fit_offline(DATA, epochs=1)


def test_other_augmentations_are_another_training(tmp_path):
    """A training without augmentations is not gone on with under some."""
    workflow(checkpoint_filepath=tmp_path).fit_offline(DATA, epochs=1, augmentations=lambda batch: batch)
    with pytest.raises(ConfigurationError, match=r"expected augmentations .*doubled"):
        workflow(checkpoint_filepath=tmp_path, restore=True).fit_offline(
            DATA, epochs=1, augmentations=doubled
        )


def test_another_simulator_is_another_training(tmp_path):
    """A changed constant of the likelihood is seen online."""
    arguments = {"epochs": 1, "num_batches_per_epoch": 2}
    workflow(checkpoint_filepath=tmp_path).fit_online(**arguments)
    workflow(
        checkpoint_filepath=tmp_path,
        restore=True,
        simulator=make_simulator([prior, likelihood], is_batched=True),
    ).fit_online(**arguments)
    changed = make_simulator([prior, louder], is_batched=True)
    with pytest.raises(ConfigurationError, match="belongs to another training: expected data"):
        workflow(checkpoint_filepath=tmp_path, restore=True, simulator=changed).fit_online(**arguments)


def test_other_values_in_files_are_another_training(tmp_path):
    """Files of the same names and sizes with other values are seen."""
    files, folder = tmp_path / "files", tmp_path / "checkpoint"
    files.mkdir()
    np.savez(files / "a.npz", **DATA)
    workflow(checkpoint_filepath=folder).fit_disk(files, "*.npz", epochs=1)
    np.savez(files / "a.npz", **(DATA | {"x": DATA["x"] + 1.0}))
    with pytest.raises(ConfigurationError, match="belongs to another training: expected data"):
        workflow(checkpoint_filepath=folder, restore=True).fit_disk(files, "*.npz", epochs=1)


def test_the_seed_of_the_checkpoint_is_taken(tmp_path):
    """Without a seed of its own a restored workflow takes that of the checkpoint, and trains nothing
    again."""
    first = workflow(seed=None, checkpoint_filepath=tmp_path, restore=True)
    first.fit_offline(DATA, epochs=2)
    again, heard = workflow(seed=None, checkpoint_filepath=tmp_path, restore=True), []
    again.fit_offline(DATA, epochs=2, on_epoch_end=lambda *_: heard.append(1))
    assert again.seed == first.seed
    assert heard == []
    assert torch.equal(weights(again), weights(first))


def test_the_best_of_two_fits_is_kept(tmp_path, monkeypatch):
    """With save_best_only a second fit replaces the file only where it is better than the first."""
    losses = iter([2.0, 1.0, 5.0, 0.5, 3.0])
    monkeypatch.setattr(TrainingModule, "epoch_losses", lambda self: {"loss": next(losses)})
    made, kept = workflow(checkpoint_filepath=tmp_path, save_best_only=True), []
    seen = []
    for epochs in (2, 3):
        made.fit_offline(DATA, epochs=epochs, on_epoch_end=lambda *_: seen.append(weights(made).clone()))
        kept.append(weights(load_approximator(tmp_path / "model.safetensors")))
    assert torch.equal(kept[0], seen[1])
    assert torch.equal(kept[1], seen[3])


def test_a_failed_training_leaves_the_weights_it_found():
    """After a loss that is no number the approximator is what it was before the fit."""
    made = workflow()
    made.fit_offline(DATA, epochs=1)
    before = weights(made).clone()
    exploding = workflow(inference_network=made.approximator, initial_learning_rate=1e30)
    with pytest.raises(TrainingError):
        exploding.fit_offline(DATA, epochs=3)
    assert torch.equal(weights(made), before)
