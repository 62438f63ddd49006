"""Members that train apart, put together, are those of one training of all, to the bit."""

from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from itertools import permutations
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from linear_gaussian import SIMULATOR, ensemble

from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError, ModelFileError
from sbi_models.networks import CouplingFlow, FlowMatching
from sbi_models.training.member_parts import Part, part_stem

DATA, VALIDATION = SIMULATOR.sample(241, seed=1), SIMULATOR.sample(200, seed=2)
NAMES = ("a", "b", "c")
EARLY = {"early_stopping": 1, "ema": 0.5, "initial_learning_rate": 0.3}


class Stop(Exception):
    """Stops a training as a kill would."""


def make(**arguments):
    """Three members, one of another kind."""
    flow = FlowMatching(widths=(8, 8), steps=2)
    networks = {"a": flow, "b": flow.clone(), "c": CouplingFlow(depth=2, widths=(8,))}
    return ensemble(inference_networks=networks, ensemble_size=None, **arguments)


def fit(made, method="fit_offline", *, root=None, **options):
    """A short training; 241 rows are 81, 80 and 80 of each at a reuse of 0, so that one takes a step more
    than the others."""
    own = {
        "fit_offline": {"data": DATA, "epochs": 5, "batch_size": 40},
        "fit_online": {"epochs": 5, "num_batches_per_epoch": 4, "batch_size": 16},
        "fit_disk": {"root": root, "pattern": "*.npz", "epochs": 5, "batch_size": 40},
    }[method]
    getattr(made, method)(**({"validation_data": VALIDATION} | own | options))
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulations")
    for k, rows in enumerate(np.array_split(np.arange(241), 4)):
        np.savez(folder / f"{k}.npz", **{name: value[rows] for name, value in DATA.items()})
    return folder


def digest(path):
    return sha256(path.read_bytes()).hexdigest()


def check_same(made, expected, folder, tmp_path):
    """Weights, history, best epochs, certificates and saved files are the same."""
    assert made.history.history == expected.history.history
    assert list(made.history.history) == list(expected.history.history)
    assert made.history.best_epochs == expected.history.best_epochs
    state, other = made.approximator.state_dict(), expected.approximator.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in state.items())
    assert any("novelty" in name for name in state)
    assert "usual_disagreement.values" in state
    one, two = made.approximator.save(tmp_path / "one"), expected.approximator.save(tmp_path / "two")
    assert digest(one) == digest(two)
    assert digest(folder / "apart" / "model.safetensors") == digest(folder / "together" / "model.safetensors")


@pytest.mark.nightly_cases(
    "fit_offline-0-settings2-options2",
    "fit_offline-0.5-settings1-options1",
    "fit_disk-0.5-settings7-options7",
    "fit_offline-1-settings0-options0",
)
@pytest.mark.parametrize(
    ("method", "reuse", "settings", "options"),
    [
        ("fit_offline", 1, EARLY, {}),
        (
            "fit_offline",
            0.5,
            {"save_best_only": True, "initial_learning_rate": 0.05},
            {"validation_data": None},
        ),
        (
            "fit_offline",
            0,
            EARLY,
            {"epochs": 12, "augmentations": {"x": lambda x: x + 0.1 * np.random.normal(size=x.shape)}},
        ),
        pytest.param("fit_online", 1, {}, {"validation_data": 210}, marks=pytest.mark.integration),
        ("fit_online", 0.5, EARLY, {}),
        pytest.param("fit_online", 0, {}, {}, marks=pytest.mark.integration),
        pytest.param("fit_disk", 1, {}, {}, marks=pytest.mark.integration),
        ("fit_disk", 0.5, EARLY, {}),
        pytest.param("fit_disk", 0, {}, {}, marks=pytest.mark.integration),
    ],
)
def test_members_that_train_apart_are_those_that_train_together(
    method, reuse, *, settings, options, root, tmp_path
):
    """In any order, two of them in one part, with one folder of checkpoints: weights, history, best epochs,
    certificates and files."""
    together = make(checkpoint_filepath=tmp_path / "together", **settings)
    fit(together, method, root=root, data_reuse=reuse, **options)
    parts = []
    for members in [["c"], ["b", "a"]]:
        apart = make(checkpoint_filepath=tmp_path / "apart", **settings)
        fit(apart, method, root=root, data_reuse=reuse, members=members, **options)
        parts += apart.parts
    whole = make(checkpoint_filepath=tmp_path / "apart", **settings)
    fit(whole, method, root=root, data_reuse=reuse, parts=parts, **options)
    check_same(whole, together, tmp_path, tmp_path)
    stopped_apart = len({len(values) for values in whole.history.history.values()}) > 1
    assert stopped_apart == ("early_stopping" in settings)


