"""An experiment with a simulator of the user's own: imported from its folder, with observations from a
file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_runs import Finished, run_pipeline

from sbi_models.errors import ConfigurationError, DataError
from sbi_models.pipeline.cache import simulator_fingerprint
from sbi_models.pipeline.experiment.question import question_of, study_of
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.source_record import modules_in
from sbi_models.pipeline.steps.train import workflow_of

pytestmark = pytest.mark.xdist_group("flows-plain")

MODULE = """
import numpy as np
from sbi_models import make_simulator

def prior(rng): return {{"theta": rng.normal(size=2), "tau": rng.normal(size=1)}}
def likelihood(theta, tau, rng): return {{"x": theta + {noise} * rng.normal(size=(4, 2)), "y": tau}}

SIMULATOR = make_simulator([prior, likelihood])
NOT_ONE = 3
"""

SETTINGS = """
name: mine
simulator: {module}:{attribute}
inference_variables: [theta]
summary_variables: [x]
inference_conditions: [y]
parameter_names: {names}
{more}
register_as: {{name: mine}}
"""


def _experiment(
    folder: Path,
    module: str,
    *,
    noise: float = 0.5,
    attribute: str = "SIMULATOR",
    names: str = "{}",
    more: str = "",
):
    (folder / f"{module}.py").write_text(MODULE.format(noise=noise))
    (folder / "mine.yaml").write_text(
        SETTINGS.format(module=module, attribute=attribute, names=names, more=more)
    )
    return load_experiment(folder / "mine.yaml")


def test_observations_and_names_come_from_the_files(tmp_path: Path) -> None:
    """Observations are those of the .npz, names those of the settings, and quantities the components of the
    parameters."""
    np.savez(tmp_path / "seen.npz", x=np.arange(16.0).reshape(2, 4, 2), y=np.ones((2, 1)))
    study = study_of(
        _experiment(tmp_path, "plain_a", names="{theta: [left, right]}", more="observations: seen.npz")
    )
    labels, observations = study.observations()
    assert labels == ["1", "2"]
    np.testing.assert_array_equal(observations["x"], np.arange(16.0).reshape(2, 4, 2))
    assert [quantity.name for quantity in study.quantities] == ["left", "right"]
    draws = {"theta": np.arange(12.0).reshape(2, 3, 2)}
    np.testing.assert_array_equal(np.stack(study.evaluate(draws), axis=-1), draws["theta"])


def test_without_observations_there_are_none(tmp_path: Path) -> None:
    """No file, no data sets; components without names are numbered."""
    study = study_of(_experiment(tmp_path, "plain_b"))
    assert study.observations() == ([], {})
    assert study.parameter_names == {"theta": ["theta_0", "theta_1"]}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"attribute": "NOT_ONE"}, ConfigurationError, "Expected a simulator at plain_c:NOT_ONE, got int"),
        ({"attribute": "MISSING"}, ConfigurationError, "Expected an import path"),
        ({"names": "{theta: [a]}"}, ConfigurationError, "Expected 2 parameter_names of 'theta', got 1"),
        ({"names": "{thet: [a]}"}, ConfigurationError, "no variable 'thet'. Did you mean 'theta'"),
        ({"more": "observations: seen.csv"}, DataError, "a CSV file holds one variable, got x, y"),
        ({"more": "observations: missing.npz"}, DataError, "no such file"),
    ],
)
def test_what_does_not_fit_is_told(given: dict, error: type[Exception], message: str, tmp_path: Path) -> None:
    """No simulator at the path, names that do not fit, and observations that cannot be read."""
    with pytest.raises(error, match=message):
        study_of(_experiment(tmp_path, "plain_c", **given)).observations()


def test_the_code_of_the_module_is_in_the_fingerprint(tmp_path: Path) -> None:
    """Another constant in the user's module is another simulator, though the first row were the same."""
    prints = [
        simulator_fingerprint(question_of(_experiment(tmp_path, f"plain_{n}", noise=n))) for n in (1, 2)
    ]
    assert prints[0] != prints[1]


def test_modules_of_the_package_are_no_modules_of_the_user() -> None:
    """Where an experiment lies beside the package, its record holds the imported modules there, and the
    package is left out."""
    found = modules_in(str(Path(__file__).parents[2]))
    assert "tests/flows/pipeline_runs.py" in found
    assert not [name for name in found if name.startswith(("flows/", "sbi_models/"))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The pipeline of such an experiment, in another folder than its files."""
    source, root = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("project")
    np.savez(source / "seen.npz", x=np.zeros((2, 4, 2)), y=np.zeros((2, 1)))
    experiment = _experiment(source, "plain_run", more="observations: seen.npz")
    changed = experiment.model_dump(mode="json") | {
        "simulate": {"training": 512, "validation": 128, "test": 60},
        "train": {
            "epochs": 1,
            "summary_network": {"name": "deep_set"},
            "inference_network": {"name": "coupling_flow"},
        },
        "diagnose": {"num_samples": 20},
        "infer": {"num_samples": 30, "predictive_replicates": 0},
    }
    (source / "mine.yaml").write_text(json.dumps(changed))  # JSON is YAML
    return run_pipeline(root, {"file": str(source / "mine.yaml")}, shared=True)


@pytest.mark.integration
def test_its_pipeline_runs_and_keeps_the_sources(run: Finished) -> None:
    """The run infers both data sets, and its record holds settings, module and observations, to the byte."""
    assert [row["data set"] for row in run.result["inference"]["table"]] == ["1", "1", "2", "2"]
    source = Path(run.result["artifacts"]) / "source"
    assert {path.name for path in source.iterdir()} == {"experiment.yaml", "plain_run.py", "seen.npz"}
    assert (source / "plain_run.py").read_text() == MODULE.format(noise=0.5)
    again = load_experiment(source / "experiment.yaml")
    assert again.observations == "seen.npz"
    assert again.simulate.training == 512
    assert run.errors == ""


BOUNDED = """
import numpy as np
from torch.distributions import LogNormal, Uniform
from sbi_models import make_simulator

def likelihood(rate, room, rng): return {"x": rng.normal(rate + room, 1.0, size=3)}

SIMULATOR = make_simulator([{"rate": LogNormal(0.0, 1.0), "room": Uniform(15.0, 25.0)}, likelihood])
"""


@pytest.mark.parametrize(
    "more", ["", "ensemble: {size: 2}", "train: {inference_network: {name: diffusion_model}}\ncompose: {}"]
)
def test_draws_stay_inside_the_support_of_torch_priors(tmp_path: Path, more: str) -> None:
    """The approximator of the pipeline knows the bounds of torch distributions in the simulator, as that of a
    workflow does."""
    (tmp_path / "bounded.py").write_text(BOUNDED)
    (tmp_path / "bounded.yaml").write_text(
        "name: bounded\nsimulator: bounded:SIMULATOR\n"
        "inference_variables: [rate, room]\ninference_conditions: [x]\n"
        f"register_as: {{name: bounded}}\n{more}\n"
    )
    approximator = workflow_of(question_of(load_experiment(tmp_path / "bounded.yaml"))).approximator
    alone = approximator.members["0"] if more.startswith("ensemble") else approximator
    inside = alone.adapter.inside(
        {"rate": torch.tensor([[1.0], [-1.0], [1.0]]), "room": torch.tensor([[20.0], [20.0], [26.0]])}
    )
    assert inside.tolist() == [True, False, False]
