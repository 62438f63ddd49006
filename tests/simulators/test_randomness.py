"""Whatever functions draw from is governed by seed and row; what is not is told, and refused where several
processes compute."""

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from typing import Any

import numpy as np
import pytest
import torch

from sbi_models.errors import SimulationError, TrustWarning
from sbi_models.simulators import FailurePolicy, make_simulator

RNG = np.random.default_rng(2024)
OLD, PYTHONS, TORCHS = np.random.RandomState(3), random.Random(4), torch.Generator().manual_seed(5)
DRAW = RNG.normal
DEFAULT = np.random.default_rng(13)
TABLE = {"inner": [np.random.Generator(np.random.Philox(6))]}
LAZY: list[np.random.Generator] = []


class Slots:
    """Holds a generator in a slot."""

    __slots__ = ("rng",)

    def __init__(self):
        self.rng = np.random.default_rng(7)

    def __call__(self):
        return {"x": self.rng.normal(size=2)}


@dataclass
class Nested:
    """Holds an object that holds a generator."""

    inner: Slots = field(default_factory=Slots)

    def prior(self):
        return self.helper()

    def helper(self):
        return {"x": self.inner.rng.normal(size=2)}


class OfClass:
    """A generator that is an attribute of the class."""

    rng = np.random.default_rng(8)

    def __call__(self):
        return {"x": self.rng.normal(size=2)}


def closure():
    rng = np.random.default_rng(9)
    return lambda: {"x": rng.normal(size=2)}


def decorated(function):
    @wraps(function)
    def inner(*args, **keywords):
        return function(*args, **keywords)

    return inner


def helper(size):
    return RNG.normal(size=size)


@cache
def cached_generator():
    return np.random.default_rng(10)


def lazily():
    if not LAZY:
        LAZY.append(np.random.default_rng())
    return {"x": LAZY[0].normal(size=2)}


def rarely_made():
    """A function that makes its generator in a row in twenty, at the first of which it is new."""
    made = []

    def function(rng):
        x = rng.normal(size=2)
        if x[0] < 1.6:
            return {"x": x}
        if not made:
            made.append(np.random.default_rng(14))
        return {"x": x + made[0].normal(size=2)}

    return function


def sometimes_torch():
    x = np.random.normal(size=2)
    return {"x": x + (torch.randn(2).numpy() if x[0] > 1.5 else 0.0)}


def imports_itself():
    import secrets  # noqa: F401, PLC0415
    from random import gauss  # noqa: PLC0415

    return {"x": [gauss(0, 1), gauss(0, 1)]}


def endless() -> Iterator[float]:
    rng = np.random.default_rng(11)
    while True:
        yield rng.normal()


ENDLESS = endless()

GOVERNED: dict[str, Any] = {
    "global": lambda: {"x": RNG.normal(size=2)},
    "global, through a helper": lambda: {"x": helper(2)},
    "method of a global": lambda: {"x": DRAW(size=2)},
    "in containers": lambda: {"x": TABLE["inner"][0].normal(size=2)},
    "RandomState": lambda: {"x": OLD.normal(size=3)[:2]},
    "random.Random": lambda: {"x": [PYTHONS.gauss(0, 1), PYTHONS.random()]},
    "torch.Generator": lambda: {"x": torch.randn(2, generator=TORCHS)},
    "slot": Slots(),
    "nested object": Nested().prior,
    "class attribute": OfClass(),
    "closure": closure(),
    "partial": partial(lambda source: {"x": source.normal(size=2)}, source=np.random.default_rng(12)),
    "default": lambda source=DEFAULT: {"x": source.normal(size=2)},
    "decorated": decorated(lambda: {"x": RNG.normal(size=2)}),
    "generator function": lambda: {"x": [next(ENDLESS), next(ENDLESS)]},
    "made when first called": lazily,
    "numpy.random": lambda: {"x": np.random.normal(size=2)},
    "numpy.random beside rng": lambda rng: {"x": [rng.normal(), np.random.normal()]},
    "random": lambda: {"x": [random.gauss(0, 1), random.random()]},
    "random, imported in the function": imports_itself,
    "torch": lambda: {"x": torch.randn(2)},
    "torch.distributions": lambda: {"x": torch.distributions.Gamma(2.0, 1.0).sample((2,))},
    "torch in a rare branch": sometimes_torch,
}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("function", GOVERNED.values(), ids=GOVERNED)
def test_a_seed_governs_whatever_is_drawn_from(function):
    """One seed gives the same rows twice and in any cut, another seed others, no row is there twice, and all
    without a warning."""
    simulator = make_simulator(function)
    table = simulator.sample(60, seed=1)
    assert same(simulator.sample(60, seed=1), table)
    assert same(
        simulator.rows(37, 60, seed=1, progress=False), {key: value[37:] for key, value in table.items()}
    )
    more = np.concatenate([table["x"], simulator.sample(60, seed=2)["x"]])
    assert len(np.unique(more, axis=0)) == 120
    assert same(make_simulator(function).sample(60, seed=1), table)


