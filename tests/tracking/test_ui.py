import sys
from pathlib import Path

import pytest

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking import Store, open_store, run_page, ui_command, ui_environment


def test_the_command_starts_a_small_server_on_the_store(store: Store) -> None:
    """One worker, on loopback, on the database and files of the store, and without job runners."""
    command = ui_command(store, port=5077)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--backend-store-uri": store.tracking_uri,
        "--artifacts-destination": str(store.root / "mlruns" / "artifacts"),
        "--workers": "1",
        "--host": "127.0.0.1",
        "--port": "5077",
    }
    environment = ui_environment(store)
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "example.org"])
def test_the_pages_are_for_this_machine_only(store: Store, host: str) -> None:
    """Any host that is not loopback is refused with the way to forward a port."""
    with pytest.raises(ConfigurationError, match="ssh -L"):
        ui_command(store, host=host)


def test_a_store_that_is_a_server_needs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If MLFLOW_TRACKING_URI is a server, its address is the answer."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    with pytest.raises(TrackingError, match=r"open http://127.0.0.1:5000"):
        ui_command(open_store(tmp_path))


def test_a_run_on_a_server_has_an_address(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of a local store is looked at with the command; that of a server at its page, whose address has
    no password."""
    run = store.client.create_run(store.experiment("npe"))
    assert run_page(store, run.info.run_id) is None
    client = store.client
    server = Store(
        "https://anna:hunter2@example.org/mlflow/", store.root, artifact_location=None, local=False
    )
    monkeypatch.setattr(Store, "client", property(lambda self: client))
    page = f"https://***@example.org/mlflow/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert run_page(server, run.info.run_id) == page
