"""The pipeline as users run it: tracked, repeatable to the bit, and able to go on after a kill."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import psutil
import pytest
from pipeline_runs import Finished, kill_in_training, run_pipeline

from sbi_models.tracking import list_models, load, open_store

pytestmark = [pytest.mark.acceptance, pytest.mark.xdist_group("flows")]  # they share runs


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_run_is_tracked_whole(first_run: Finished) -> None:
    """One MLflow run holds parameters, provenance, the losses of every epoch, data sets with hashes,
    checkpoint, figures and metrics."""
    store = open_store(first_run.root)
    client = store.client
    (run,) = client.search_runs([store.experiment("michelson")])
    assert run.info.run_id == first_run.result["run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "1"
    assert run.data.params["train.epochs"] == "3"
    assert run.data.tags["sbi_models.seed"] == "1"
    history = first_run.result["training"]["history"]
    for name in ("loss", "val_loss"):
        points = client.get_metric_history(run.info.run_id, name)
        assert [point.value for point in sorted(points, key=lambda point: point.step)] == history[name]
        assert len(points) == 3
    hashes = {i.dataset.name: {tag.key: tag.value for tag in i.tags} for i in run.inputs.dataset_inputs}
    for purpose, content_hash in first_run.result["simulations"]["content_hash"].items():
        assert hashes[purpose]["sbi_models.content_hash"] == content_hash
    artifacts = Path(first_run.result["artifacts"])
    figures = {path.stem for path in (artifacts / "figures").glob("*.png")}
    assert figures == {
        "losses",
        "recovery",
        "calibration_ecdf",
        "coverage",
        "z_score_contraction",
        "verdict",
        "posteriors",
    }
    assert (
        _sha256(artifacts / "checkpoints" / "michelson.safetensors") == first_run.result["training"]["sha256"]
    )
    assert {"nrmse.mu", "log_gamma.mu", "calibration_error.log_variance", "posterior_contraction.mu"} <= set(
        run.data.metrics
    )
    assert "reference.speed_of_light.largest_error_of_mean_in_sd" in run.data.metrics


def test_the_verdict_is_with_the_run_and_with_the_model(first_run: Finished) -> None:
    """The verdict is an artifact of the run, tags of the run, and tags of the registered version, by
    parameter and jointly."""
    store, verdict = open_store(first_run.root), first_run.result["diagnosis"]["verdict"]
    assert json.loads((Path(first_run.result["artifacts"]) / "verdict.json").read_text()) == verdict
    expected = {"verdict": verdict["label"], "verdict.jointly": verdict["joint"]["label"]}
    expected |= {f"verdict.{name}": verdict["parameters"][name]["label"] for name in ("mu", "log_variance")}
    run_tags = store.client.get_run(first_run.result["run_id"]).data.tags
    version_tags = store.client.get_model_version("michelson", "1").tags
    for tags in (run_tags, version_tags):
        assert {name: value for name, value in tags.items() if name.startswith("verdict")} == expected
    assert verdict["sentence"] in first_run.screen


def test_draws_are_saved_for_each_experiment(first_run: Finished) -> None:
    """The draws of all five real experiments are in one Parquet file, 200 each."""
    draws = pd.read_parquet(Path(first_run.result["artifacts"]) / "inference" / "draws.parquet")
    assert list(draws.columns) == ["data_set", "draw", "mu", "log_variance"]
    assert draws.groupby("data_set").size().to_dict() == dict.fromkeys("12345", 200)
    assert draws["mu"].between(400, 1300).all()


def test_certificates_of_each_experiment_are_tracked(first_run: Finished, second_run: Finished) -> None:
    """The run has all that certificates tell of the five experiments as JSON, p-values as metrics, the
    verdicts as a tag and on the screen, and a second run has the same."""
    certificates = json.loads(
        (Path(first_run.result["artifacts"]) / "inference" / "certificates.json").read_text()
    )
    assert (
        certificates
        == first_run.result["inference"]["certificates"]
        == second_run.result["inference"]["certificates"]
    )
    assert [certificate["data_set"] for certificate in certificates] == list("12345")
    run = open_store(first_run.root).client.get_run(first_run.result["run_id"])
    for certificate in certificates:
        for name in ("novelty", "predictive", "p_value", "pareto_k", "effective_sample_size"):
            assert run.data.metrics[f"certificate.{name}.{certificate['data_set']}"] == certificate[name]
    passed = sum(certificate["trusted"] for certificate in certificates)
    assert run.data.tags["certificate"].startswith(f"{passed} of 5 passed")
    assert f"certificates: {passed} of 5 passed" in first_run.screen


def test_the_registered_model_is_the_trained_one(first_run: Finished) -> None:
    """models:/michelson@champion is version 1 and holds the trained file to the bit."""
    store = open_store(first_run.root)
    (listing,) = list_models(store)
    assert (listing.name, listing.versions, listing.aliases) == (
        "michelson",
        (1,),
        {"challenger": 1, "champion": 1},
    )
    model = load("models:/michelson@champion", store)
    assert model.info["trained_by"] == first_run.result["training"]["key"]


def test_the_screen_is_clean(first_run: Finished) -> None:
    """The screen shows the stages and the table, and no warning, advertisement, traceback or log line of the
    engines."""
    for stage in ("[1/5] simulate", "[2/5] train", "[3/5] diagnose", "[4/5] register", "[5/5] infer"):
        assert stage in first_run.screen
    assert "experiment" in first_run.screen
    assert "models:/michelson@champion" in first_run.screen
    assert first_run.errors == ""
    for word in ("Warning", "Traceback", "INFO", "litlogger", "GPU available", "temporary server"):
        assert word not in first_run.screen


def test_a_second_run_reuses_and_says_so(first_run: Finished, second_run: Finished) -> None:
    """The same experiment again simulates and trains nothing, registers no new version, and gives the same
    draws; its run is complete."""
    assert second_run.screen.count("reused, finished") == 4
    assert second_run.result["training"] == first_run.result["training"]
    assert second_run.result["registered"]["reused"]
    assert second_run.result["registered"]["version"] == 1
    assert second_run.result["inference"]["draws_sha256"] == first_run.result["inference"]["draws_sha256"]
    run = open_store(first_run.root).client.get_run(second_run.result["run_id"])
    assert run.info.run_id != first_run.result["run_id"]
    assert run.data.tags["train"] == "reused"
    assert run.data.metrics["val_loss"] == first_run.result["training"]["history"]["val_loss"][-1]


def test_seconds_on_the_page_are_those_of_the_screen(first_run: Finished, second_run: Finished) -> None:
    """What a task took when it was made is the same number on the screen, in the metrics and on the page,
    shards included; a run that uses it again has that and its own seconds, and the page says which is
    which."""
    client = open_store(first_run.root).client
    made, again = (
        client.get_run(finished.result["run_id"]).data.metrics for finished in (first_run, second_run)
    )
    pages = [
        (Path(finished.result["artifacts"]) / "report.html").read_text()
        for finished in (first_run, second_run)
    ]
    for task in ("simulate", "train", "diagnose", "infer"):
        assert f"({made[f'{task}.seconds']:.1f} s)" in first_run.screen
        assert f"{task} made in {made[f'{task}.seconds']:.1f} s" in pages[0]
        assert f"in {again[f'{task}.seconds']:.1f} s: " in second_run.screen
        assert (
            f"{task} reused in {again[f'{task}.seconds_of_reuse']:.1f} s (made in "
            f"{again[f'{task}.seconds']:.1f} s)" in pages[1]
        )
    for task in ("train", "diagnose", "infer"):
        assert again[f"{task}.seconds"] == made[f"{task}.seconds"]
    assert again["simulate.seconds"] == pytest.approx(made["simulate.seconds"], abs=5)


def test_killed_in_training_it_ends_with_the_same_draws(first_run: Finished, tmp_path: Path) -> None:
    """A pipeline killed in training and started again ends in one MLflow run with the draws to the bit; no
    server is left."""
    # seconds: a process with a Prefect server of its own
    kill_in_training(tmp_path, {})
    again = run_pipeline(tmp_path, shared=True)
    assert again.result["inference"]["draws_sha256"] == first_run.result["inference"]["draws_sha256"]
    assert again.result["training"]["history"] == first_run.result["training"]["history"]
    store = open_store(tmp_path)
    (run,) = store.client.search_runs([store.experiment("michelson")])
    assert run.info.status == "FINISHED"
    assert len(store.client.get_metric_history(run.info.run_id, "loss")) == 3
    assert not _servers_of(tmp_path)


def _servers_of(root: Path) -> list[int]:
    home = str(root / "mlruns" / "work" / "prefect")
    servers = [
        p
        for p in psutil.process_iter(["cmdline"])
        if "sbi_models.pipeline.prefect_server.serve_once" in (p.info["cmdline"] or ())
    ]
    return [server.pid for server in servers if server.environ().get("PREFECT_HOME") == home]


def test_a_damaged_store_is_simulated_again(second_run: Finished) -> None:
    """A changed byte in a shard is noticed: the simulations are made again, with the same content, and
    nothing is trained anew."""
    folder = Path(second_run.result["simulations"]["stores"]["training"])
    shard = next(folder.glob("shard-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    again = run_pipeline(second_run.root, shared=True)
    assert again.result["simulations"]["content_hash"] == second_run.result["simulations"]["content_hash"]
    assert again.screen.count("reused, finished") == 3
    assert again.result["inference"]["draws_sha256"] == second_run.result["inference"]["draws_sha256"]


def test_a_fresh_run_uses_nothing_again(first_run: Finished, second_run: Finished) -> None:
    """With fresh, every task is made anew, to the same bits, and leaves one copy of its work."""
    folders = {path.name for path in (first_run.root / "mlruns" / "work").iterdir()}
    fresh = run_pipeline(second_run.root, {"fresh": True}, shared=True)
    assert "reused, finished" not in fresh.screen
    assert fresh.result["training"]["finished"] > first_run.result["training"]["finished"]
    assert fresh.result["training"]["sha256"] == first_run.result["training"]["sha256"]
    assert fresh.result["inference"]["draws_sha256"] == first_run.result["inference"]["draws_sha256"]
    run = open_store(first_run.root).client.get_run(fresh.result["run_id"])
    assert {run.data.tags[task] for task in ("simulate", "train", "diagnose", "infer")} == {"made"}
    assert {path.name for path in (first_run.root / "mlruns" / "work").iterdir()} == folders
