"""A saved approximator is one file that holds no code."""

import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from small_approximators import approximator, data

import sbi_models
from sbi_models.approximators import (
    ContinuousApproximator,
    EnsembleApproximator,
    files,
    load_approximator,
)
from sbi_models.approximators.base import APPROXIMATORS
from sbi_models.errors import ModelFileError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file and the approximator in it."""
    made = approximator(
        standardize=("inference_variables", "inference_conditions"), info={"unit": "m", "names": ["a", "b"]}
    )
    return made.save(tmp_path_factory.mktemp("saved") / "model.keras"), made


def write(saved, path, *, kind="continuous", **changes):
    """A file as an approximator would write it, with other settings."""
    return files.write(path, kind, saved[1]._settings() | changes, saved[1].state_dict())


def test_a_loaded_approximator_is_the_saved_one_to_the_bit(saved):
    """Log densities, seeded draws, roles, moments and info of the file are those of the approximator that was
    saved."""
    path, made = saved
    for loaded in (load_approximator(path), sbi_models.load(str(path))):
        np.testing.assert_array_equal(loaded.log_prob(data(9, seed=1)), made.log_prob(data(9, seed=1)))
        draws = [a.sample(num_samples=7, conditions=data(4, seed=2), seed=3) for a in (loaded, made)]
        for name in ("theta", "tau"):
            np.testing.assert_array_equal(draws[0][name], draws[1][name])
        assert loaded.info == {"unit": "m", "names": ["a", "b"]}
        assert loaded.roles == made.roles
        assert loaded.state_dict().keys() == made.state_dict().keys()
        assert not loaded.training


def test_saving_again_gives_the_same_file(saved, tmp_path):
    """The bytes of a file depend on the approximator alone: saved twice, or loaded and saved, they are the
    same."""
    path, made = saved
    assert made.save(tmp_path / "a").read_bytes() == path.read_bytes()
    assert load_approximator(path).save(tmp_path / "new" / "b").read_bytes() == path.read_bytes()


def test_loading_unpickles_nothing(saved, monkeypatch):
    """Loading works where every way to unpickle raises."""

    def forbidden(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for owner, name in [
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (pickle, "_Unpickler"),
        (torch, "load"),
    ]:
        monkeypatch.setattr(owner, name, forbidden)
    monkeypatch.setattr(np, "load", forbidden)
    assert load_approximator(saved[0]).is_built


def test_any_changed_byte_is_found(saved, tmp_path):
    """With one bit flipped in any of 300 places of header and tensors, the file is refused."""
    content = saved[0].read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    places = {
        *range(12),
        *range(8, header, header // 200),
        *range(header, len(content), (len(content) - header) // 100),
        len(content) - 1,
    }
    assert len(places) > 300
    for place in sorted(places):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ModelFileError):
            load_approximator(tmp_path / "damaged")


def test_a_changed_weight_is_called_a_change(saved, tmp_path):
    """A file whose tensors were changed is whole, but its checksum tells."""
    content = bytearray(saved[0].read_bytes())
    content[-2] ^= 1
    (tmp_path / "changed").write_bytes(content)
    with pytest.raises(
        ModelFileError,
        match=r"changed was changed or damaged after it was written: its checksum does not match",
    ):
        load_approximator(tmp_path / "changed")


@pytest.mark.parametrize("length", [0, 5, 8, 100, -100, -1])
def test_truncated_files_are_refused(saved, tmp_path, length):
    """The beginning of a file is not a file."""
    (tmp_path / "short").write_bytes(saved[0].read_bytes()[:length])
    with pytest.raises(ModelFileError, match="not a readable approximator"):
        load_approximator(tmp_path / "short")


def test_other_files_are_refused(tmp_path):
    """A missing file, a folder, a pickle, and safetensors of somebody else are told apart."""
    with pytest.raises(
        ModelFileError, match=r"No saved approximator at .*expected a file written by approximator.save"
    ):
        load_approximator(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="No saved approximator"):
        load_approximator(tmp_path)
    (tmp_path / "pickle").write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(ModelFileError, match="not a readable approximator"):
        load_approximator(tmp_path / "pickle")
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file({"w": torch.zeros(3)}, tmp_path / "other", metadata=metadata)
        with pytest.raises(ModelFileError, match="safetensors file, but not one written by sbi_models"):
            load_approximator(tmp_path / "other")


def test_files_of_another_schema_are_refused(saved, tmp_path, monkeypatch):
    """A file of a future schema is refused with both versions and a cure."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "SCHEMA_VERSION", 7)
        path = write(saved, tmp_path / "future")
    with pytest.raises(ModelFileError, match="has schema version 7, this version of sbi_models reads 1"):
        load_approximator(path)


def test_unknown_kinds_networks_and_transforms_are_refused(saved, tmp_path):
    """A well-formed file can only name what is registered."""
    assert load_approximator(write(saved, tmp_path / "as it is")).is_built
    with pytest.raises(ModelFileError, match=r"unknown kind 'continous'. Did you mean 'continuous'\?"):
        load_approximator(write(saved, tmp_path / "kind", kind="continous"))
    for role in ("inference_network", "summary_network"):
        settings = saved[1]._settings()[role] | {"name": "os.system"}
        with pytest.raises(ModelFileError, match=r"unknown network 'os.system'"):
            load_approximator(write(saved, tmp_path / "network", **{role: settings}))
    with pytest.raises(ModelFileError, match="unknown adapter transform 'lambda'"):
        load_approximator(write(saved, tmp_path / "adapter", adapter=[{"kind": "lambda", "config": {}}]))


def test_a_save_that_fails_leaves_the_old_file(saved, tmp_path, monkeypatch):
    """A write that dies before its end leaves the file that was there before."""
    path = saved[1].save(tmp_path / "model")
    before = path.read_bytes()
    other = approximator()

    def dies(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", dies)
    with pytest.raises(OSError, match="disk full"):
        other.save(path)
    assert path.read_bytes() == before


def test_every_kind_is_registered_under_its_own_name():
    """Files name the class that wrote them: `kind` of each registered class is the name it has there."""
    assert {name: cls.kind for name, cls in APPROXIMATORS.items()} == {name: name for name in APPROXIMATORS}


def test_a_kind_of_the_user_is_saved_and_loaded(tmp_path, monkeypatch):
    """A registered class loads as itself, alone and as a member; unregistered, its files are refused."""
    with monkeypatch.context() as patch:
        patch.setattr(APPROXIMATORS, "_entries", dict(APPROXIMATORS._entries))

        @APPROXIMATORS.register("mine")
        class Mine(ContinuousApproximator):
            kind = "mine"

        alone = approximator()
        mine = Mine.from_settings(alone._settings(), alone.state_dict())
        paths = [
            mine.save(tmp_path / "alone"),
            EnsembleApproximator({"a": mine, "b": alone}).save(tmp_path / "both"),
        ]
        assert type(load_approximator(paths[0])) is Mine
        assert type(load_approximator(paths[1]).members["a"]) is Mine
    for path in paths:
        with pytest.raises(ModelFileError, match="'mine'"):
            load_approximator(path)


def test_an_ensemble_of_ensembles_is_refused(saved, tmp_path):
    """A file whose member is an ensemble names what cannot be one."""
    ensemble = EnsembleApproximator({"a": approximator(), "b": approximator()})
    settings = ensemble._settings()
    settings["members"][0]["kind"] = "ensemble"
    path = files.write(tmp_path / "nested", "ensemble", settings, ensemble.state_dict())
    with pytest.raises(ModelFileError, match="that can be a member, got one of kind 'ensemble'"):
        load_approximator(path)
