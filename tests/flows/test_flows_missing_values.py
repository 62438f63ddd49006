"""Experiments with adapter steps and missing values: settings, cache keys, simulations and observations."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from epidemic_with_gaps import GAPS, write_epidemic
from pipeline_runs import run_commands

from sbi_models.datasets import SimulationStore
from sbi_models.errors import ConfigurationError, DataError, SimulationError
from sbi_models.pipeline import folders
from sbi_models.pipeline.cache import source_fingerprint
from sbi_models.pipeline.data_checks import check_data
from sbi_models.pipeline.experiment.adapter_steps import adapter_of, own_classes
from sbi_models.pipeline.experiment.observations import read_observations
from sbi_models.pipeline.experiment.question import Question, question_of, study_of
from sbi_models.pipeline.experiment.scaffold import make_experiment
from sbi_models.pipeline.experiment.yaml_files import as_yaml, load_experiment
from sbi_models.pipeline.missing_values import refuse_without_gaps
from sbi_models.pipeline.steps.simulate import refuse_not_finite, refuse_stale, stores_of
from sbi_models.pipeline.steps.train import train_key, train_workflow, workflow_of

pytestmark = pytest.mark.xdist_group("flows-missing")
USUAL = "5,9,,21,NA,42,58,77,98,nan,150,170,190,205\n"  # three days of an epidemic are missing
MOSTLY_MISSING = "5,,,,,,,,,,,,,\n"


def checked(path: Path) -> Question:
    """The question of an experiment, after the checks that come before any simulation."""
    question = question_of(load_experiment(path))
    check_data(question, workflow_of(question).approximator)
    return question


def test_steps_and_masks_reach_the_networks(tmp_path: Path) -> None:
    """The adapter of an experiment fills and masks the missing days, then takes its own steps, one of them
    registered by the module of the simulator; the mask goes to the summary network."""
    question = checked(write_epidemic(tmp_path, "gaps_a", USUAL))
    approximator = workflow_of(question).approximator
    assert [step.kind for step in approximator.adapter.transforms] == [
        "nan_to_num",
        "log",
        "log1p_gaps_a",
        "concatenate",
        "concatenate",
    ]
    assert approximator.specification["masks"] == '{"summary_variables": "counted"}'
    assert approximator.may_miss == question.experiment.may_miss == {"cases"}


@pytest.mark.parametrize(
    "more",
    [
        {"ensemble": {"size": 2}},
        {"compose": {}, "train": {"inference_network": {"name": "diffusion_model"}}},
        {"train": {"inference_network": {"name": "auto"}}},
    ],
    ids=["ensemble", "compose", "auto"],
)
def test_every_kind_of_approximator_takes_gaps(more: dict[str, Any], tmp_path: Path) -> None:
    """Members of ensembles, compositional approximators and the automatic choice fill and mask alike."""
    more["train"] = {"summary_network": {"name": "deep_set"}} | more.get("train", {})
    question = checked(write_epidemic(tmp_path, "gaps_m", USUAL, **more))
    for member in workflow_of(question).approximator.members.values():
        assert member.may_miss == {"cases"}
        assert member.specification["masks"] == '{"summary_variables": "counted"}'


PRIORS = """
from torch.distributions import LogNormal, Uniform
from sbi_models import make_simulator

def likelihood(rate, room, rng): return {"x": rng.normal(rate + room, 1.0, size=3)}

