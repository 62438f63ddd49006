"""Tests run in forks of a process that has the libraries: which lines each executes, and whether it passes.

A copy of the project stands in the place of the checkout, so that processes that a test starts see the edit.
"""

import compileall
import contextlib
import functools
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from types import CodeType, FrameType
from typing import Any

import pytest

OPTIONS = ("--quiet", "--assert=plain", "--durations=0")
OPTIONS += tuple(
    word
    for name in ("cacheprovider", "xdist", "anyio", "unraisableexception")
    for word in ("-p", f"no:{name}")
)
"""Of pytest: assertions are not rewritten, since that takes longer than most tests."""

CHECKED_HASH = PycInvalidationMode.CHECKED_HASH
"""Of compiled files: an edit in the second of the original, of the same size, has its time stamp, too."""


@contextlib.contextmanager
def copied(project: Path) -> Iterator[Path]:
    """A copy of the files of a checkout that Git knows or does not ignore, for as long as it is used."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=project,
        capture_output=True,
        check=True,
    ).stdout.decode()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder).resolve() / "project"
        for name in filter(None, names.split("\0")):
            if (project / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project / name, root / name)
        for part in ("sbi_models", "tests"):
            compileall.compile_dir(root / part, quiet=1, invalidation_mode=CHECKED_HASH)
        yield root


@dataclass(frozen=True)
class Ended:
    """How a run of tests ended.

    Attributes:
        word: "passed", "failed", "timeout", or "died", of which nothing is known.
        detail: the first test that failed, and its error.
        seconds: what the run took.
    """

    word: str
    detail: str
    seconds: float


def in_fork(root: Path, run: Callable[[], str], limit: float) -> Ended:
    """Run a function in a fork of this process, in a copy of the project that comes first on the path.

    Args:
        root: the copy.
        run: function that returns the detail of a failure, "" if there is none.
        limit: seconds after which the fork and all that it has started is killed.
    """
    started = time.monotonic()
    report = root.parent / "report.txt"
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _become(root)
        try:
            report.write_text(run())
        except BaseException:  # noqa: BLE001 - it is in the log, and without a report nothing is judged
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0)
    try:
        while (ended := os.waitpid(child, os.WNOHANG)[0]) == 0 and time.monotonic() - started < limit:
            time.sleep(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
    seconds = time.monotonic() - started
    if not ended:
        return Ended("timeout", f"after {limit:.0f} s", seconds)
    if not report.exists():
        return Ended("died", "without a report", seconds)
    detail = report.read_text()
    return Ended("failed" if detail else "passed", detail, seconds)


def _become(root: Path) -> None:
    """Make this process one that was started in a folder, in a group of its own, and is silent."""
    os.setpgid(0, 0)
    os.chdir(root)
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    here = str(Path(__file__).parent)
    sys.path[:] = [str(root), *(p for p in sys.path if p not in {here, "", str(Path(here).parent)})]
    log = os.open(root.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)


def preload(names: Sequence[str]) -> None:
    """Import libraries that forks then have."""
    for name in names:
        importlib.import_module(name)
    gc.freeze()


def first_failure(tests: Sequence[str], longest: float) -> str:
    """The first of some tests that fails, with its error; "" if all pass.

    Args:
        tests: node ids, in the order in which they are run.
        longest: CPU seconds that one test may take.
    """
    chosen = _Chosen(tests)
    files = dict.fromkeys(test.split("::")[0] for test in tests)
    code = pytest.main([*OPTIONS, "-x", *files], plugins=[chosen, _Limit(longest)])
    if chosen.failure or code == pytest.ExitCode.OK:
        return chosen.failure
    return f"pytest ended with {code!r}"


class _Chosen:
    """Plugin that runs some tests only, in their order, and keeps the first failure."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.place = {test: place for place, test in enumerate(tests)}
        self.failure = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.place), key=lambda item: self.place[item.nodeid]
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._keep(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._keep(report)

    def _keep(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.failed and not self.failure:
            crash = getattr(report.longrepr, "reprcrash", None)
            error = crash.message if crash else str(report.longrepr)[-300:]
            self.failure = f"{report.nodeid}: {' '.join(error.split())[:200]}"


class _Limit:
    """Plugin that fails a test that takes too much CPU time, however busy the machine is.

    Args:
        seconds: CPU seconds that a test may take.
        stops_at: CPU seconds after which it is stopped, `seconds` by default. A test that is stopped may
            leave behind what later ones stumble over, such as a database in the middle of a change.
    """

    def __init__(self, seconds: float, stops_at: float | None = None) -> None:
        self.seconds, self.slow, self.current = seconds, set[str](), ""
        self.stops_at = seconds if stops_at is None else stops_at

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "xdist_group: of a plugin that is not loaded here")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.current = item.nodeid
        signal.signal(signal.SIGPROF, self._fail)
        signal.setitimer(signal.ITIMER_PROF, self.stops_at)
        started = time.process_time()
        yield
        signal.setitimer(signal.ITIMER_PROF, 0)
        if time.process_time() - started > self.seconds:
            self.slow.add(item.nodeid)

    def _fail(self, _number: int, frame: FrameType | None) -> None:
        self.slow.add(self.current)
        while frame:
            if "importlib" in frame.f_code.co_filename:  # half a module would stay
                signal.setitimer(signal.ITIMER_PROF, 0.1)
                return
            frame = frame.f_back
        pytest.fail(f"Timeout of {self.stops_at:.0f} CPU seconds")


def _spent() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def observe(paths: Sequence[str], root: Path, output: Path, longest: float) -> str:
    """Write which lines of the package each test executes; returns the tests that fail, "" if there are none.

    A test has the lines and the time of the fixtures that it shares, too. One that takes more than `longest`
    CPU seconds is left out, and comes to its end, for the sake of those that share something with it.
    """
    limit = _Limit(longest, stops_at=20 * longest)
    watcher = _Watcher(str(root / "sbi_models"), str(root / "tests"), limit)
    with watcher.caches():
        pytest.main([*OPTIONS, *paths], plugins=[watcher, limit])
    output.write_text(json.dumps(watcher.tests()))
    return "\n".join(watcher.failures)


Line = tuple[str, int]

CALLS = 100
"""Calls of a function in one test of which the lines are noted."""


class _Watcher:
    """Plugin that notes the lines that are executed in each test, fixture and cached function."""

    def __init__(self, package: str, tests: str, limit: _Limit) -> None:
        self.package, self.own, self.slow = package, (package, tests), limit.slow
        self.stack: list[set[Line]] = [set()]
        self.calls: Counter[CodeType] = Counter()
        self.shared: dict[int, tuple[set[Line], float]] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.failures: list[str] = []

    def _trace(self, frame: FrameType, event: str, _arg: Any) -> Any:
        """The tracer of the lines of a call; none of a function that was called often."""
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        self.calls[frame.f_code] += 1
        return self._line if self.calls[frame.f_code] <= CALLS else None

    def _line(self, frame: FrameType, event: str, _arg: Any) -> Any:
        self.stack[-1].add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    @contextlib.contextmanager
    def _noting(self, lines: set[Line]) -> Iterator[None]:
        self.stack.append(lines)
        self.calls.clear()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            self.stack.pop()
            self.calls.clear()
            if len(self.stack) == 1:
                sys.settrace(None)
                threading.settrace(None)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        lines: set[Line] = set()
        self.results[item.nodeid] = {"lines": lines, "item": item, "started": _spent(), "within": 0.0}
        self.current = self.results[item.nodeid]
        with self._noting(lines):
            yield
        self.current["seconds"] = _spent() - self.current["started"] - self.current["within"]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[None]:
        if fixturedef.scope == "function":
            yield
            return
        lines, seconds = self.shared.get(id(fixturedef), (set(), 0.0))
        started, before = _spent(), self.current["within"]
        with self._noting(lines):
            yield
        took = _spent() - started
        self.current["within"] = before + took
        self.shared[id(fixturedef)] = (lines, max(seconds, took))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.slow:
            self.failures.append(f"{report.nodeid} ({report.when}): {str(report.longrepr)[-300:]}")
        elif report.skipped:
            self.slow.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failures.append(f"{report.nodeid}: {str(report.longrepr)[-300:]}")

    @contextlib.contextmanager
    def caches(self) -> Iterator[None]:
        """While it is open, cached functions of tests and package give their lines to all callers."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("cache", "lru_cache"):
                patch.setattr(functools, name, self._noted_cache(getattr(functools, name)))
            yield

    def _noted_cache(self, decorator: Callable[..., Any]) -> Callable[..., Any]:
        def decorate(*arguments: Any, **keywords: Any) -> Any:
            if arguments and callable(arguments[0]):
                return self._noted(decorator(*arguments, **keywords), arguments[0])
            made = decorator(*arguments, **keywords)
            return lambda function: self._noted(made(function), function)

        return decorate

    def _noted(self, cached: Any, function: Callable[..., Any]) -> Any:
        if not getattr(function, "__code__", _NoCode).co_filename.startswith(self.own):
            return cached
        lines: set[Line] = set()

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            if len(self.stack) == 1:
                return cached(*arguments, **keywords)
            with self._noting(lines):
                result = cached(*arguments, **keywords)
            self.stack[-1].update(lines)
            return result

        call.cache_info, call.cache_clear = cached.cache_info, cached.cache_clear
        return call

    def tests(self) -> dict[str, Any]:
        """For each test: seconds, seconds of shared fixtures, and lines of each file."""
        found = {}
        for name, result in self.results.items():
            if name in self.slow or "seconds" not in result:
                continue
            lines, shared = set(result["lines"]), 0.0
            info = getattr(result["item"], "_fixtureinfo", None)
            for definitions in info.name2fixturedefs.values() if info else ():
                for definition in definitions:
                    more, seconds = self.shared.get(id(definition), (set(), 0.0))
                    lines |= more
                    shared += seconds
            by_file: dict[str, list[int]] = {}
            for file, line in sorted(lines):
                by_file.setdefault(str(Path(file).relative_to(Path(self.package).parent)), []).append(line)
            found[name] = {"seconds": result["seconds"], "shared": shared, "lines": by_file}
        return found


class _NoCode:
    """What stands for the code of a callable that is not a Python function."""

    co_filename = ""
