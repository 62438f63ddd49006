"""Streams of simulations that other processes compute ahead: the same to the bit, errors in their place,
nothing left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing

import numpy as np
import psutil
import pytest

from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.ragged import same_bits
from sbi_models.simulators import FailurePolicy, Simulator, background, make_simulator, worker_pool
from sbi_models.simulators.table import Table

RANGES = [(24, 40), (40, 56), (56, 63), (63, 80)]


def prior():
    return {"theta": np.random.normal(size=2)}


def likelihood(theta):
    return {"x": np.random.normal(theta[0], 1.0, size=(5, 1)).astype("float32"), "k": np.random.randint(9)}


def sometimes(rng):
    if rng.uniform() < 0.5:
        raise ArithmeticError("too stiff")
    return {"y": rng.normal()}


SHIFT = 0.0


def shifted(rng):
    return {"x": rng.normal() + SHIFT}


def batched(batch_shape, rng):
    return {"theta": rng.normal(size=(*batch_shape, 2))}


LARGE = np.arange(200_000.0)


def meta(rng):
    return {"n": rng.integers(2, 9)}


SIMULATORS = {
    "global state": make_simulator([prior, likelihood]),
    "batched": make_simulator(
        [batched, lambda theta, rng: {"x": theta + rng.normal(size=theta.shape)}],
        is_batched=True,
        block_size=7,
    ),
    "meta": make_simulator([prior, lambda theta, n: {"x": np.random.normal(size=(n, 2))}], meta_fn=meta),
    "retries": make_simulator([prior, sometimes], failures=FailurePolicy(retries=2, allowed=1.0)),
    "large array": make_simulator([prior, lambda theta: {"x": theta + LARGE[-2:]}]),
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Others are started for any work, tried with the first block, and waited for, so that short streams show
    what long ones do."""
    monkeypatch.setattr(background, "_TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(background, "_WORTHWHILE_SECONDS", 0.0)
    monkeypatch.setattr(background, "_PATIENCE", 60.0)
    monkeypatch.setattr(worker_pool, "cores", lambda: 2)


@pytest.fixture
def here(monkeypatch):
    """The blocks that this process computes."""
    indices, plain = [], Table.block
    monkeypatch.setattr(Table, "block", lambda self, index: indices.append(index) or plain(self, index))
    return indices


def same(a, b):
    for one, other in zip(a, b, strict=True):
        assert list(one) == list(other)
        for key in one:
            assert same_bits(one[key], other[key]), key


def plain(simulator, ranges=RANGES, seed=1):
    return [simulator.rows(start, stop, seed=seed) for start, stop in ranges]


def drawn(simulator, workers=None, ranges=RANGES, seed=1):
    return list(simulator.stream(ranges, seed=seed, workers=workers))


@pytest.mark.parametrize("workers", [1, None, 2])
@pytest.mark.parametrize("name", SIMULATORS)
def test_a_stream_is_rows_to_the_bit(name, workers, here):
    """Ranges from this process, one other and two others are those of `rows`, with its report; others compute
    all but the first block."""
    simulator = SIMULATORS[name]
    expected, report = plain(simulator), simulator.last_report
    here.clear()
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    same(drawn(simulator, workers), expected)
    assert simulator.last_report == report
    blocks = sum(
        len(range(start // simulator.block_size, -(-stop // simulator.block_size))) for start, stop in RANGES
    )
    # A block is tried in other processes and found right after the next one was begun here.
    assert len(here) == (blocks if workers == 1 else 2)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("pieces", [0.0, 1e-9])
def test_the_size_of_pieces_changes_nothing(pieces, monkeypatch):
    """Chunks sent block by block are the same as chunks sent whole."""
    monkeypatch.setattr(background, "_PIECE_SECONDS", pieces or 1e9)
    same(drawn(SIMULATORS["global state"], 2), plain(SIMULATORS["global state"]))


@pytest.mark.nightly
def test_this_process_computes_until_others_are_ready(monkeypatch, here):
    """Without patience this process does not wait for others to start, and they take over in the middle once
    they are there."""
    monkeypatch.setattr(background, "_PATIENCE", 0.0)
    monkeypatch.setattr(worker_pool, "_idle", [])
    simulator = make_simulator([prior, lambda theta: time.sleep(0.001) or likelihood(theta)])
    ranges = [(16 * k, 16 * k + 16) for k in range(120)]
    expected = plain(simulator, ranges)
    here.clear()
    same(drawn(simulator, ranges=ranges), expected)
    assert here[:20] == list(range(20))
    assert len(here) < 1920
    for _, _, executor, _ in worker_pool._idle:
        executor.shutdown(kill_workers=True)


def test_little_work_starts_no_process(monkeypatch):
    """With less than two seconds left to do, nobody is started unasked; nor is anybody in a process that is
    itself a worker."""
    monkeypatch.setattr(worker_pool, "WorkerPool", lambda *_: pytest.fail("processes are started"))
    with monkeypatch.context() as patch:
        patch.setattr(background, "_WORTHWHILE_SECONDS", 2.0)
        same(drawn(SIMULATORS["global state"]), plain(SIMULATORS["global state"]))
    monkeypatch.setattr(background.multiprocessing.current_process(), "_config", {}, raising=False)
    monkeypatch.setattr(background.multiprocessing.current_process(), "_name", "LokyProcess-1")
    same(drawn(SIMULATORS["global state"]), plain(SIMULATORS["global state"]))


def test_work_goes_ahead_by_a_few_chunks(monkeypatch):
    """Of a thousand chunks no more than a few are sent before the first is used."""
    monkeypatch.setattr(background, "_PATIENCE", 60.0)  # on a busy machine workers may be late
    sent, plain_submit = [], worker_pool.WorkerPool.submit
    monkeypatch.setattr(
        worker_pool.WorkerPool, "submit", lambda self, *task: sent.append(task) or plain_submit(self, *task)
    )
    with closing(
        SIMULATORS["global state"].stream([(16 * k, 16 * k + 16) for k in range(1000)], seed=0, workers=2)
    ) as stream:
        for used in range(1, 20):
            next(stream)
            assert 2 <= len(sent) <= used + 6


def processes(number):
    return {
        pid for _, count, executor, _ in worker_pool._idle if count == number for pid in executor._processes
    }


def test_workers_are_used_again():
    """The second stream, of other functions, finds the processes of the first, also if that was left before
    its end."""
    drawn(SIMULATORS["batched"], 2)
    before = processes(2)
    with closing(SIMULATORS["meta"].stream([(k, k + 1) for k in range(999)], seed=0, workers=2)) as stream:
        next(stream)
    same(drawn(SIMULATORS["global state"], 2), plain(SIMULATORS["global state"]))
    assert len(before) >= 2
    assert processes(2) == before


def test_functions_that_differ_elsewhere_stay_here(caplog, monkeypatch, here):
    """A module changed after its import has other values in a worker: one warning names the variable, and
    rows are those of `rows`."""
    monkeypatch.setattr(sys.modules[__name__], "SHIFT", 1.0)
    simulator = make_simulator(shifted)
    expected = plain(simulator)
    here.clear()
    same(drawn(simulator, 2), expected)
    same(drawn(simulator, 2), expected)
    assert len(here) == 2 * 56
    assert len(caplog.messages) == 1
    assert "values of 'x' differ there from what they are here" in caplog.text
    assert "workers=1" in caplog.text


def test_functions_that_cannot_be_sent_stay_here(caplog):
    """A lock in a closure: one warning names the function, and rows are those of `rows`."""
    lock = threading.Lock()

    def locked(theta):
        with lock:
            return {"x": theta}

    simulator = make_simulator([prior, locked])
    for workers in (None, 2):
        same(drawn(simulator, workers), plain(simulator))
    assert len(caplog.messages) == 1
    assert "'locked' cannot be pickled" in caplog.text


def test_a_subclass_with_rows_of_its_own_is_heard():
    """Overridden rows, and rows put onto an instance, are what a stream is made of, whatever the number of
    workers."""

    class Doubled(Simulator):
        def rows(self, start, stop, **arguments):
            return {name: 2 * value for name, value in super().rows(start, stop, **arguments).items()}

    doubled, patched = Doubled([prior]), make_simulator(prior)
    patched.rows = lambda start, stop, **_: {"theta": np.arange(start, stop)}
    for workers in (None, 1, 2):
        same(drawn(doubled, workers), [{"theta": 2 * rows["theta"]} for rows in plain(make_simulator(prior))])
        same(drawn(patched, workers), [{"theta": np.arange(*pair)} for pair in RANGES])
        assert not Doubled([batched], is_batched=True).suits_a_thread


def test_what_suits_a_thread():
    """Batched functions with rng do; rows one by one, NumPy's global state and torch's, which all threads
    share, do not."""
    torch = pytest.importorskip("torch")
    assert SIMULATORS["batched"].suits_a_thread
    assert not SIMULATORS["retries"].suits_a_thread
    assert not make_simulator(
        lambda batch_size: {"x": np.random.normal(size=batch_size)}, is_batched=True
    ).suits_a_thread
    assert not make_simulator(
        [{"theta": torch.distributions.Normal(0.0, 1.0)}], is_batched=True
    ).suits_a_thread


# --- errors


def fails_at_50(rng):
    draw = rng.normal()
    if draw == _DRAW_50:
        raise ArithmeticError("too stiff")
    return {"x": draw}


_DRAW_50 = make_simulator(lambda rng: {"x": rng.normal()}).rows(50, 51, seed=1)["x"].item()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_comes_at_its_place(workers):
    """The range before that of the failing row is delivered, then the error that `rows` raises, with what the
    function raised."""
    simulator = make_simulator(fails_at_50)
    stream = simulator.stream(RANGES, seed=1, workers=workers)
    same([next(stream)], plain(simulator, RANGES[:1]))
    with pytest.raises(SimulationError) as caught:
        next(stream)
    with pytest.raises(SimulationError) as expected:
        simulator.rows(*RANGES[1], seed=1)
    assert str(caught.value) == str(expected.value)
    assert "row 50 of seed 1" in str(caught.value)
    assert type(caught.value.__cause__) is ArithmeticError


def test_a_worker_that_dies_is_an_error_and_the_next_stream_works():
    """os._exit in a function is a SimulationError with a cure, at its range or before, and new workers take
    over afterwards."""
    parent = os.getpid()

    def dies_at_50(rng):
        draw = rng.normal()
        if draw == _DRAW_50 and os.getpid() != parent:
            os._exit(1)
        return {"x": draw}

    got = []
    with pytest.raises(SimulationError, match=r"worker process died.*ran out of memory.*workers=1"):
        got.extend(make_simulator(dies_at_50).stream(RANGES, seed=1, workers=2))
    assert len(got) <= 1
    same(drawn(SIMULATORS["global state"], 2), plain(SIMULATORS["global state"]))


@pytest.mark.parametrize("workers", [0, -2, 1.5, True])
def test_bad_numbers_of_workers_are_refused(workers):
    """Anything but a positive integer, -1 or None is refused."""
    with pytest.raises(ConfigurationError, match="Expected workers as a positive integer"):
        drawn(SIMULATORS["global state"], workers)


SCRIPT = textwrap.dedent(
    """
    import os, time
    from sbi_models.simulators import background, make_simulator

    background._PATIENCE, parent = 60.0, os.getpid()

    def slow_elsewhere(x):
        if os.getpid() != parent:
            time.sleep(60.0)
        return {}

    def fast(rng):
        return {"x": rng.normal()}

    list(make_simulator(fast).stream([(0, 100), (100, 200)], seed=0, workers=2))
    print("started", flush=True)
    NEXT
    """
)
ENDS = {
    "at the end": ("", None, 0),
    "left": (
        "s = make_simulator(fast).stream([(k, k + 1) for k in range(999)], seed=0, workers=2); "
        "next(s); next(s)",
        None,
        0,
    ),
    "Ctrl-C": (
        "list(make_simulator([fast, slow_elsewhere]).stream([(0, 9)], seed=0, workers=2))",
        signal.SIGINT,
        1,
    ),
    "killed": (
        "list(make_simulator([fast, slow_elsewhere]).stream([(0, 9)], seed=0, workers=2))",
        signal.SIGKILL,
        -9,
    ),
}


@pytest.mark.nightly_cases("at the end", "left", "killed")
@pytest.mark.parametrize("how", ENDS)
def test_a_script_leaves_nothing_behind(how, tmp_path):
    """Ended, left in the middle, stopped with Ctrl-C or killed, a script ends at once, and its workers with
    it."""
    line, sent, code = ENDS[how]
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.replace("NEXT", line))
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    script = subprocess.Popen(
        [sys.executable, str(path)],
        env=os.environ | {"PYTHONPATH": folder, "TMPDIR": str(temporary)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout.readline() == "started\n"
    workers = psutil.Process(script.pid).children(recursive=True)
    assert len(workers) >= 2
    if sent is not None:
        time.sleep(0.3)
        os.killpg(script.pid, sent) if sent == signal.SIGINT else script.send_signal(sent)
    _, errors = script.communicate(timeout=20)
    assert script.returncode in (code, -signal.SIGINT if sent == signal.SIGINT else code), errors
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    assert how == "killed" or list(temporary.iterdir()) == []