@pytest.mark.nightly
def test_workers_draw_the_same_from_whatever_is_drawn_from():
    """All kinds of generators at once, in two workers: the same rows to the bit, none of them twice."""
    kinds = {
        name: GOVERNED[name]
        for name in GOVERNED
        if name not in ("numpy.random beside rng", "generator function")
    }
    functions = [
        lambda name=name, function=function: {name: function()["x"]} for name, function in kinds.items()
    ]
    simulator = make_simulator(functions)
    here = simulator.sample(40, seed=3)
    there = make_simulator(functions).sample(40, seed=3, workers=2)
    assert same(there, here)
    assert all(len(np.unique(value, axis=0)) == 40 for value in there.values())


@pytest.mark.parametrize("workers", [None, 2])
def test_a_generator_that_is_made_late_governs_no_row_unseen(workers):
    """A generator that a function makes after the first row, in a rare branch: all rows are as they are when
    it has been there before."""
    function = rarely_made()
    first = make_simulator(function).sample(80, seed=1)
    assert same(make_simulator(function).sample(80, seed=1), first)
    assert same(make_simulator(rarely_made()).sample(80, seed=1, workers=workers), first)
    simulator = make_simulator(rarely_made())
    streamed = list(simulator.stream([(0, 50), (50, 80)], seed=1, workers=1))
    assert same({"x": np.concatenate([part["x"] for part in streamed])}, first)


@pytest.mark.nightly
def test_draws_of_many_rows_are_independent():
    """Reseeding by row leaves no trace between rows or between generators: means, sds and correlations are
    those of normal draws."""
    simulator = make_simulator(
        lambda: {
            "x": [RNG.normal(), OLD.normal(), PYTHONS.gauss(0, 1), np.random.normal(), float(torch.randn(()))]
        }
    )
    x = simulator.sample(4000, seed=4)["x"]
    assert np.abs(x.mean(axis=0)).max() < 5 / np.sqrt(4000)
    assert np.abs(x.std(axis=0) - 1).max() < 0.06
    assert np.abs(np.corrcoef(np.concatenate([x[1:], x[:-1]], axis=1).T) - np.eye(10)).max() < 5 / np.sqrt(
        4000
    )


def test_states_are_put_back():
    """After seeded draws every generator, global or held, goes on as if nothing had been drawn; also when a
    function fails."""

    def draws():
        return [
            RNG.normal(),
            OLD.normal(),
            PYTHONS.random(),
            float(torch.randn((), generator=TORCHS)),
            np.random.normal(),
            random.random(),
        ]

    def states():
        return [
            RNG.bit_generator.state,
            str(OLD.get_state()),
            PYTHONS.getstate(),
            TORCHS.get_state().tolist(),
            random.getstate(),
        ]

    def fails():
        draws()
        raise ArithmeticError

    before = states(), torch.get_rng_state().tolist(), str(np.random.get_state())
    make_simulator(lambda: {"x": draws()}).sample(5, seed=1)
    with pytest.raises(SimulationError):
        make_simulator(fails).sample(2, seed=1)
    assert (states(), torch.get_rng_state().tolist(), str(np.random.get_state())) == before


def test_without_a_seed_a_held_generator_goes_on():
    """Draws without a seed differ from call to call, and repeat if the generator that the function holds is
    seeded again."""
    rng = np.random.default_rng(1)
    simulator = make_simulator(lambda: {"x": rng.normal(size=2)})
    state = rng.bit_generator.state
    first, second = simulator.sample(5), simulator.sample(5)
    rng.bit_generator.state = state
    assert same(simulator.sample(5), first)
    assert same(simulator.sample(5), second)
    assert not same(first, second)


class Congruential:
    """A generator of somebody's own, which nobody can know for one."""

    def __init__(self):
        self.state = 1

    def normal(self):
        self.state = self.state * 6364136223846793005 % 2**64
        return self.state / 2**64


OWN = Congruential()
HIDDEN: dict[str, Any] = {
    "os.urandom": lambda: {"x": int.from_bytes(os.urandom(4), "little") / 2**32},
    "SystemRandom": lambda: {"x": random.SystemRandom().random()},
    "new generators": lambda: {"x": np.random.default_rng().normal()},
    "a generator of one's own": lambda: {"x": OWN.normal()},
}