SIMULATOR = make_simulator([{"rate": LogNormal(0.0, 1.0), "room": Uniform(15.0, 25.0)}, likelihood])
"""


def test_torch_priors_bound_what_no_step_changes(tmp_path: Path) -> None:
    """With steps for the rate and the data, the room keeps the bounds of its prior and the rate those of its
    step."""
    (tmp_path / "gaps_priors.py").write_text(PRIORS)
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nsimulator: gaps_priors:SIMULATOR\nregister_as: {name: mine}\n"
        "inference_variables: [rate, room]\ninference_conditions: [x]\n"
        "adapter:\n  - shift: {names: x, by: -20}\n  - constrain: {names: rate, upper: 9, lower: -1}\n"
    )
    adapter = next(
        iter(workflow_of(question_of(load_experiment(tmp_path / "mine.yaml"))).approximator.members.values())
    ).adapter
    rates, rooms = torch.tensor([[-0.5], [10.0], [1.0]]), torch.tensor([[20.0], [20.0], [26.0]])
    assert adapter.inside({"rate": rates, "room": rooms}).tolist() == [True, False, False]


def test_direct_conditions_have_their_masks_beside_them(tmp_path: Path) -> None:
    """Without a summary network, 14 days are 28 conditions: the days, at their mean where they are missing,
    and whether they are there."""
    path = write_epidemic(
        tmp_path,
        "gaps_b",
        USUAL,
        adapter=None,
        summary_variables=None,
        inference_conditions=["cases"],
        train={"inference_network": {"name": "coupling_flow"}},
    )
    module = tmp_path / "gaps_b.py"
    module.write_text(module.read_text().replace("cases)[:, :, None]}", "cases)}"))
    question = question_of(load_experiment(path))
    approximator = workflow_of(question).approximator
    rows = question.study.simulator.sample(64, seed=1, progress=False)
    approximator.build(rows, seed=1)
    conditions = approximator.given(rows).numpy()
    assert conditions.shape == (64, 28)
    there = ~np.isnan(rows["cases"])
    assert np.array_equal(conditions[:, 14:] > 0, there)
    middle = approximator.given({"cases": np.full((1, 14), np.nan)}).numpy()[0, :14]
    np.testing.assert_allclose(middle, 0, atol=1e-6)  # standardized


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": {"log": "rates"}}, r"adapter: Expected a list of steps, such as \[\{log: \[sigma\]\}\]"),
        ({"adapter": [{"log": "rates"}, "sqrt"]}, "step 2: expected one name with its .*, got 'sqrt'"),
        ({"adapter": [{"log": "rates", "sqrt": "cases"}]}, "step 1: expected one name"),
        ({"adapter": [{"lgo": "rates"}]}, r"adapter, step 1 \(lgo\): .* got 'lgo'. Did you mean 'log'"),
        (
            {"adapter": [{"log1p_gaps_c": "cases"}, {"log1q_gaps_c": "cases"}]},
            "step 2 .* mean 'log1p_gaps_c'",
        ),
        (
            {"adapter": [{"constrain": {"names": "rates", "lowr": 0}}]},
            r"step 1 \(constrain\): expected its arguments, got 'lowr'. Did you mean 'lower'",
        ),
        ({"adapter": [{"scale": "rates"}]}, r"step 1 \(scale\): expected the argument 'by', got 'rates'"),
        ({"adapter": [{"scale": {"names": "rates", "by": "1e-3"}}]}, r"step 1 .* such as 1.0e-3"),
        ({"adapter": [{"constrain": {"names": "rates", "prior": 1}}]}, "expected no prior in settings"),
        (
            {"adapter": [{"log": "rates"}, {"log": "case"}]},
            r"adapter, step 2 \(log\): Variable 'case' .* Did you mean 'cases'",
        ),
        ({"missing": ["cases"]}, "missing: Input should be a valid dictionary"),
        ({"missing": {"case": "there"}}, "condition that may be missing, got 'case'. Did you mean 'cases'"),
        ({"missing": {"rates": "there"}}, "got 'rates'. It is inferred"),
        ({"missing": {"cases": "rates"}}, "new name for each mask .* got 'rates', which is taken"),
        (
            {"adapter": [{"nan_to_num": {"name": "cases", "mask": "m"}}]},
            "Expected either missing or nan_to_num of the adapter for 'cases', got both",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Steps and masks that cannot be are refused before anything is simulated, with the number of the step,
    what was expected and what to write."""
    with pytest.raises(ConfigurationError, match=message):
        checked(write_epidemic(tmp_path, "gaps_c", USUAL, **changes))


