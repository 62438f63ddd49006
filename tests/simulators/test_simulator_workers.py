"""Worker processes: the same draws to the bit, clear errors, and nothing left behind."""

import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from functools import partial

import numpy as np
import psutil
import pytest

from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.ragged import same_bits
from sbi_models.simulators import FailurePolicy, make_simulator, pool, simulator
from sbi_models.simulators.table import Table


def prior(rng):
    return {"theta": rng.normal(size=2)}


def global_likelihood(theta):
    return {"x": np.random.normal(theta[0], 1.0, size=(3, 1)).astype("float32"), "k": np.random.randint(9)}


def batched(batch_shape, rng):
    return {"theta": rng.normal(size=(*batch_shape, 2))}


class Offset:
    """A callable object that writes to an array of its own, more than a megabyte of it."""

    def __init__(self):
        self.work = np.arange(200_000.0)

    def __call__(self, theta):
        self.work[:2] = theta
        return {"x": self.work[:3] + self.work[-1]}


def closure(scale):
    def likelihood(theta, rng):
        return {"x": scale * theta + rng.normal(size=2)}

    return likelihood


def sometimes(rng):
    if rng.uniform() < 0.5:
        raise ArithmeticError("too stiff")
    return {"y": rng.normal()}


SIMULATORS = {
    "rng": make_simulator([prior, closure(2.0)]),
    "global state": make_simulator([lambda: {"theta": np.random.normal(size=2)}, global_likelihood]),
    "lambda and partial": make_simulator(
        [prior, partial(lambda theta, rng, by: {"x": by * theta + rng.normal()}, by=3)]
    ),
    "object with a large array": make_simulator([prior, Offset()]),
    "batched": make_simulator(
        [batched, lambda theta, rng: {"x": theta + rng.normal(size=theta.shape)}],
        is_batched=True,
        block_size=7,
    ),
    "batched, global state": make_simulator(
        lambda batch_size: {"theta": np.random.normal(size=(batch_size, 2))}, is_batched=True, block_size=5
    ),
    "meta": make_simulator(
        [prior, lambda theta, n, rng: {"x": rng.normal(size=(n, 2))}],
        meta_fn=lambda: {"n": np.random.randint(2, 9)},
    ),
    "retries": make_simulator([prior, sometimes], failures=FailurePolicy(retries=2, allowed=1.0)),
}


def same(a, b):
    assert list(a) == list(b)
    for key in a:
        assert same_bits(a[key], b[key]), key


@pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS)
def test_workers_do_not_change_a_bit(simulator):
    """sample and rows with worker processes equal those without, in values, order, dtypes, and the report of
    failures."""
    here = simulator.sample(40, seed=1)
    report = simulator.last_report
    same(simulator.sample(40, seed=1, workers=2), here)
    assert simulator.last_report == report
    same(simulator.rows(3, 31, seed=2, workers=2), simulator.rows(3, 31, seed=2))


def test_the_number_of_workers_does_not_matter():
    """Three workers, as many as there are cores, and more than there are blocks give what one process
    gives."""
    for name in ("global state", "batched"):
        for n, workers in ((15, 3), (15, -1), (3, 64)):
            same(SIMULATORS[name].sample(n, seed=1, workers=workers), SIMULATORS[name].sample(n, seed=1))


def test_fixed_values_reach_the_workers():
    """One value a row, in two batch axes, is the same with workers."""
    theta = np.arange(12.0).reshape(2, 3, 2)
    simulator = SIMULATORS["rng"]
    same(
        simulator.sample((2, 3), seed=3, workers=2, theta=theta),
        simulator.sample((2, 3), seed=3, theta=theta),
    )


def test_work_is_done_elsewhere_by_several_with_one_thread_each():
    """Rows come from as many other processes as asked for, whose linear algebra has one thread; this one's
    global state stays."""

    def where():
        time.sleep(0.02)
        return {"process": os.getpid(), "threads": int(os.environ["OMP_NUM_THREADS"])}

    np.random.seed(5)
    expected = np.random.normal(size=4)
    np.random.seed(5)
    drawn = make_simulator(where).sample(60, seed=0, workers=2)
    np.testing.assert_array_equal(np.random.normal(size=4), expected)
    processes = set(drawn["process"].ravel().tolist())
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert set(drawn["threads"].ravel().tolist()) == {1}
    alone = make_simulator(where).sample(3, seed=0, workers=1)["process"]
    assert set(alone.ravel().tolist()) == {os.getpid()}


def test_progress_moves_while_workers_work(monkeypatch):
    """The bar advances row by row as blocks are finished, up to all of them, long before the end."""
    steps = []

    class Bar:
        def __enter__(self):
            return lambda steps_done: steps.append((time.monotonic(), steps_done))

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(simulator, "progress_bar", lambda *_args, **_keywords: Bar())

    def slow(rng):
        time.sleep(0.1)
        return {"x": rng.normal()}

    make_simulator(slow).sample(12, seed=0, workers=2)
    assert sum(done for _, done in steps) == 12
    assert steps[-1][0] - steps[0][0] > 0.3


def test_a_worker_that_dies_is_an_error_and_the_next_call_works():
    """os._exit in a function is a SimulationError with a cure, not a hang; new workers take over
    afterwards."""

    def dies(theta):
        os._exit(1)

    with pytest.raises(SimulationError, match=r"worker process died.*ran out of memory.*workers=None"):
        make_simulator([prior, dies]).sample(8, seed=0, workers=2)
    same(SIMULATORS["rng"].sample(8, seed=0, workers=2), SIMULATORS["rng"].sample(8, seed=0))


class _NotAlone(Exception):
    """An exception that cannot be rebuilt from its args, as some libraries raise."""

    def __init__(self, code, place):
        super().__init__(f"code {code} at {place}")


