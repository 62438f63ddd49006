"""Bad input, row by row: refused before any training step with what was expected, what was got and a cure.
Odd but good input is taken."""

import pickle
import re

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, workflow

import sbi_models as bf
from sbi_models.adapters import Adapter
from sbi_models.errors import ConfigurationError, DataError, NotFittedError, TrainingError
from sbi_models.training.module import TrainingModule

DATA = SIMULATOR.sample(64, seed=0)


@pytest.fixture
def no_step(monkeypatch):
    """A training step fails the test."""

    def step(self, *args):
        pytest.fail("a training step was taken")

    monkeypatch.setattr(TrainingModule, "training_step", step)


@pytest.fixture(scope="module")
def trained():
    made = workflow()
    made.fit_offline(DATA, epochs=1)
    return made


def with_value(name, value, row=17):
    changed = DATA[name].copy()
    changed[row, 0] = value
    return DATA | {name: changed}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            with_value("x", np.nan),
            r"got NaN or inf in 1 of 64 rows of variable 'x' of the training data \(rows 17\)\. Drop those",
        ),
        (
            with_value("theta", np.inf, 3),
            r"got NaN or inf in 1 of 64 rows of variable 'theta' of the training data \(rows 3\)",
        ),
        (
            DATA | {"x": DATA["x"][:50]},
            r"same number of rows in every variable of the training data, got 'theta' 64, 'x' 50",
        ),
        (
            {"extra": np.zeros((1, 3)), **DATA},
            r"Expected 64 rows in every variable .* got 1 in 'extra', which has no role.*data.pop\('extra'\)",
        ),
        (
            {"thta": DATA["theta"], "x": DATA["x"]},
            r"'theta' is missing in the training data. Did you mean 'thta'",
        ),
        ({"theta": DATA["theta"]}, r"'x' is missing in the training data"),
        (
            {"theta": DATA["theta"], "x": [[1.0], [2.0, 3.0]]},
            r"the same number of rows in every variable of the .* 'theta' 64, 'x' 2",
        ),
        (
            {"theta": DATA["theta"], "x": np.array(["a"] * 64)},
            r"real numbers in variable 'x' of the .*, got <U1",
        ),
        ([1, 2, 3], r"training data as a dict of names to arrays, got list"),
        (None, r"training data as a dict of names to arrays, got NoneType"),
        (
            {"theta": np.zeros((0, 2)), "x": np.zeros((0, 2))},
            r"'theta' of shape \(n, ...\) with at least one row",
        ),
    ],
)
@pytest.mark.parametrize("role", ["training", "validation"])
def test_data(no_step, data, message, role):
    """NaN or inf (with variable and rows), unequal rows, a stray key of another length, missing or misnamed
    variables, no numbers."""
    if role == "training":
        with pytest.raises(DataError, match=message):
            workflow().fit_offline(data, epochs=1)
    elif data is not None:
        cure = message.replace("training data", "validation data")
        with pytest.raises(
            (DataError, ConfigurationError), match=cure if isinstance(data, dict) else "validation_data"
        ):
            workflow().fit_offline(DATA, epochs=1, validation_data=data)


def test_simulations_are_data_too(no_step):
    """NaN from the simulator is refused as NaN in data is."""
    simulator = bf.make_simulator(lambda rng: {"theta": rng.normal(size=2), "x": np.array([np.nan, 0.0])})
    with pytest.raises(DataError, match=r"NaN or inf in 1 of 1 rows of variable 'x' of the simulations"):
        workflow(simulator=simulator).fit_online(epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"inference_variables": None},
            r"at least one of inference_variables. Pass for instance inference_variables=\['theta'\]",
        ),
        ({"inference_variables": ["thta"]}, r"'thta' is missing in the training data. Did you mean 'theta'"),
        ({"inference_conditions": ["y"]}, r"'y' is missing in the training data"),
        ({"inference_conditions": None}, "summary_variables or inference_conditions"),
        (
            {"inference_conditions": None, "summary_variables": ["x"]},
            "summary_variables and summary_network go together",
        ),
        ({"summary_network": "deep_set"}, "summary_variables and summary_network go together"),
        (
            {"inference_conditions": None, "summary_variables": ["x"], "summary_network": "deep_set"},
            r"x\[..., None\]",
        ),
        ({"adapter": Adapter().drop("x")}, "'x'"),
    ],
)
def test_roles_and_networks(no_step, arguments, message):
    """Missing and misnamed roles, a summary network without variables and the reverse, inputs of the wrong
    shape."""
    with pytest.raises((ConfigurationError, DataError), match=message):
        workflow(**arguments).fit_offline(DATA, epochs=1)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"x": DATA["x"][0]},
            r"Expected 'x' in the conditions of shape \(n, 2\), as in training, got .* axis: x\.reshape",
        ),
        (
            {"x": DATA["x"][:, :1]},
            r"Expected 'x' in the conditions of shape \(n, 2\), as in training, got \(64, 1\)",
        ),
        (
            {"x": DATA["x"][..., None]},
            r"Expected 'x' in the conditions of shape \(n, 2\), as in training, got \(64, 2, 1\)",
        ),
        ({}, "'x' is missing in the conditions"),
        (
            {"X": DATA["x"]},
            r"'x' is missing in the conditions. Did you mean 'X'|'x' is missing in the conditions. Got: X",
        ),
        (None, "conditions as a dict of names to arrays, got NoneType"),
        (DATA["x"], "conditions as a dict of names to arrays, got ndarray"),
        (
            with_value("x", np.nan, 5),
            r"NaN or inf in 1 of 64 rows of variable 'x' of the conditions \(rows 5\)",
        ),
    ],
)
def test_conditions(trained, conditions, message):
    """Unbatched, mis-shaped, misnamed and missing conditions, of a workflow and of its approximator."""
    for asked in (trained, trained.approximator):
        with pytest.raises(DataError, match=message):
            asked.sample(num_samples=3, conditions=conditions)