def test_an_edit_of_steps_or_masks_trains_again(tmp_path: Path) -> None:
    """Other steps, other masks, and none have training keys of their own, and other code of a step of one's
    own has another fingerprint, which is in the key; reading all code for it takes some seconds."""
    content = {"training": "a", "validation": "v"}
    changes: list[dict[str, Any]] = [
        {},
        {"adapter": [{"log": "rates"}]},
        {"missing": {"cases": "there"}},
        {"missing": None, "adapter": [{"nan_to_num": {"name": "cases", "mask": "there"}}]},
    ]
    keys = [
        train_key(question_of(load_experiment(write_epidemic(tmp_path, "gaps_d", USUAL, **more))), content)
        for more in changes
    ]
    assert len(set(keys)) == len(changes)
    steps = []
    for module, code in (("gaps_e", "x.log1p()"), ("gaps_l", "x.sqrt()")):
        write_epidemic(tmp_path, module, USUAL)
        file = tmp_path / f"{module}.py"
        file.write_text(file.read_text().replace("x.log1p()", code))
        experiment = load_experiment(tmp_path / f"{module}.yaml")
        study_of(experiment)
        steps.append(source_fingerprint(*own_classes(adapter_of(experiment.adapter))))
    assert len({*steps, source_fingerprint()}) == 3


def test_settings_are_shown(tmp_path: Path) -> None:
    """The settings in the report have steps and masks, and are read back as they were."""
    experiment = load_experiment(write_epidemic(tmp_path, "gaps_f", USUAL))
    shown = as_yaml(experiment)
    assert "missing:\n  cases: counted\n" in shown
    assert "- log1p_gaps_f: cases\n" in shown
    (tmp_path / "again.yaml").write_text(shown)
    assert load_experiment(tmp_path / "again.yaml") == experiment


def test_the_lines_of_a_new_experiment_work(tmp_path: Path) -> None:
    """`sbi-models new` lists both settings as comments, which are valid without their signs, and make gaps in
    its observations readable."""
    _, path, data = make_experiment("gaps_new", tmp_path)
    lines = path.read_text().splitlines()
    chosen = [line for line in lines if line.startswith(("# missing:", "# adapter:"))]
    assert len(chosen) == 2
    path.write_text("\n".join(line.removeprefix("# ") if line in chosen else line for line in lines))
    data.write_text(data.read_text().replace("0.88", ""))
    observed = checked(path).study.observations()[1]["y"]
    assert np.isnan(observed[0, 1])
    assert np.isnan(observed).sum() == 1


# ---- observations ------------------------------------------------------------


def test_missing_cells_are_nan(tmp_path: Path) -> None:
    """Empty cells, NA and NaN are missing in both layouts, and a data set may be all NA."""
    path = tmp_path / "x.csv"
    path.write_text("a,b,c\n1,,3\nNA,nan,NaN\n4,5,na\n")
    _, wide = read_observations(path, "x", (3,), may_miss=True)
    np.testing.assert_array_equal(wide, [[1, np.nan, 3], [np.nan] * 3, [4, 5, np.nan]])
    path.write_text("a,1,5\na,2,\nb,2,NA\nb,1,7\n")
    labels, long = read_observations(path, "x", (2, 1), may_miss=True)
    assert labels == ["a", "b"]
    np.testing.assert_array_equal(long[..., 0], [[5, np.nan], [7, np.nan]])


def test_a_first_data_set_that_is_all_missing_is_no_header(tmp_path: Path) -> None:
    """NA alone in the first line is a data set, numbers in order above data with gaps may be a header, and
    times in unequal steps are one."""
    path = tmp_path / "x.csv"
    path.write_text("NA,NA,NA\n1,2,3\n")
    assert len(read_observations(path, "x", (3,), may_miss=True)[1]) == 2
    path.write_text("0,0.5,1.5,2,4,7,9,12\n3,,1,8,2,9,1,4\n5,1,1,8,2,NA,1,4\n")
    assert len(read_observations(path, "x", (8,), may_miss=True)[1]) == 2
    path.write_text("1,2,3,4\n5,,9,1\n")
    with pytest.raises(DataError, match="line 1: expected to see whether the first line is a data set"):
        read_observations(path, "x", (4,), may_miss=True)