@pytest.mark.nightly
def test_the_order_of_trainings_does_not_matter(tmp_path):
    """One after the other in one workflow, in two orders: the parts are the same, and the others keep their
    weights meanwhile."""
    found = []
    for order in list(permutations(NAMES))[::5]:
        made = make()
        for name in order:
            before = {key: value.clone() for key, value in made.approximator.state_dict().items()}
            fit(made, data_reuse=0, members=[name])
            own = made.approximator.prefixes[name]
            after = made.approximator.state_dict()
            assert all(
                torch.equal(after[key], value) for key, value in before.items() if not key.startswith(own)
            )
            assert before == {} or not all(
                torch.equal(after[key], value) for key, value in before.items() if key.startswith(own)
            )
            assert set(made.history.history) == {"loss", "val_loss", f"{name}/loss", f"{name}/val_loss"}
        fit(made, data_reuse=0, parts=made.parts)
        assert made.parts == []
        found.append(digest(made.approximator.save(tmp_path / "model")))
    assert len(found) == 2
    assert found[0] == found[1]


@pytest.mark.nightly
def test_a_second_fit_in_parts_is_the_second_fit(tmp_path):
    """A fit that is put together counts as one, so that the next has streams of its own, together or
    apart."""
    together = make()
    for _ in range(2):
        fit(together, data_reuse=0.5, epochs=2)
    apart = make(checkpoint_filepath=tmp_path)
    for _ in range(2):
        for name in NAMES:
            fit(apart, data_reuse=0.5, epochs=2, members=[name])
        fit(apart, data_reuse=0.5, epochs=2, parts=apart.parts)
    assert digest(apart.approximator.save(tmp_path / "one")) == digest(
        together.approximator.save(tmp_path / "two")
    )
    assert apart.history == together.history
    assert (tmp_path / "model.only-a.part").is_file()
    assert (tmp_path / "model.only-a.fit-2.part").is_file()


@pytest.mark.nightly_cases("plain")
@pytest.mark.parametrize("settings", [{}, EARLY], ids=["plain", "early stop"])
def test_a_part_that_was_killed_goes_on(settings, tmp_path):
    """A part that was stopped in epoch 2 and restored, beside the files of another, is the part of an
    undisturbed training."""
    folder = tmp_path / "apart"

    def stop(epoch, losses):
        if epoch == 2:
            raise Stop

    fit(make(checkpoint_filepath=folder, **settings), data_reuse=0, members=["b"])
    with pytest.raises(Stop):
        fit(make(checkpoint_filepath=folder, **settings), data_reuse=0, members=["a", "c"], on_epoch_end=stop)
    epochs = []
    resumed = make(checkpoint_filepath=folder, restore=True, **settings)
    fit(resumed, data_reuse=0, members=["a", "c"], on_epoch_end=lambda epoch, losses: epochs.append(epoch))
    assert epochs[0] == 2  # its checkpoint is that of epoch 1
    whole = fit(
        make(checkpoint_filepath=folder, **settings), data_reuse=0, parts=sorted(folder.glob("*.part"))
    )
    together = fit(make(checkpoint_filepath=tmp_path / "together", **settings), data_reuse=0)
    check_same(whole, together, tmp_path, tmp_path)


def _train_part(folder):
    fit(make(checkpoint_filepath=folder, threads=1), data_reuse=0.5, members=["a"])