@pytest.mark.parametrize("function", HIDDEN.values(), ids=HIDDEN)
def test_what_a_seed_does_not_govern_is_told_and_refused(function):
    """Once a warning for seed=; an error for workers, whether it was seen before or not, and for those who
    store rows by seed."""
    simulator = make_simulator(function)
    with pytest.warns(
        TrustWarning,
        match=r"seed= does not repeat these draws: Values of 'x' differ between two draws of row 0 of seed 1",
    ):
        simulator.sample(5, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulator.sample(5, seed=1)
    with pytest.raises(
        SimulationError, match=r"Expected simulations that are the same whoever computes them.*rng\.integers"
    ):
        simulator.sample(5, seed=1, workers=2)
    with pytest.raises(SimulationError, match="the same whoever computes them"):
        make_simulator(function).check_repeatable()


@pytest.mark.nightly
def test_a_worker_finds_what_nobody_has_looked_for():
    """A simulator that is used with workers first is tried there, and refused."""
    with pytest.raises(SimulationError, match=r"the same whoever computes them.*row 0 of seed 1"):
        make_simulator(HIDDEN["a generator of one's own"]).sample(20, seed=1, workers=2)


def test_the_trial_costs_one_call():
    """The first row is computed twice, once for a simulator, and a failing row does not count as tried."""
    calls = []

    def slow(rng):
        calls.append(1)
        return {"x": rng.normal()}

    simulator = make_simulator(slow)
    simulator.sample(3, seed=1)
    assert len(calls) == 4
    simulator.sample(3, seed=2)
    assert len(calls) == 7
    failing = make_simulator(lambda: {"x": 1 / 0}, failures=FailurePolicy(allowed=1.0))
    with pytest.raises(SimulationError, match="None of the 2 simulations succeeded"):
        failing.sample(2, seed=1)
    failing.check_repeatable()


BATCHED: dict[str, tuple[Any, bool]] = {
    "rng": (lambda batch_size, rng: {"x": rng.normal(size=(batch_size, 2))}, True),
    "rng and a held one": (
        lambda batch_size, rng: {"x": rng.normal(size=(batch_size, 2)) + RNG.normal(size=(batch_size, 2))},
        False,
    ),
    "rng and torch": (
        lambda batch_size, rng: {"x": rng.normal(size=(batch_size, 2)) + torch.randn(batch_size, 2).numpy()},
        False,
    ),
    "rng and random": (
        lambda batch_size, rng: {"x": [[rng.normal(), random.gauss(0, 1)] for _ in range(batch_size)]},
        False,
    ),
}


@pytest.mark.nightly_cases("rng and torch")
@pytest.mark.parametrize(("function", "suits_a_thread"), BATCHED.values(), ids=BATCHED)
def test_batched_functions_are_governed_by_blocks(function, suits_a_thread):
    """The same for functions of many rows; they suit a thread exactly if they draw from rng alone."""
    simulator = make_simulator(function, is_batched=True, block_size=8)
    table = simulator.sample(30, seed=1)
    assert len(np.unique(table["x"], axis=0)) == 30
    assert same(simulator.sample(30, seed=1), table)
    assert same(simulator.rows(9, 21, seed=1), {"x": table["x"][9:21]})
    assert same(make_simulator(function, is_batched=True, block_size=8).sample(30, seed=1, workers=2), table)
    assert make_simulator(function, is_batched=True).suits_a_thread == suits_a_thread


def test_a_library_that_draws_from_a_global_state_is_noticed(tmp_path, monkeypatch):
    """Batched functions with rng whose library draws from NumPy's global state by itself: governed, and kept
    out of threads."""
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    library = type(sys)("sklearn")
    exec("import numpy as np\ndef noise(n): return np.random.normal(size=n)", vars(library))
    library.noise.__module__ = "sklearn"
    noise = library.noise
    simulator = make_simulator(
        lambda batch_size, rng: {"x": rng.normal(size=batch_size) + noise(batch_size)}, is_batched=True
    )
    assert not simulator.suits_a_thread
    assert same(simulator.sample(300, seed=1), simulator.sample(300, seed=1))


def test_fresh_processes_do_not_begin_anew(tmp_path):
    """A generator that a module makes with a fixed seed: another seed, and later rows, in a new process are
    other rows."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np, sbi_models as bf\nRNG = np.random.default_rng(1)\n"
        "SIMULATOR = bf.make_simulator(lambda: {'x': RNG.normal(size=2)})\n"
    )
    code = "import mine, sys; print(mine.SIMULATOR.rows({}, {}, seed={}, progress=False)['x'].tolist())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    rows = []
    for where in ((0, 20, 1), (20, 40, 1), (0, 20, 2)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(*where)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        rows += eval(done.stdout)
    assert len(np.unique(rows, axis=0)) == 60
