"""What a checkpoint folder may have lost, what a restored training does about it, and other things that must
not change a result."""

import pytest
import torch
from linear_gaussian import SIMULATOR, workflow

from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError

DATA = SIMULATOR.sample(64, seed=0)


def test_a_lost_or_damaged_model_is_written_again(tmp_path):
    """A finished training, restored, writes its model file again to the bit if it was deleted or damaged."""
    folder = tmp_path / "run"
    workflow(seed=1, checkpoint_filepath=folder).fit_offline(DATA, epochs=2, batch_size=32)
    model = folder / "model.safetensors"
    content = model.read_bytes()
    for damage in (model.unlink, lambda: model.write_bytes(b"damaged")):
        damage()
        workflow(seed=1, checkpoint_filepath=folder, restore=True).fit_offline(DATA, epochs=2, batch_size=32)
        assert model.read_bytes() == content
        load_approximator(model)


def test_a_damaged_resume_file_is_named(tmp_path):
    """A truncated resume file is an error that names it and says what to do."""
    workflow(seed=1, checkpoint_filepath=tmp_path).fit_offline(DATA, epochs=1, batch_size=32)
    resume = tmp_path / "model.resume.ckpt"
    resume.write_bytes(resume.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match=r"cannot be read.*Delete it"):
        workflow(seed=1, checkpoint_filepath=tmp_path, restore=True).fit_offline(
            DATA, epochs=1, batch_size=32
        )


def test_another_network_or_validation_is_another_training(tmp_path):
    """Restoring with another network or other validation data is refused."""
    workflow(seed=1, checkpoint_filepath=tmp_path).fit_offline(DATA, epochs=1, batch_size=32)
    with pytest.raises(ConfigurationError, match="expected networks"):
        workflow(seed=1, widths=(8, 8), checkpoint_filepath=tmp_path, restore=True).fit_offline(
            DATA, epochs=1, batch_size=32
        )
    with pytest.raises(ConfigurationError, match="expected validation"):
        workflow(seed=1, checkpoint_filepath=tmp_path, restore=True).fit_offline(
            DATA, epochs=1, batch_size=32, validation_data=DATA
        )


def test_results_do_not_depend_on_the_callers_threads():
    """Moments and weights are the same to the bit whether the caller's PyTorch uses one thread or two."""
    large = SIMULATOR.sample(50_000, seed=4)
    states = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            trained = workflow(seed=1)
            trained.fit_offline(large, epochs=1, batch_size=10_000)
        finally:
            torch.set_num_threads(before)
        states.append(trained.approximator.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_variables_in_tiny_units_are_standardized():
    """Data of sd 1e-21 are standardized like any other: the same training as in units of 1, up to
    rounding."""
    losses = []
    for unit in (1.0, 1e-21):
        data = {"theta": DATA["theta"], "x": DATA["x"] * unit}
        history = workflow(seed=1, standardize="all").fit_offline(data, epochs=2, batch_size=32)
        losses.append(history.history["loss"][-1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_info_with_number_keys_is_saved_as_json_has_it(tmp_path):
    """info keys that JSON turns into text are text from the start, so that the file can be read again."""
    trained = workflow(seed=1, info={9: "a", 10: "b"})
    trained.fit_offline(DATA, epochs=1, batch_size=32)
    assert load_approximator(trained.approximator.save(tmp_path / "model")).info == {"9": "a", "10": "b"}
