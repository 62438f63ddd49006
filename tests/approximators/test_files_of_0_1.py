"""Files that version 0.1 has written: they load, and give what that version gave of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors

from sbi_models import BasicWorkflow, load
from sbi_models.approximators import ContinuousApproximator, EnsembleApproximator, load_approximator
from sbi_models.errors import ConfigurationError
from sbi_models.networks import CouplingFlow

FOLDER = Path(__file__).parent / "files_of_0_1"
KINDS = {"continuous": ContinuousApproximator, "ensemble": EnsembleApproximator}


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_and_densities_are_those_of_version_0_1(kind, expected):
    """The same draws from the same seed, and the same log densities, up to rounding of the machine."""
    for approximator in (
        load_approximator(FOLDER / f"{kind}.safetensors"),
        load(FOLDER / f"{kind}.safetensors"),
    ):
        assert type(approximator) is KINDS[kind]
        conditions = {"x": expected["x"]}
        draws = approximator.sample(num_samples=20, conditions=conditions, seed=3)["theta"]
        np.testing.assert_allclose(draws, expected[f"{kind}/draws"], rtol=1e-6, atol=1e-6)
        densities = approximator.log_prob(conditions | {"theta": expected["theta"]})
        np.testing.assert_allclose(densities, expected[f"{kind}/log_prob"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_of_version_0_1(kind):
    """Their header has the present schema and kind, and their tensors have the former names of moments."""
    with safetensors.safe_open(FOLDER / f"{kind}.safetensors", framework="pt") as file:
        names, header = list(file.keys()), json.loads(file.metadata()["sbi_models"])
    assert (header["schema_version"], header["kind"]) == (1, kind)
    former = [name for name in names if "standardiser" in name.split(".")]
    assert former
    loaded = load_approximator(FOLDER / f"{kind}.safetensors").state_dict()
    assert {name.replace("standardiser", "standardizer") for name in names} == set(loaded)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_saved_again_has_present_names(kind, tmp_path):
    """Saving a loaded file renames its tensors, and changes no draw."""
    again = load_approximator(FOLDER / f"{kind}.safetensors").save(tmp_path / "again")
    with safetensors.safe_open(again, framework="pt") as file:
        assert not [name for name in file.keys() if "standardiser" in name]  # noqa: SIM118 - not a dict
    conditions = {"x": np.zeros((1, 3, 2))}
    draws = [
        load_approximator(path).sample(num_samples=5, conditions=conditions, seed=0)["theta"]
        for path in (again, FOLDER / f"{kind}.safetensors")
    ]
    np.testing.assert_array_equal(*draws)


def interrupted(folder, seed=1):
    shutil.copy(FOLDER / "interrupted.resume.ckpt", folder)
    return BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        inference_network=CouplingFlow(depth=1, transform="affine", widths=(2,)),
        checkpoint_filepath=folder,
        checkpoint_name="interrupted",
        restore=True,
        early_stopping=4,
        seed=seed,
        accelerator="cpu",
        progress=False,
    )


def test_a_training_of_version_0_1_goes_on(tmp_path, expected):
    """Interrupted after two of four epochs by version 0.1, it ends with the draws of one that was not."""
    workflow = interrupted(tmp_path)
    data = {name: expected[f"interrupted/{name}"] for name in ("theta", "x")}
    heard = []
    history = workflow.fit_offline(data, 4, 50, on_epoch_end=lambda epoch, losses: heard.append(epoch))
    assert heard == [3, 4]
    assert history.epochs == 4
    draws = workflow.sample(num_samples=20, conditions={"x": expected["x"][:, 0]}, seed=3)["theta"]
    np.testing.assert_allclose(draws, expected["interrupted/draws"], rtol=1e-5, atol=1e-5)


def test_another_training_does_not_go_on_from_it(tmp_path, expected):
    """A resume file of version 0.1 is refused, as any other, where the training is another one."""
    data = {name: expected[f"interrupted/{name}"] for name in ("theta", "x")}
    with pytest.raises(ConfigurationError, match="belongs to another training: expected seed 2, got 1"):
        interrupted(tmp_path, seed=2).fit_offline(data, 4, 50)
