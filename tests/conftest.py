"""Any order of the tests, and the end of what they share; modules of this folder can be imported by all."""

import random
from collections.abc import Iterator

import pytest
from forked_programs import remove_prefect_home


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--shuffle SEED`."""
    parser.addoption("--shuffle", type=int, help="run files, and their tests, in an order drawn by a seed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle the files, and the tests of each, so that set-ups of a file are still made once."""
    if (seed := config.getoption("shuffle")) is not None:
        rng = random.Random(seed)
        place = {item.path: rng.random() for item in items}
        items.sort(key=lambda item: (place[item.path], rng.random()))


@pytest.fixture(scope="session", autouse=True)
def _removes_the_prefect_home() -> Iterator[None]:
    """After the last test, if one has started a program that needs it."""
    yield
    remove_prefect_home()
