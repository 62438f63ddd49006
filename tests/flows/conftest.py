"""Pipeline runs shared by the tests of this folder, each a process of its own."""

from collections.abc import Iterator

import pytest
from pipeline_runs import Finished, run_pipeline, stop_shared_server
from quick_mlflow import keep_what_does_not_change

from sbi_models.tracking import Store, open_store

keep_what_does_not_change()


@pytest.fixture(scope="session", autouse=True)
def _stops_the_shared_server() -> Iterator[None]:
    """After the last test, if one has started it."""
    yield
    stop_shared_server()


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A small pipeline in a fresh folder, as users start it."""
    # seconds: it imports PyTorch, MLflow and Prefect, and starts a Prefect server
    return run_pipeline(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def second_run(first_run: Finished) -> Finished:
    """The same pipeline once more, in the same folder."""
    return run_pipeline(first_run.root, shared=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of its own for each file of tests that has no other, in an empty project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return open_store(tmp_path_factory.mktemp("project"))
