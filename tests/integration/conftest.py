"""Servers that the tests of this folder share; they are stopped whether tests pass, fail or are
interrupted."""

import signal
from collections.abc import Iterator

import pytest
from servers import Servers, servers


@pytest.fixture(scope="session", autouse=True)
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the tests as Ctrl-C does, so that what they started is stopped."""
    before = signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def real_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL, an MLflow server with passwords and a Prefect server with one, both on it."""
    folder = tmp_path_factory.mktemp("servers")
    print(f"\nstarting PostgreSQL, MLflow and Prefect; their logs are in {folder}")
    with servers(folder) as found:
        yield found
