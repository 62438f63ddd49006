"""Simulators that misbehave, in rare rows or in all: right rows or an error that says what is wrong, never a
wrong row and never a hang."""

import ctypes
import os
import random
import re
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import psutil
import pytest

from sbi_models.errors import SbiModelsError, SimulationError, TrustWarning
from sbi_models.simulators import FailurePolicy, make_simulator

RARE = 1.2
"""Parameters above it, about one in nine, misbehave."""


class Stop(BaseException):
    """Not an Exception."""


def prior(rng):
    return {"theta": rng.normal(size=2)}


def well(theta, rng):
    return {"x": theta + rng.normal(size=2)}


def rarely(bad):
    """A likelihood that gives something else in rare rows."""

    def likelihood(theta, rng):
        good = well(theta, rng)
        return bad(good["x"]) if theta[0] > RARE else good

    return likelihood


def first(act):
    """A likelihood that does something beside in rare rows, and then gives what it should."""
    return rarely(lambda x: (act(), {"x": x})[1])


def deeper(n=0):
    return deeper(n + 1)


def raise_it(error):
    raise error


def leave_a_thread():
    threading.Thread(target=time.sleep, args=(0.2,)).start()


def generator(theta, rng):
    yield well(theta, rng)


REFUSED = {
    "longer": (
        rarely(lambda x: {"x": np.append(x, 0.0)}),
        r"'x' of one shape, got \(2,\) and \(3,\), in row \d+ and row \d+ of seed 1",
    ),
    "shorter": (rarely(lambda x: {"x": x[:1]}), r"of one shape, got \(1,\) and \(2,\)"),
    "a number": (rarely(lambda x: {"x": float(x[0])}), r"of one shape, got \(\) and \(2,\)"),
    "another rank": (rarely(lambda x: {"x": x[None]}), "of one shape"),
    "empty": (rarely(lambda x: {"x": []}), "of one shape"),
    "a variable less": (
        rarely(lambda x: {}),
        r"the same variables, got 'x' in row \d+ of seed 1 and none in row \d+",
    ),
    "a variable more": (
        rarely(lambda x: {"x": x, "y": 1}),
        r"the same variables, got 'y' in row \d+ of seed 1 and none in row \d+",
    ),
    "another name": (rarely(lambda x: {"X": x}), "the same variables"),
    "None": (rarely(lambda x: None), "must return a dict .*, got NoneType"),
    "an array": (rarely(lambda x: x), "must return a dict .*, got ndarray"),
    "a generator": (generator, "must return a dict .*, got generator"),
    "None as a value": (rarely(lambda x: {"x": None}), "real numbers in 'x'"),
    "a set": (rarely(lambda x: {"x": set(x)}), "real numbers in 'x'"),
    "a generator as a value": (rarely(lambda x: {"x": (value for value in x)}), "real numbers in 'x'"),
    "text": (rarely(lambda x: {"x": [str(value) for value in x]}), "real numbers in 'x'"),
    "complex": (rarely(lambda x: {"x": x + 0j}), "real numbers in 'x'"),
    "masked": (rarely(lambda x: {"x": np.ma.masked_less(x, 99)}), "masked"),
    "ragged": (rarely(lambda x: {"x": [x, x[:1]]}), "ragged"),
    "integers that floats lack": (
        rarely(lambda x: {"x": [2**60 + 1, 0]}),
        "of one type, got float64 and int64, and integers",
    ),
    "sys.exit(0)": (rarely(lambda x: sys.exit(0)), "function 'likelihood' raised SystemExit: 0"),
    "sys.exit(text)": (rarely(lambda x: sys.exit("done")), "raised SystemExit: done"),
    "a BaseException": (rarely(lambda x: raise_it(Stop("now"))), "raised Stop: now"),
    "GeneratorExit": (rarely(lambda x: raise_it(GeneratorExit())), "raised GeneratorExit"),
    "StopIteration": (rarely(lambda x: next(iter(()))), "raised StopIteration"),
    "MemoryError": (rarely(lambda x: raise_it(MemoryError())), "raised MemoryError"),
    "recursion": (rarely(lambda x: deeper()), "raised RecursionError"),
    "changes its argument": (
        lambda theta, rng: {"x": np.multiply(theta, 2, out=theta)},
        "leave its arguments as they are",
    ),
    "a warning that is an error": (
        rarely(lambda x: warnings.warn("odd", stacklevel=1)),
        "raised UserWarning: odd",
    ),
    "names that are one to Python": (
        lambda theta, rng: {"\u00b5": 1.0, "\u03bc": 2.0},
        "names that Python can tell apart",
    ),
    "the same variable again": (lambda theta: {"x": theta, "theta": theta}, "an earlier function returned"),
}

