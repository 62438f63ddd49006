"""Experiments in YAML: read to the same settings, and wrong ones refused with the line of the file and the
key."""

import re
from pathlib import Path

import pytest
from small_run import COMPOSED, ENSEMBLE, small_experiment

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Engine
from sbi_models.pipeline.experiment.yaml_files import as_yaml, experiment_names, load_experiment

MINIMAL = """\
name: mine
simulator: mine:SIMULATOR
inference_variables: [theta]
summary_variables: [x]
register_as: {name: mine}
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("changes", [{}, ENSEMBLE, COMPOSED, {"engine": {"kind": "processes", "workers": 3}}])
def test_what_is_written_is_read(changes: dict, tmp_path: Path) -> None:
    """An experiment written as YAML is read to the same settings; its folder is that of the file."""
    experiment = small_experiment(changes)
    assert load_experiment(_file(tmp_path, as_yaml(experiment))) == experiment.model_copy(
        update={"folder": str(tmp_path)}
    )


def test_every_file_of_the_package_has_the_name_of_its_experiment() -> None:
    """The name that starts an experiment is the one that it is tracked under."""
    assert "michelson" in experiment_names()
    assert [load_experiment(name).name for name in experiment_names()] == experiment_names()


def test_an_engine_may_be_named_alone(tmp_path: Path) -> None:
    """`engine: dask` is the engine with its defaults."""
    assert load_experiment(_file(tmp_path, MINIMAL + "engine: dask\n")).engine == Engine(kind="dask")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("train: {epochs: -3}\n", "line 6, train.epochs: Input should be greater than 0, got -3"),
        (
            "train:\n  epochs: 3\n  inference_network: {nam: flow}\n",
            "line 8, train.inference_network.nam: unknown key. Did you mean 'name'?",
        ),
        ("simulat: {training: 3}\n", "line 6, simulat: unknown key. Did you mean 'simulate'?"),
        (
            "ensemble:\n  members:\n    a: {inference_network: {name: 3}}\n",
            "line 8, ensemble.members.a.inference_network.name: Input should",
        ),
        (
            "engine: {kind: spark}\n",
            "line 6, engine.kind: Input should be 'threads', 'processes' or 'dask', got 'spark'",
        ),
        ("engine: {kind: threads, address: tcp://h:1}\n", "Expected an address with the engine dask only"),
        ("infer: {predictive_replicates: 1}\n", "line 6, infer.predictive_replicates"),
        ("study: a:b\n", "Expected either a study or a simulator, got both"),
        ("seed: [1\n", "not readable as YAML"),
    ],
)
def test_wrong_settings_are_told_with_line_and_key(more: str, message: str, tmp_path: Path) -> None:
    """Unknown keys, values out of range, wrong types, what does not go together and bad YAML: one line, and
    the cure."""
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        load_experiment(_file(tmp_path, MINIMAL + more))
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """A key that is required and not there is named."""
    with pytest.raises(ConfigurationError, match="inference_variables: this key is required"):
        load_experiment(_file(tmp_path, MINIMAL.replace("inference_variables: [theta]\n", "")))


@pytest.mark.parametrize(
    ("source", "message"),
    [("michelsn", "Did you mean 'michelson'"), ("nowhere.yaml", "nowhere.yaml: no such file")],
)
def test_unknown_experiments_are_refused(source: str, message: str) -> None:
    """An unknown name has the nearest known one beside it; a missing file is named."""
    with pytest.raises(ConfigurationError, match=message):
        load_experiment(source)


def test_where_it_runs_does_not_matter() -> None:
    """Engine, folder and shards are not among what decides on results; everything else is."""
    base = small_experiment({})
    other = small_experiment(
        {"engine": {"kind": "processes"}, "folder": "/elsewhere", "simulate": {"rows_per_shard": 7}}
    )
    assert other.what_matters() == base.what_matters()
    assert small_experiment({"gate": {"level": 0.02}}).what_matters() != base.what_matters()


def test_the_earlier_name_of_sequential_warns_and_works(tmp_path: Path) -> None:
    """`narrow:` is read as `sequential:` with a FutureWarning; errors name the key of the file."""
    text = (
        "name: a\nsimulator: a:SIMULATOR\ninference_variables: [x]\nregister_as: {name: a}\n"
        "infer: {num_samples: 10, num_proposals: 20}\nNAME: {training: 100}\n"
    )
    file = tmp_path / "a.yaml"
    file.write_text(text.replace("NAME", "sequential"))
    new = load_experiment(file)
    file.write_text(text.replace("NAME", "narrow"))
    with pytest.warns(FutureWarning, match="narrow is now called sequential"):
        old = load_experiment(file)
    assert old == new
    assert old.sequential is not None
    assert old.sequential.training == 100
    assert "sequential:" in as_yaml(old)
    file.write_text(text.replace("NAME: {training: 100}", "narrow: {trainin: 100}"))
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ConfigurationError, match=r"line 6, narrow\.trainin: unknown key\..*'training'"),
    ):
        load_experiment(file)
