"""Augmentations change training batches only, in three forms, and repeatably."""

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, workflow

from sbi_models.errors import ConfigurationError, DataError

DATA = SIMULATOR.sample(64, seed=0)


def add_noise(batch):
    """Noise from NumPy's global state, in place, as many users write it."""
    batch["x"] = batch["x"] + np.random.normal(0, 0.1, batch["x"].shape)
    return batch


def weights(**arguments):
    trained = workflow(seed=1)
    trained.fit_offline(DATA, epochs=2, batch_size=32, **arguments)
    return torch.cat([p.detach().reshape(-1) for p in trained.approximator.parameters()])


def test_noise_changes_the_training_and_is_repeatable_by_seed():
    """The same seed gives the same augmented training to the bit, whatever the global state; without
    augmentation it is another one."""
    np.random.seed(1)
    first = weights(augmentations=add_noise)
    np.random.seed(2)
    assert torch.equal(first, weights(augmentations=add_noise))
    assert not torch.equal(first, weights())


def test_augmentation_that_changes_nothing_is_the_plain_training():
    """The identity as function, dict and list gives the weights of a training without augmentations, to the
    bit."""
    plain = weights()
    for identity in (lambda batch: batch, {"x": lambda x: x}, [lambda batch: batch, dict]):
        assert torch.equal(plain, weights(augmentations=identity))


def test_the_three_forms_agree():
    """Doubling x as a function, as a dict and as two functions in a row gives the same weights."""
    root = np.sqrt(2.0)
    forms = (
        lambda batch: batch | {"x": batch["x"] * root * root},
        {"x": lambda x: x * root * root},
        [lambda batch: batch | {"x": batch["x"] * root}, lambda batch: batch | {"x": batch["x"] * root}],
    )
    first, *others = (weights(augmentations=form) for form in forms)
    for other in others:
        assert torch.equal(first, other)


def test_data_and_validation_are_left_alone():
    """An augmentation that overwrites its batch changes neither the user's data nor the validation loss of an
    untrained network."""

    def destroy(batch):
        batch["x"][...] = 0.0
        return batch

    before = {name: value.copy() for name, value in DATA.items()}
    losses = []
    for augmentations in (None, destroy):
        slow = workflow(seed=1, initial_learning_rate=1e-12)
        history = slow.fit_offline(
            DATA, epochs=1, batch_size=64, validation_data=DATA, augmentations=augmentations
        )
        losses.append(history.history["val_loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in before.items():
        np.testing.assert_array_equal(DATA[name], value)


def test_online_batches_are_augmented():
    """fit_online passes every batch through the function, with all simulated variables and the right number
    of rows, and at the end the simulations for certificates."""
    seen = []

    def watch(batch):
        seen.append({name: value.shape for name, value in batch.items()})
        return batch

    workflow(seed=1).fit_online(epochs=2, num_batches_per_epoch=3, batch_size=16, augmentations=watch)
    assert [shapes["x"][0] for shapes in seen] == [shapes["theta"][0] for shapes in seen] == [16] * 6 + [500]


@pytest.mark.parametrize(
    ("augmentations", "error", "message"),
    [
        (lambda batch: None, DataError, "returns nothing"),
        ({"x": lambda x: None}, DataError, "returns nothing"),
        (lambda batch: batch["x"], DataError, "to return the batch, a dict, got ndarray"),
        ({"y": lambda y: y}, DataError, "'y' finds no such variable"),
        (lambda batch: batch | {"x": batch["x"][:3]}, DataError, "keep the 32 rows of 'x', got 3"),
        (lambda batch: {"x": batch["x"]}, DataError, "'theta' is missing"),
        (lambda batch: batch | {"x": batch["x"] * np.nan}, DataError, "NaN or inf"),
        (3, ConfigurationError, "a function of the batch, a dict"),
        ([1, 2], ConfigurationError, "a function of the batch, a dict"),
        ({}, ConfigurationError, "a function of the batch, a dict"),
    ],
)
def test_unusable_augmentations_say_why(augmentations, error, message):
    """An augmentation that returns nothing, no dict, other rows, NaN, or that is no function at all is
    refused with a cure."""
    with pytest.raises(error, match=message):
        workflow(seed=1).fit_offline(DATA, epochs=1, batch_size=32, augmentations=augmentations)
