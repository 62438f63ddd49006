"""What would fail after the simulations is found before: names, networks, observations, values that are not
finite."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_experiment import write_experiment
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_logged_model_name, _validate_model_name
from pydantic import ValidationError
from small_run import small_experiment

from sbi_models.errors import ConfigurationError, DataError, SimulationError
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.settings import Register
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows.run_start import start_run
from sbi_models.pipeline.steps.simulate import missing_shards, simulate_missing, simulate_shard

FLOW = {"inference_network": {"name": "flow_matching"}}

IMAGES = """
import numpy as np
from sbi_models import make_simulator

def prior(rng): return {"theta": rng.normal(size=2)}
def likelihood(theta, rng): return {"x": theta[0] + rng.normal(size=SHAPE)}

SHAPE = __SHAPE__
SIMULATOR = make_simulator([prior, likelihood])
"""

NOT_FINITE = """
import numpy as np
from sbi_models import make_simulator

def prior(rng): return {"theta": rng.normal(size=2)}
def likelihood(theta, rng): return {"x": np.log(theta + LIFT)}

LIFT = __LIFT__
SIMULATOR = make_simulator([prior, likelihood])
"""


def refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, path: Path, error: type[Exception], words: str
) -> None:
    """A run is refused with these words, and leaves nothing in its folder."""
    (folder / "run").mkdir()
    monkeypatch.chdir(folder / "run")
    with pytest.raises(error, match=words):
        start_run(question_of(load_experiment(path)))
    assert not list((folder / "run").iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "n" * 250}, "name of at most 120 bytes"),
        ({"name": "µ" * 61}, "at most 120 bytes, .* got 122"),
        ({"name": ".."}, "which is a folder"),
        ({"name": "a/b"}, "should match pattern"),
        ({"register_as": {"name": "n" * 250}}, "at most 120 bytes"),
        ({"ensemble": {"members": {"n" * 250: FLOW, "b": FLOW}}}, "at most 120"),
    ],
)
def test_names_that_files_cannot_have_are_refused(changes: dict[str, Any], words: str) -> None:
    """Names of experiments, models and members that are too long for a file, or are folders, do not
    validate."""
    with pytest.raises((ValidationError, ConfigurationError), match=words):
        small_experiment(changes)


@pytest.mark.parametrize("name", [".", "..", "a.b", "50%", "a/b", "a:b", "a'b", 'a"b', " ", "", "a@b"])
def test_names_that_mlflow_refuses_are_refused(name: str) -> None:
    """Whatever MLflow's registry, or its folder of a model, does not take is refused as a setting, and "@",
    which addresses have."""
    if "@" not in name:
        with pytest.raises(MlflowException):  # noqa: PT012 - either of the two
            _validate_model_name(name)
            _validate_logged_model_name(name)
    with pytest.raises((ValidationError, ConfigurationError)):
        Register(name=name)


@pytest.mark.parametrize("name", ["michelson", "Ω-run_1", "two words", "a" * 120, "a+b", "~"])
def test_other_names_are_admitted(name: str) -> None:
    """What MLflow takes is taken."""
    _validate_model_name(name)
    _validate_logged_model_name(name)
    assert Register(name=name).name == name


@pytest.mark.parametrize(
    ("shape", "words"),
    [((8, 8), "Add an axis to images of one channel"), ((2, 8, 8, 1), "height, width, channels")],
)
def test_images_of_a_wrong_rank_are_refused_before_work_starts(
    shape: tuple[int, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A convolutional network for simulations without a channel axis, or with too many axes."""
    module = f"images_{len(shape)}"
    path = write_experiment(
        tmp_path / "files",
        module,
        inference_conditions=[],
        summary_variables=["x"],
        train={"summary_network": {"name": "convolutional_network"}},
    )
    (tmp_path / "files" / f"{module}.py").write_text(IMAGES.replace("__SHAPE__", str(shape)))
    refused(tmp_path, monkeypatch, path, DataError, words)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            np.array([[0.1, np.nan], [1.0, 2.0]]),
            r"real observations cannot be used. .* NaN or inf in 1 of 2 rows of variable 'x'",
        ),
        (np.array([[np.inf, 0.0]]), "real observations cannot be used"),
        (np.zeros((3, 2, 1)), r"real observations cannot be used. Expected 'x' .* of shape \(n, 2\)"),
        (np.zeros((3, 3)), r"of shape \(n, 2\)"),
        (np.zeros(2), r"of shape \(n, 2\)"),
        (np.zeros((2, 2), dtype=complex), "Expected real numbers"),
    ],
    ids=["nan", "inf", "another rank", "another width", "one data set", "complex"],
)
def test_observations_that_cannot_be_used_are_refused_before_work_starts(
    x: np.ndarray, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were found after simulations, training and diagnosis."""
    path = write_experiment(tmp_path / "files", "late_observations", x)
    refused(tmp_path, monkeypatch, path, DataError, words)


def test_a_first_simulation_that_is_not_finite_is_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator that gives NaN always."""
    path = write_experiment(tmp_path / "files", "never_finite")
    (tmp_path / "files" / "never_finite.py").write_text(NOT_FINITE.replace("__LIFT__", "-99.0"))
    with np.errstate(invalid="ignore"):
        refused(
            tmp_path,
            monkeypatch,
            path,
            SimulationError,
            r"finite numbers in 'x' .* row 0 of seed 0.*simulator.rows\(0, 1, seed=0\)",
        )


def test_rare_simulations_that_are_not_finite_end_the_simulation_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shard with NaN ends it, names the row, and is not written; it was the training, after all
    simulations, that refused it."""
    settings = {"training": 4096, "validation": 64, "test": 64, "rows_per_shard": 512}
    path = write_experiment(tmp_path / "files", "rarely_finite", simulate=settings)
    (tmp_path / "files" / "rarely_finite.py").write_text(NOT_FINITE.replace("__LIFT__", "3.0"))
    monkeypatch.chdir(tmp_path)
    question = question_of(load_experiment(path))
    shards = missing_shards(question)
    words = r"'x' .* got NaN or inf in \d+ of 512, such as row \d+"
    with np.errstate(invalid="ignore"), pytest.raises(SimulationError, match=words) as caught:
        simulate_shard.fn(question, shards[0])
    row = int(str(caught.value).partition("such as row ")[2].split()[0])
    simulator = __import__("rarely_finite").SIMULATOR
    with np.errstate(invalid="ignore"):
        assert np.isnan(simulator.rows(row, row + 1, seed=shards[0].store.seed)["x"]).any()
    assert not list(tmp_path.rglob("shard-*"))


def test_shards_that_are_not_where_they_should_be_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that say that they are done and have written elsewhere: the run ends, in place of going on for
    ever."""
    path = write_experiment(tmp_path / "files", "written_elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sbi_models.pipeline.steps.simulate.spread", lambda *arguments, **options: 0)
    with pytest.raises(
        DataError,
        match=r"Expected 3 more files of simulations in .*work, got 0, .* do its workers share this folder",
    ):
        simulate_missing(question_of(load_experiment(path)))