def raises_known(theta, rng):
    raise ValueError("no convergence")


def raises_unpicklable(theta, rng):
    raise _NotAlone(3, "t=0.1")


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (raises_known, ValueError, "ValueError: no convergence"),
        (raises_unpicklable, RuntimeError, "_NotAlone: code 3 at t=0.1"),
    ],
)
def test_an_exception_in_a_worker_is_chained_with_its_traceback(function, kind, text):
    """The SimulationError names function and cause; chained to it is the exception, or a plain one of its
    text, with the worker's lines."""
    with pytest.raises(SimulationError, match=text) as caught:
        make_simulator([prior, function]).sample(8, seed=0, workers=2)
    assert type(caught.value.__cause__) is kind
    assert f"in {function.__name__}" in "".join(caught.value.__cause__.__notes__)


def test_errors_of_use_are_what_they_are_without_workers():
    """A missing argument, ragged outputs and unknown fixed values are the same errors with workers."""
    with pytest.raises(ConfigurationError, match="takes 'thta'"):
        make_simulator([prior, lambda thta: {"x": thta}]).sample(4, seed=0, workers=2)
    with pytest.raises(SimulationError, match="of one shape"):
        make_simulator(lambda rng: {"x": np.zeros(rng.integers(1, 9))}).sample(20, seed=0, workers=2)
    with pytest.raises(ConfigurationError, match="No function returns 'thta'"):
        make_simulator(prior).sample(4, seed=0, workers=2, thta=1.0)


def test_functions_that_cannot_be_sent_are_refused_before_work_starts(monkeypatch):
    """A lock in a closure: a ConfigurationError that names the function and the cure; no block is
    computed."""
    lock = threading.Lock()

    def locked(theta):
        with lock:
            return {"x": theta}

    monkeypatch.setattr(Table, "block", lambda *_: pytest.fail("work has started"))
    with pytest.raises(
        ConfigurationError,
        match=r"'locked' cannot be pickled: .*lock.*inside the function, or use workers=None",
    ):
        make_simulator([prior, locked]).sample(4, seed=0, workers=2)


@pytest.mark.parametrize("workers", [0, -2, 1.5, "2", True])
def test_bad_numbers_of_workers_are_refused(workers):
    """Anything but a positive integer, -1 or None is refused."""
    with pytest.raises(ConfigurationError, match="Expected workers as a positive integer"):
        make_simulator(prior).sample(4, seed=0, workers=workers)


SCRIPT = textwrap.dedent(
    """
    import time
    import sbi_models as bf

    NAP = 60.0

    class Settings:
        shift = 3.0

    def prior(rng):
        return {"theta": rng.normal(size=2)}

    def fast(theta):
        return {"x": theta + Settings.shift}

    def slow(theta):
        time.sleep(NAP)
        return {"x": theta}

    drawn = bf.make_simulator([prior, fast]).sample(6, seed=0, workers=2)
    assert (drawn["x"] == drawn["theta"] + 3.0).all()
    print("started", flush=True)
    bf.make_simulator([prior, slow]).sample(10, seed=0, workers=2, progress=False)
    """
)


@pytest.mark.nightly_cases("interrupted alone", "killed")
@pytest.mark.parametrize("how", ["Ctrl-C", "interrupted alone", "killed"])
# Seconds: the script and its workers import the package.
def test_a_script_that_is_stopped_leaves_nothing_behind(how, tmp_path):
    """Functions and classes of a script's __main__ work; a signal ends main process and workers at once,
    though rows take a minute."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = subprocess.Popen(
        [sys.executable, str(path)],
        env=os.environ | {"PYTHONPATH": folder},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout.readline() == "started\n"
    time.sleep(0.3)
    workers = psutil.Process(script.pid).children(recursive=True)
    assert len([worker for worker in workers if "LokyProcess" in " ".join(worker.cmdline())]) == 2
    if how == "Ctrl-C":
        os.killpg(script.pid, signal.SIGINT)
    else:
        script.send_signal(signal.SIGINT if how == "interrupted alone" else signal.SIGKILL)
    _, errors = script.communicate(timeout=20)
    assert script.returncode in (1, -signal.SIGINT, -signal.SIGKILL)
    assert how == "killed" or errors.rstrip().endswith("KeyboardInterrupt")
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def test_a_worker_ends_with_the_process_that_started_it_unless_it_is_told_not_to(monkeypatch):
    """The first table that a worker loads makes it watch its parent, a later one not again."""
    watched = []
    monkeypatch.setattr(pool, "follow", watched.append)
    table = make_simulator(prior)._table(0, 0, 3)
    for options, expected in (({}, [os.getppid()]), ({"follows": False}, [])):
        monkeypatch.setattr(pool, "_loaded", ("", None))
        watched.clear()
        for token in ("a", "a", "b"):
            assert pool.loaded(token, lambda: pool.pickled_table(table), **options).seed == 0
        assert watched == expected


def test_blocks_that_nobody_asks_for_any_more_are_cut_short(monkeypatch):
    """A caller that stops early closes the work of the processes, and hears no warning of it."""
    made = []

    def parallel(**options):
        def work(calls):
            function, arguments, _ = next(calls)
            try:
                yield function(*arguments)
                yield from ()
            finally:
                warnings.warn("work is cut short", stacklevel=1)

        def start(calls):
            made.append(work(calls))
            return made[-1]

        return start

    monkeypatch.setattr(pool.joblib, "Parallel", parallel)
    monkeypatch.setattr(pool, "_loaded", ("kept", None))
    blocks = pool.in_processes(make_simulator(prior)._table(0, 0, 3), 2, twice=False)
    next(blocks)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        blocks.close()
    assert inspect.getgeneratorstate(made[0]) == inspect.GEN_CLOSED
    assert not told