@pytest.mark.integration
def test_a_part_from_another_process(tmp_path):
    """The file of a part that another process has trained is to the bit that of this one; so is what a
    pickled part holds."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_train_part, tmp_path / "there").result(timeout=60)
    _train_part(tmp_path / "here")
    assert digest(tmp_path / "there" / "model.only-a.part") == digest(tmp_path / "here" / "model.only-a.part")


def test_a_part_is_read_as_it_was_written(tmp_path):
    """Weights, best weights, history and plan of a file are those of the part."""
    part = fit(make(save_best_only=True), epochs=2, members=["a"]).parts[0]
    read = Part.load(part.save(tmp_path / "a.part"))
    assert (read.members, read.history, read.fingerprint) == (part.members, part.history, part.fingerprint)
    for tensors, own in ((read.weights, part.weights), (read.best_weights, part.best_weights)):
        assert own
        assert tensors.keys() == own.keys()
        assert all(torch.equal(value, own[name]) for name, value in tensors.items())


def test_files_of_any_choice_of_members_differ():
    """Names with signs, and long ones, make a file name that every system takes, and no two choices the
    same."""
    choices = [["a"], ["b"], ["a", "b"], ["a+b"], ["a b"], [":"], ["x" * 50, "y" * 50], ["x" * 50, "z" * 50]]
    stems = [part_stem("model", choice) for choice in choices]
    assert stems[:3] == ["model.only-a", "model.only-b", "model.only-a+b"]
    assert len(set(stems)) == len(choices)
    assert all(
        len(stem) < 100 and set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789.+-") for stem in stems
    )


@pytest.fixture(scope="module")
def parts():
    """The three parts of a short training."""
    made = make()
    for name in NAMES:
        fit(made, epochs=2, members=[name])
    return made.parts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: {"parts": parts[:2]}, "have each of the members a, b, c once, got a, b"),
        (
            lambda parts: {"parts": [*parts, parts[0]]},
            "have each of the members a, b, c once, got a, b, c, a",
        ),
        (lambda parts: {"parts": []}, "parts of all members, got an empty list"),
        (lambda parts: {"parts": parts[0]}, "Expected parts as a list"),
        (lambda parts: {"parts": parts, "members": ["a"]}, "got both"),
        (
            lambda parts: {"parts": parts, "epochs": 3},
            "part with a belongs to another training: expected epochs 3, got 2",
        ),
        (
            lambda parts: {"parts": parts, "data_reuse": 0.5},
            "part with a belongs to another training: expected data",
        ),
        (lambda parts: {"members": ["d"]}, "There is no member 'd' to train"),
        (lambda parts: {"members": "a"}, "list of one or more names"),
        (lambda parts: {"members": []}, "list of one or more names"),
        (lambda parts: {"members": ["a", "a"]}, "each once"),
    ],
)
def test_what_does_not_fit_is_refused(parts, change, message):
    """A message says which member, part or setting does not fit, and the weights are left alone."""
    with pytest.raises(ConfigurationError, match=message):
        fit(make(), **({"epochs": 2} | change(parts)))


def test_parts_without_best_weights_are_refused_where_they_are_needed(parts, tmp_path):
    """A file of the best epoch cannot be made of parts that kept the last weights alone."""
    with pytest.raises(ConfigurationError, match="best weights of their members, got none of 'a'"):
        fit(make(save_best_only=True, checkpoint_filepath=tmp_path), epochs=2, parts=parts)


def test_a_member_is_not_trained_twice_in_one_fit():
    """Neither apart again nor with the others, since it would see the same noise again."""
    made = fit(make(), epochs=1, members=["a"])
    for members in (["b", "a"], None):
        with pytest.raises(ConfigurationError, match="'a' has been trained apart in this workflow already"):
            fit(made, epochs=1, members=members)


def test_a_part_is_no_approximator_and_an_approximator_no_part(tmp_path):
    """Each is refused where the other is expected."""
    made = fit(make(checkpoint_filepath=tmp_path), epochs=1, members=["a"])
    with pytest.raises(ModelFileError, match="unknown kind 'part of an ensemble'"):
        load_approximator(tmp_path / "model.only-a.part")
    model = made.approximator.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="Expected a file with a part of an ensemble"):
        fit(make(), epochs=1, parts=[model])