def test_sampling_before_fitting():
    """Asking before a training says what to do first."""
    for ask in (
        lambda made: made.sample(num_samples=3, conditions=DATA),
        lambda made: made.log_prob(DATA),
        lambda made: made.plot_default_diagnostics(DATA),
        lambda made: made.approximator.save("nowhere"),
    ):
        with pytest.raises(NotFittedError, match=r"has not been trained. Call fit_offline or fit_online"):
            ask(workflow())


@pytest.mark.parametrize("number", [0, -3, 2.5, 10.0, "4", True, None])
def test_numbers_of_samples(trained, number):
    """num_samples that is no positive integer; NumPy's integers are taken."""
    with pytest.raises(
        ConfigurationError, match=f"num_samples as a positive integer, got {re.escape(repr(number))}"
    ):
        trained.sample(num_samples=number, conditions=DATA)
    assert trained.sample(num_samples=np.int64(2), conditions=DATA)["theta"].shape == (64, 2, 2)


def test_batches_larger_than_the_data(no_step, tmp_path):
    """A batch of more simulations than there are, in memory and on disk."""
    with pytest.raises(DataError, match="batch_size of at most the 64 simulations of the data, got 65"):
        workflow().fit_offline(DATA, epochs=1, batch_size=65)
    np.savez(tmp_path / "a.npz", **DATA)
    with pytest.raises(DataError, match=r"batch_size of at most the 64 simulations in .*, got 65"):
        workflow().fit_disk(tmp_path, "*.npz", batch_size=65)


def test_folders(no_step, tmp_path):
    """A missing folder, an empty one, and one without a file of the pattern."""
    with pytest.raises(DataError, match=r"which is no folder. Check the path"):
        workflow().fit_disk(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"No file in .* matches '\*\.pkl'.*pattern="):
        workflow().fit_disk(tmp_path)
    np.savez(tmp_path / "a.npz", **DATA)
    with pytest.raises(DataError, match=r"No file in .* matches '\*\.pkl'"):
        workflow().fit_disk(tmp_path)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code of a pickle was run",))


