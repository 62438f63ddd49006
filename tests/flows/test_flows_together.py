"""Several pipelines in one folder at once, and members of ensembles in processes of their own."""

from pathlib import Path

import pytest
from pipeline_runs import result_of, run_pipeline, start_pipeline
from small_run import ENSEMBLE

from sbi_models.tracking import list_models, open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PROCESSES = {"engine": {"kind": "processes", "workers": 2}}


def test_two_ensembles_at_once_both_succeed(tmp_path: Path) -> None:
    """Two pipelines of one fresh folder, each with two members in processes of their own (so that four log at
    once), end as alone.

    Weights, history and draws are, to the bit, those of an ensemble that trains side by side in one process.
    """
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    seeds = (1, 2)
    processes = [
        start_pipeline(together, ENSEMBLE | PROCESSES | {"seed": seed}, label=f"{seed}.") for seed in seeds
    ]
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], [(together / f"{seed}.errors.txt").read_text() for seed in seeds]
    results = [result_of(together / f"{seed}.screen.txt") for seed in seeds]
    reference = run_pipeline(alone, ENSEMBLE).result
    for key in ("sha256", "history", "members"):
        assert results[0]["training"][key] == reference["training"][key]
    assert results[0]["inference"]["draws_sha256"] == reference["inference"]["draws_sha256"]
    assert results[0]["training"]["sha256"] != results[1]["training"]["sha256"]
    store = open_store(together)
    runs = store.client.search_runs([store.experiment("michelson")])
    assert [run.info.status for run in runs] == ["FINISHED"] * 6
    for run in runs:
        points = store.client.get_metric_history(run.info.run_id, "val_loss")
        assert sorted(point.step for point in points) == list(range(1, 7))
    (listing,) = list_models(store)
    assert listing.versions == (1, 2)