RIGHT = {
    "float32": lambda x: {"x": x.astype(np.float32)},
    "a list": lambda x: {"x": list(x)},
    "an ordered copy": lambda x: {"x": np.asfortranarray(x[::-1])[::-1]},
    "prints megabytes": lambda x: (sys.stdout.write("x" * 3_000_000), {"x": x})[1],
    "another folder": lambda x: (os.chdir("/"), {"x": x})[1],
    "floating point errors": lambda x: (np.seterr(all="raise"), {"x": x})[1],
    "the limit of recursion": lambda x: (sys.setrecursionlimit(5000), {"x": x})[1],
    "standard output": lambda x: (setattr(sys, "stdout", None), {"x": x})[1],
    "global states": lambda x: (np.random.seed(0), random.seed(0), {"x": x})[2],
    "draws from global states": lambda x: (np.random.normal(), random.random(), {"x": x})[2],
    "a thread": lambda x: (leave_a_thread(), {"x": x})[1],
}


@pytest.mark.parametrize(("likelihood", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused(likelihood, words):
    """Of 60 rows about seven misbehave: an error names what is wrong, with the row where there is one."""
    with pytest.raises(SbiModelsError, match=words):
        make_simulator([prior, likelihood]).sample(60, seed=1)


@pytest.mark.parametrize("likelihood", RIGHT.values(), ids=RIGHT)
def test_what_does_no_harm_leaves_rows_and_process_as_they_are(likelihood, capsys):
    """Rows are those of the function that behaves, and folder, states, streams and settings of the process
    are as before."""
    before = (
        os.getcwd(),
        np.geterr(),
        sys.getrecursionlimit(),
        sys.stdout,
        str(np.random.get_state()),
        random.getstate(),
    )
    drawn = make_simulator([prior, rarely(likelihood)]).sample(60, seed=1)
    assert (
        os.getcwd(),
        np.geterr(),
        sys.getrecursionlimit(),
        sys.stdout,
        str(np.random.get_state()),
        random.getstate(),
    ) == before
    expected = make_simulator([prior, well]).sample(60, seed=1)["x"]
    assert (expected[:, 0] != 0).all()
    np.testing.assert_array_equal(drawn["x"].astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize(
    "seeds",
    [lambda: np.random.seed(7), lambda: random.seed(7), lambda: (np.random.seed(7), np.random.normal())],
    ids=["NumPy", "random", "both"],
)
def test_a_function_that_seeds_global_states_is_told(seeds):
    """Noise that is the same in every simulation is a warning, once in the life of a simulator, though each
    row repeats."""

    def likelihood(theta):
        seeds()
        return {"x": theta + np.random.normal() + random.random()}

    simulator = make_simulator([prior, likelihood])
    with pytest.warns(TrustWarning, match="with the same number in every simulation"):
        simulator.sample(5, seed=1)
    simulator.sample(5, seed=1)


HANGS = {
    "sleeps": lambda: time.sleep(3600),
    "loops in compiled code": lambda: re.match("(a+)+$", "a" * 60 + "b"),
    "waits for another program": lambda: subprocess.run(["sleep", "3601"], check=False),
    "waits for input": lambda: raise_it(SystemError(input())),
}


def limited(likelihood, **policy):
    return make_simulator([prior, likelihood], failures=FailurePolicy(timeout=0.4, **policy))


@pytest.mark.nightly_cases("waits for another program")
@pytest.mark.parametrize("act", HANGS.values(), ids=HANGS)
def test_a_function_that_hangs_is_ended(act):
    """With a timeout it is an error that names row and function, and nothing that it started goes on."""
    words = "took longer than the timeout of 0.4 s|raised EOFError"  # there is no input
    with pytest.raises(SimulationError, match=rf"row \d+ of seed 1: function 'likelihood' ({words})"):
        limited(first(act)).sample(60, seed=1)
    assert not [child for child in psutil.Process().children(recursive=True) if "3601" in child.cmdline()]


CRASHES = {
    "os._exit(0)": (lambda: os._exit(0), "exit code 0"),
    "a null pointer": (lambda: ctypes.string_at(0), "SIGSEGV"),
    "abort": (os.abort, "SIGABRT"),
    "kills itself": (lambda: os.kill(os.getpid(), 9), "SIGKILL"),
}


@pytest.mark.parametrize(("act", "how"), CRASHES.values(), ids=CRASHES)
def test_a_function_that_ends_its_process_fails_with_a_timeout(act, how):
    """It ends the process beside this one, and is an error that says how."""
    with pytest.raises(SimulationError, match=f"function 'likelihood' ended its process with .*{how}"):
        limited(first(act)).sample(60, seed=1)


@pytest.mark.nightly_cases("2")
@pytest.mark.parametrize("workers", [None, 2])
def test_what_fails_in_time_or_not_is_counted_alike(workers):
    """Rows that hang, crash or exit are failed ones, drawn again or NaN; all others are to the bit those of
    no policy."""

    def likelihood(theta, rng):
        if theta[0] > 1.6:
            time.sleep(3600)
        if theta[0] < -1.8:
            os._exit(0)
        if theta[1] > 1.9:
            sys.exit(0)
        return {"x": theta + rng.normal(size=2) + np.random.normal()}

    simulator = limited(likelihood, allowed=1.0)
    drawn = simulator.sample(16, seed=29, workers=workers)
    theta = make_simulator(prior).sample(16, seed=29)["theta"]
    failed = (theta[:, 0] > 1.6) | (theta[:, 0] < -1.8) | (theta[:, 1] > 1.9)
    assert failed.sum() == 3
    assert simulator.last_report.failed == tuple(np.flatnonzero(failed))
    np.testing.assert_array_equal(drawn["theta"], theta)
    np.testing.assert_array_equal(np.isnan(drawn["x"]).all(axis=1), failed)
    plain = make_simulator([prior, likelihood])
    for row in np.flatnonzero(~failed):
        np.testing.assert_array_equal(plain.rows(row, row + 1, seed=29)["x"][0], drawn["x"][row])


@pytest.mark.nightly
def test_batched_functions_have_a_limit_too():
    """A block that takes too long fails as a whole, and is drawn again from the stream of its next
    attempt."""

    def batched(batch_shape, rng):
        theta = rng.normal(size=(*batch_shape, 1))
        if theta[0] > 0.5:
            time.sleep(3600)
        return {"theta": theta}

    simulator = make_simulator(
        batched, is_batched=True, block_size=8, failures=FailurePolicy(timeout=0.4, retries=5)
    )
    assert (simulator.sample(32, seed=4)["theta"][::8] <= 0.5).all()
    assert 0 < len(simulator.last_report.recovered) < 32
    assert len(simulator.last_report.recovered) % 8 == 0


def test_processes_end_with_the_simulator():
    """A simulator with a timeout keeps its process for the next call, and none when it is gone."""
    simulator = limited(well)
    before = {child.pid for child in psutil.Process().children()}
    for seed in (1, 2):
        simulator.sample(3, seed=seed)
    (mine,) = {child.pid for child in psutil.Process().children()} - before
    del simulator
    assert mine not in {child.pid for child in psutil.Process().children()}
