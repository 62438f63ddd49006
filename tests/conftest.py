"""Order of all tests, which cases are nightly, the end of what tests share, and profiles of property tests.

Modules of this folder can be imported by all. Of the profiles `quick` is the default; `make nightly` runs the
files `test_*_properties.py` with `deep`, as does `pytest --hypothesis-profile deep FILE`; an example that
fails is printed with the line that repeats it.
"""

import gc
import random
from collections.abc import Iterator

import pytest
from forked_programs import remove_prefect_home
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

_ALWAYS = settings(
    deadline=None,  # times belong into benchmarks
    database=None,  # examples of one run do not change the next, and leave no folder
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

settings.register_profile("quick", _ALWAYS, max_examples=12, derandomize=True)
settings.register_profile("deep", _ALWAYS, max_examples=1_000, print_blob=True)
settings.load_profile("quick")

gc.disable()  # until all modules are imported, none of which goes away


class FilesAndGroups(LoadGroupScheduling):
    """Keeps the tests of a file on one worker, as it does groups, so that set-ups of a file are made once.

    Groups come first, since they are few tests that take long.
    """

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if group := next((name for name in self.workqueue if not name.endswith(".py")), None):
            self.workqueue.move_to_end(group, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling | None:
    """Keep files together, too, with `--dist loadgroup`."""
    return FilesAndGroups(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--shuffle SEED`."""
    parser.addoption("--shuffle", type=int, help="run files, and their tests, in an order drawn by a seed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the cases that `nightly_cases` names as nightly; shuffle files, and the tests of each."""
    for item in items:
        named, case = item.get_closest_marker("nightly_cases"), getattr(item, "callspec", None)
        if named and case and case.id in named.args:
            item.add_marker("nightly")
    if (seed := config.getoption("shuffle")) is not None:
        rng = random.Random(seed)
        place = {item.path: rng.random() for item in items}
        items.sort(key=lambda item: (place[item.path], rng.random()))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collection, which else looks through all of it many times."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _removes_the_prefect_home() -> Iterator[None]:
    """After the last test, if one has started a program that needs it."""
    yield
    remove_prefect_home()