@pytest.mark.parametrize(
    ("text", "may_miss", "message"),
    [
        (USUAL, False, r"line 1: expected finite numbers, got ''.* missing: \{x: x_there\}"),
        ("1,inf\n", True, "line 1: expected finite numbers, got 'inf'"),
        ("1,n/a\n", True, "line 1: expected finite numbers, got 'n/a'"),
        ("1,2\n,\n", True, "line 2: expected a data set, got empty cells alone.* write NA into its cells"),
    ],
)
def test_cells_that_cannot_be_are_refused(text: str, may_miss: bool, message: str, tmp_path: Path) -> None:
    """Missing values where none may be, inf, other words, and lines of commas alone are refused, with what a
    YAML can say as the cure."""
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_observations(path, "x", (text.splitlines()[0].count(",") + 1,), may_miss=may_miss)


@pytest.mark.parametrize("suffix", ["csv", "npz"])
@pytest.mark.parametrize("missing", [True, False])
def test_observations_with_gaps_are_taken_where_the_settings_say_so(
    suffix: str, missing: bool, tmp_path: Path
) -> None:
    """A data set with gaps, from CSV or npz, is read if `missing` names its variable, and else refused with
    that cure, by simulator and observations alike."""
    gaps = {} if missing else {"missing": None, "gaps": "np.zeros(cases.shape, dtype=bool)"}
    path = write_epidemic(tmp_path, f"gaps_g_{suffix}_{missing}", USUAL, **gaps)
    if suffix == "npz":
        x = np.where(np.arange(14) % 5 == 2, np.nan, 10.0)[None, :, None]
        np.savez(tmp_path / "x.npz", cases=x)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"observations": "x.npz"}))
    if missing:
        assert np.isnan(checked(path).study.observations()[1]["cases"]).any()
        return
    with pytest.raises(DataError, match=r"missing: \{cases: cases_there\}"):
        checked(path)


# ---- simulations -------------------------------------------------------------


def test_simulations_with_gaps_need_the_setting(tmp_path: Path) -> None:
    """NaN in a simulation is refused, with the setting as the cure; with it NaN passes, and inf does not."""
    without = question_of(load_experiment(write_epidemic(tmp_path, "gaps_h", USUAL, missing=None)))
    rows = without.study.simulator.rows(0, 32, seed=1, progress=False)
    with pytest.raises(SimulationError, match=r"'cases' .* say so: missing: \{cases: cases_there\}"):
        refuse_not_finite(without.experiment, without.study.simulator, rows, 0, 1)
    question = question_of(load_experiment(write_epidemic(tmp_path, "gaps_i", USUAL)))
    refuse_not_finite(question.experiment, question.study.simulator, rows, 0, 1)
    rows["cases"][3, 2] = np.inf
    with pytest.raises(SimulationError, match="got inf in 1 of 32"):
        refuse_not_finite(question.experiment, question.study.simulator, rows, 0, 1)


