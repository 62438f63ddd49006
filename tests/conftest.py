"""The order of all tests, and the end of what they share; modules of this folder can be imported by all."""

import random
from collections.abc import Iterator

import pytest
from forked_programs import remove_prefect_home
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling


class FilesAndGroups(LoadGroupScheduling):
    """Keeps the tests of a file on one worker, as it does groups, so that set-ups of a file are made once."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling | None:
    """Keep files together, too, with `--dist loadgroup`."""
    return FilesAndGroups(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--shuffle SEED`."""
    parser.addoption("--shuffle", type=int, help="run files, and their tests, in an order drawn by a seed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle the files, and the tests of each."""
    if (seed := config.getoption("shuffle")) is not None:
        rng = random.Random(seed)
        place = {item.path: rng.random() for item in items}
        items.sort(key=lambda item: (place[item.path], rng.random()))


@pytest.fixture(scope="session", autouse=True)
def _removes_the_prefect_home() -> Iterator[None]:
    """After the last test, if one has started a program that needs it."""
    yield
    remove_prefect_home()