GOOD = {name: value[:8] for name, value in DATA.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"theta": GOOD["theta"]}), r"got no 'x' in .*bad\.pkl"),
        (pickle.dumps(GOOD | {"x": [[1.0], [2.0, 3.0]] * 4}), r"bad\.pkl"),
        (
            pickle.dumps(GOOD | {"x": GOOD["x"][:5]}),
            r"same number of simulations in every variable of .*bad\.pkl",
        ),
        (
            pickle.dumps(GOOD | {"x": GOOD["x"][:, :1]}),
            r"Expected 'x' of shape \(2,\) in each simulation, .* got \(1,\) in .*bad\.pkl",
        ),
        (pickle.dumps(GOOD)[:-40], r"bad\.pkl"),
        (b"", r"bad\.pkl"),
        (pickle.dumps(GOOD | {"x": Evil()}), r"bad\.pkl.*load_fn"),
        (pickle.dumps([1, 2]), r"bad\.pkl"),
        (
            pickle.dumps(GOOD | {"x": GOOD["x"] * np.nan}),
            r"NaN or inf in 8 of 8 rows \(rows 0, 1, 2, 3, 4, \.\.\.\) of variable 'x' in .*bad\.pkl",
        ),
    ],
    ids=[
        "lacks a key",
        "ragged",
        "unequal rows",
        "another shape",
        "truncated",
        "empty",
        "code",
        "no dict",
        "NaN",
    ],
)
def test_files(no_step, tmp_path, content, message):
    """A file that lacks a key, is ragged, truncated, or holds anything but arrays is named; no code of a
    pickle is run."""
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(GOOD))
    (tmp_path / "bad.pkl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        workflow().fit_disk(tmp_path, batch_size=4)


@pytest.mark.parametrize(
    "form",
    [torch.as_tensor, lambda value: value.tolist(), lambda value: value.astype("float32"), np.asfortranarray],
)
def test_tensors_and_lists_are_taken(trained, form):
    """Torch tensors, lists, single precision and other memory layouts give the training and the draws of
    float64 arrays, up to rounding."""
    made = workflow()
    made.fit_offline({name: form(value) for name, value in DATA.items()}, epochs=1)
    draws = [
        w.sample(num_samples=4, conditions={"x": form(DATA["x"])}, seed=1)["theta"] for w in (made, trained)
    ]
    np.testing.assert_allclose(draws[0], draws[1], rtol=1e-3, atol=1e-4)


def test_parameters_of_one_axis_are_one_column():
    """theta (n,) and x (n,) are columns (n, 1), to the bit; draws have shape (n, num_samples, 1)."""
    flat = {"theta": DATA["theta"][:, 0], "x": DATA["x"][:, 0]}
    results = []
    for data in (flat, {name: value[:, None] for name, value in flat.items()}):
        made = workflow()
        made.fit_offline(data, epochs=1)
        results.append(made.sample(num_samples=4, conditions=data, seed=1)["theta"])
        assert results[-1].shape == (64, 4, 1)
        assert made.log_prob(data).shape == (64,)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda made: bf.BasicWorkflow(checkpoint_path="a"),
            "no argument 'checkpoint_path'. Did you mean 'checkpoint_filepath'",
        ),
        (
            lambda made: bf.BasicWorkflow(learning_rate=1.0),
            "no argument 'learning_rate'. Did you mean 'initial_learning_rate'",
        ),
        (
            lambda made: made.fit_offline(DATA, batchsize=3),
            "fit_offline has no argument 'batchsize'. Did you mean 'batch_size'",
        ),
        (
            lambda made: made.fit_online(num_batches=3),
            "fit_online has no argument 'num_batches'. Did you mean 'num_batches_per_epoch'",
        ),
        (
            lambda made: made.fit_disk("a", patern="*"),
            "fit_disk has no argument 'patern'. Did you mean 'pattern'",
        ),
        (
            lambda made: made.sample(num_samples=3, condition=DATA),
            "sample has no argument 'condition'. Did you mean 'conditions'",
        ),
        (
            lambda made: made.approximator.sample(nsamples=3),
            "sample has no argument 'nsamples'. Did you mean 'num_samples'",
        ),
        (lambda made: made.log_prob(dat=DATA), "log_prob has no argument 'dat'. Did you mean 'data'"),
        (
            lambda made: made.simulate(num_simulation=3),
            "simulate has no argument 'num_simulation'. Did you mean 'num_simulations'",
        ),
        (
            lambda made: made.compute_default_diagnostics(3, num_sample=3),
            "no argument 'num_sample'. Did you mean 'num_samples'",
        ),
        (
            lambda made: made.plot_custom_diagnostics(3, plot_fn={}),
            "no argument 'plot_fn'. Did you mean 'plot_fns'",
        ),
        (
            lambda made: bf.networks.FlowMatching(width=3),
            "FlowMatching has no argument 'width'. Did you mean 'widths'",
        ),
        (
            lambda made: bf.make_simulator([len], batched=True),
            "make_simulator has no argument 'batched'. Did you mean 'is_batched'",
        ),
        (
            lambda made: bf.Adapter().constrain("a", low=0),
            "constrain has no argument 'low'. Did you mean 'lower'",
        ),
        (lambda made: bf.load("a", tracking_url="b"), "load has no argument 'tracking_url'"),
    ],
)
def test_misspelt_keywords(call, message):
    """Misspelt keyword arguments are refused anywhere, with the nearest name."""
    with pytest.raises(ConfigurationError, match=message):
        call(workflow())


def test_augmentations_that_return_nothing():
    """An augmentation without a return is named, with the cure."""

    def add_noise(batch):
        batch["x"] = batch["x"] + 1

    with pytest.raises(DataError, match=r"augmentation 'add_noise' returns nothing. End it with a return"):
        workflow().fit_offline(DATA, epochs=1, augmentations=add_noise)
    with pytest.raises(DataError, match=r"augmentation .* returns nothing"):
        workflow().fit_offline(DATA, epochs=1, augmentations={"x": lambda x: None})


def test_a_loss_that_turns_nan(monkeypatch):
    """A training whose loss is no number any more stops with what to try, within 100 steps of a long
    epoch."""
    steps, plain = [], TrainingModule.training_step

    def counted(self, *args):
        steps.append(1)
        return plain(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", counted)
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch 1\. Try a smaller"):
        workflow(initial_learning_rate=1e30).fit_online(epochs=1, num_batches_per_epoch=5000, batch_size=8)
    assert len(steps) <= 102