def test_stored_gaps_are_compared_with_those_that_the_simulator_makes_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulations with gaps are computed again before they are used, as others are: the same gaps pass, a gap
    in another place does not."""
    monkeypatch.setattr(folders, "_root", tmp_path)
    small = {"simulate": {"training": 64, "validation": 20, "test": 20}}
    question = question_of(load_experiment(write_epidemic(tmp_path, "gaps_n", USUAL, **small)))
    origin = next(store for store in stores_of(question) if store.purpose == "training")
    rows = question.study.simulator.rows(0, 64, seed=origin.seed, progress=False)
    SimulationStore.write(origin.folder, 0, 64, rows, **origin.origin)
    SimulationStore.finish(origin.folder, 64, rows_per_shard=64, **origin.origin)
    refuse_stale(question)
    shutil.rmtree(origin.folder)
    rows["cases"] = np.where(np.isnan(rows["cases"]), 3.0, rows["cases"])
    SimulationStore.write(origin.folder, 0, 64, rows, **origin.origin)
    SimulationStore.finish(origin.folder, 64, rows_per_shard=64, **origin.origin)
    with pytest.raises(DataError, match="another 'cases'"):
        refuse_stale(question)


def test_the_store_keeps_missing_values_to_the_bit(tmp_path: Path) -> None:
    """NaN of any payload comes back from the disk as it was written, and is part of the content hash."""
    odd = np.array([0x7FF8000000000001, 0xFFF80000000000FF, 0x7FF8000000000000], dtype=np.uint64)
    x = np.concatenate([odd.view(np.float64), [1.0]])[:, None]
    hashes = []
    for name, value in (("a", x), ("b", np.where(np.arange(4)[:, None] == 1, 2.0, x))):
        SimulationStore.write(tmp_path / name, 0, 4, {"x": value}, seed=1, fingerprint="f")
        store = SimulationStore.finish(tmp_path / name, 4, rows_per_shard=4, seed=1, fingerprint="f")
        assert store.load()["x"].tobytes() == value.tobytes()
        hashes.append(store.content_hash)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("gaps", ["np.zeros(cases.shape, dtype=bool)", GAPS])
def test_a_network_that_has_seen_no_gaps_is_not_trained_for_any(gaps: str, tmp_path: Path) -> None:
    """Where the experiment says that days may be missing and no simulation misses one, it is refused before
    the training; with gaps it is not."""
    question = question_of(load_experiment(write_epidemic(tmp_path, f"gaps_j{len(gaps)}", USUAL, gaps=gaps)))
    rows = question.study.simulator.rows(0, 64, seed=1, progress=False)
    SimulationStore.write(tmp_path / "store", 0, 64, rows, seed=1, fingerprint="f")
    store = SimulationStore.finish(tmp_path / "store", 64, rows_per_shard=64, seed=1, fingerprint="f")
    if gaps == GAPS:
        refuse_without_gaps(question.experiment, store)
        return
    with pytest.raises(DataError, match=r"missing values \(NaN\) in 'cases', .* got none in 64: a network"):
        refuse_without_gaps(question.experiment, store)


# ---- trainings ---------------------------------------------------------------


def test_a_training_answers_data_with_gaps_and_flags_those_it_has_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of the pipeline, trained on epidemics with up to half of the days missing, takes one that
    misses three, and the certificate of one that misses thirteen fails by their number; the first training of
    a process takes seconds."""
    from sbi_models import load  # noqa: PLC0415 - as a user of the file

    monkeypatch.chdir(tmp_path)
    quick = {"simulate": {"training": 512, "validation": 64, "test": 20}}
    question = checked(write_epidemic(tmp_path, "gaps_k", USUAL + MOSTLY_MISSING, **quick))
    simulator = question.study.simulator
    data = {
        purpose: simulator.sample(number, seed=seed, progress=False)
        for purpose, number, seed in (("training", 512, 1), ("validation", 64, 2))
    }
    settings = question.experiment.train.model_copy(update={"epochs": 1})
    question = question.with_settings(question.experiment.model_copy(update={"train": settings}))
    trained = train_workflow(question, data, "key", lambda epoch, losses: None)
    approximator = load(trained.model)
    _, observations = question.study.observations()
    draws = approximator.sample(num_samples=10, conditions=observations, seed=1)["rates"]
    assert np.isfinite(draws).all()
    assert (draws > 0).all()
    few, most = approximator.certify(observations, seed=1)
    assert few.novelty is not None
    assert most.verdict == "failed"
    assert most.unusual[0] == "number of elements of cases is below that of all simulations"


@pytest.mark.integration
def test_an_epidemic_with_missing_days_runs_from_the_command_line(tmp_path: Path) -> None:
    """`sbi-models run` reads the gaps of a CSV, trains with them, certifies, and shows the settings in the
    report; `sbi-models sample` reads gaps of another file with the registered model."""
    small = {"simulate": {"training": 1024, "validation": 256, "test": 40}}
    path = write_epidemic(tmp_path / "source", "gaps_run", USUAL + MOSTLY_MISSING, **small)
    other = tmp_path / "other.csv"
    other.write_text(USUAL)
    root = tmp_path / "project"
    root.mkdir()
    model = "models:/gaps_run@challenger"
    sample = ["sample", model, "--observations", str(other), "--num-samples", "50", "--json"]
    run, drawn = run_commands(root, ["run", str(path), "--json"], sample)
    assert (run.code, drawn.code) in {(0, 0), (3, 0)}, run.errors
    result = json.loads(run.output)
    assert [row["verdict"] for row in result["certificates"]][1] == "failed"
    answer = json.loads(drawn.output)
    assert len(answer["posteriors"]) == 2
    assert all(np.isfinite(row["sd"]) and row["sd"] > 0 for row in answer["posteriors"])
    (report,) = root.rglob("report.html")
    assert re.search(r"missing:\s+cases: counted", report.read_text())
