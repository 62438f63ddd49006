"""Simulations that fail: tried again with numbers of their own, counted, reported, refused beyond what is
allowed."""

import logging

import numpy as np
import pytest

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.simulators import Failure, FailurePolicy, FailureReport, make_simulator


def prior(rng):
    return {"theta": rng.uniform(size=1)}


def fails_above_half(theta, rng):
    if theta[0] > 0.5:
        raise ArithmeticError("diverged")
    return {"x": theta + rng.normal(), "k": 3, "b": True, "f": np.float32(theta[0])}


def global_prior():
    return {"theta": np.random.uniform(size=1)}


def batched_prior(batch_size, rng):
    return {"theta": rng.uniform(size=(batch_size, 1))}


def log_of(theta):
    return {"x": np.where(theta > 0.5, np.nan, theta), "y": np.where(theta < 0.1, np.inf, 1.0)}


def batched_fails(theta):
    if theta[0, 0] > 0.5:
        raise ArithmeticError("diverged")
    return {"x": 2 * theta}


def policy(**settings):
    return FailurePolicy(**settings)


SIMULATORS = {
    "raises": make_simulator([prior, fails_above_half], failures=policy(retries=3, allowed=1.0)),
    "raises, global state": make_simulator(
        [global_prior, fails_above_half], failures=policy(retries=2, allowed=1.0)
    ),
    "not finite": make_simulator([prior, log_of], failures=policy(retries=2, allowed=1.0, non_finite=True)),
    "batched, not finite": make_simulator(
        [batched_prior, log_of],
        is_batched=True,
        block_size=8,
        failures=policy(retries=1, allowed=1.0, non_finite=True),
    ),
    "batched, raises": make_simulator(
        [batched_prior, batched_fails], is_batched=True, block_size=4, failures=policy(retries=1, allowed=1.0)
    ),
    "batched, raises or not finite": make_simulator(
        [batched_prior, lambda theta: batched_fails(theta) and log_of(theta)],
        is_batched=True,
        block_size=4,
        failures=policy(retries=2, allowed=1.0, non_finite=True),
    ),
}
every = pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS)


@every
def test_a_row_stays_a_function_of_seed_and_row(simulator):
    """Any stretch of a table with failures equals that part of the whole, NaN included, and so does its part
    of the report."""
    table = simulator.sample(40, seed=1)
    report = simulator.last_report
    assert report.failed
    assert report.recovered
    for start, stop in [(0, 17), (5, 9), (6, 40), (19, 23)]:
        some = simulator.rows(start, stop, seed=1)
        for name, value in some.items():
            np.testing.assert_array_equal(value, table[name][start:stop])
        assert simulator.last_report.failures == tuple(
            failure for failure in report.failures if start <= failure.row < stop
        )


@every
def test_rows_that_never_failed_are_those_of_no_retries(simulator):
    """A policy changes no row that succeeds at once."""
    table = simulator.sample(40, seed=1)
    never = [
        row for row in range(40) if row not in {failure.row for failure in simulator.last_report.failures}
    ]
    again = make_simulator(
        [call.function for call in simulator.calls],
        is_batched=simulator.is_batched,
        block_size=simulator.block_size,
        failures=policy(allowed=1.0, non_finite=simulator.failures.non_finite),
    )
    assert never
    for name, value in again.sample(40, seed=1).items():
        np.testing.assert_array_equal(value[never], table[name][never])


def test_a_retry_draws_from_the_stream_of_its_attempt():
    """Attempt a of row i has the generator of (seed, "simulation", i, "attempt", a): the first success among
    them is the row."""
    simulator = SIMULATORS["raises"]
    table = simulator.sample(60, seed=4)
    failures = {failure.row: failure for failure in simulator.last_report.failures}
    for row in range(60):
        streams = [(row,), *((row, "attempt", a) for a in (1, 2, 3))]
        thetas = [seeding.generator(4, "simulation", *stream).uniform(size=1)[0] for stream in streams]
        good = [attempt for attempt, theta in enumerate(thetas) if theta <= 0.5]
        assert table["theta"][row, 0] == thetas[good[0] if good else -1]
        assert np.isnan(table["x"][row, 0]) == (not good)
        attempts = good[0] if good else 4
        assert failures.get(row) == (
            Failure(row, attempts, bool(good), "function 'fails_above_half' raised ArithmeticError: diverged")
            if attempts
            else None
        )


def test_a_batched_row_that_is_not_finite_is_drawn_again_by_itself():
    """Row r of attempt a is row r of the block of that attempt; rows that were finite keep the first
    block's."""
    simulator = SIMULATORS["batched, not finite"]
    drawn = simulator.sample(24, seed=3)
    first, second = (
        np.concatenate([seeding.generator(3, "simulation", b, *path).uniform(size=(8, 1)) for b in range(3)])
        for path in ((), ("attempt", 1))
    )
    fine = (first >= 0.1) & (first <= 0.5)
    np.testing.assert_array_equal(drawn["theta"], np.where(fine, first, second))
    assert set(simulator.last_report.failed) == set(np.flatnonzero(~fine & ((second < 0.1) | (second > 0.5))))
    assert "'x', 'y' not finite" in {failure.cause for failure in simulator.last_report.failures}


def test_an_exception_in_a_batched_function_fails_its_block():
    """All rows of the block fail and are drawn again together."""
    simulator = SIMULATORS["batched, raises"]
    drawn = simulator.sample(40, seed=5)
    blocks = np.isnan(drawn["x"]).reshape(10, 4)
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
    assert set(simulator.last_report.failed) == set(np.flatnonzero(blocks.ravel()))
    assert not np.isnan(drawn["theta"]).any()


def test_retries_give_the_simulator_given_success():
    """theta uniform, success with probability theta: the accepted theta have density 2 theta, mean 2/3 and
    variance 1/18."""

    def luck(theta, rng):
        if rng.uniform() > theta[0]:
            raise RuntimeError
        return {"x": theta}

    theta = make_simulator([prior, luck], failures=policy(retries=200)).sample(3000, seed=2)["theta"]
    assert theta.mean() == pytest.approx(2 / 3, abs=5 * np.sqrt(1 / 18 / 3000))
    assert theta.var() == pytest.approx(1 / 18, rel=0.1)
    assert np.mean(theta < 0.5) == pytest.approx(1 / 4, abs=5 * np.sqrt(3 / 16 / 3000))


def test_rows_that_fail_for_good_keep_their_place():
    """What came before the failing function is kept, the rest is NaN: float32 stays, integers and booleans
    become float64."""
    drawn = make_simulator([prior, fails_above_half], failures=policy(allowed=1.0)).sample(30, seed=0)
    failed = drawn["theta"][:, 0] > 0.5
    assert failed.any()
    assert not failed.all()
    for name in ("x", "k", "b", "f"):
        np.testing.assert_array_equal(np.isnan(drawn[name][:, 0]), failed)
    assert [drawn[name].dtype for name in ("x", "k", "b", "f")] == [
        np.float64,
        np.float64,
        np.float64,
        np.float32,
    ]
    assert not np.isnan(drawn["theta"]).any()


def test_non_finite_values_are_no_failure_unless_asked():
    """By default NaN and inf pass through and nothing is reported; if allowed as failures, they stay as they
    are."""
    free = make_simulator([prior, log_of])
    drawn = free.sample(40, seed=0)
    assert np.isnan(drawn["x"]).any()
    assert np.isinf(drawn["y"]).any()
    assert free.last_report == FailureReport(40)
    counted = make_simulator([prior, log_of], failures=policy(allowed=40, non_finite=True))
    for name, value in counted.sample(40, seed=0).items():
        np.testing.assert_array_equal(value, drawn[name])
    assert len(counted.last_report.failed) == ((drawn["theta"] > 0.5) | (drawn["theta"] < 0.1)).sum()


@pytest.mark.parametrize("workers", [None, 2])
def test_by_default_the_first_failure_is_an_error_that_can_be_repeated(workers):
    """The message names row, seed, function, cause and cure; the exception is chained; the call it gives
    fails in the same way."""

    def at_seven(rng):
        value = rng.integers(10)
        if value == 7:
            raise ZeroDivisionError("at seven")
        return {"x": value}

    simulator = make_simulator(at_seven)
    expected = (
        r"row (\d+) of seed 3: function 'at_seven' raised ZeroDivisionError: at seven.* "
        r"at most 0 of 100 .*FailurePolicy\("
    )
    with pytest.raises(SimulationError, match=expected) as caught:
        simulator.sample(100, seed=3, workers=workers)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    (row,) = simulator.last_report.failed
    with pytest.raises(
        SimulationError, match=rf"row {row} of seed 3.*simulator.rows\({row}, {row + 1}, seed=3\)"
    ):
        simulator.rows(row, row + 1, seed=3)


def test_a_failed_block_is_named_as_such():
    """In a batched simulator the message speaks of the block, which is what failed."""
    simulator = make_simulator([batched_prior, batched_fails], is_batched=True, block_size=4)
    with pytest.raises(
        SimulationError,
        match=r"rows \d+ to \d+, a block of batched functions, of seed 5: function 'batched_fails'",
    ):
        simulator.sample(40, seed=5)


@pytest.mark.parametrize(("allowed", "refused"), [(0.2, True), (0.9, False), (1, True), (30, False)])
def test_the_policy_says_how_many_may_fail(allowed, refused):
    """About half of 30 rows fail: a fifth or one is not enough, nine tenths or 30 are."""
    simulator = make_simulator([prior, fails_above_half], failures=policy(allowed=allowed))
    if refused:
        with pytest.raises(SimulationError, match=f"at most {6 if allowed == 0.2 else 1} of 30 rows"):
            simulator.sample(30, seed=0)
        assert len(simulator.last_report.failed) == (7 if allowed == 0.2 else 2)
    else:
        simulator.sample(30, seed=0)
        assert 5 < len(simulator.last_report.failed) < 25


def test_failures_are_reported(caplog):
    """One warning a call, with the counts, the rows and the most frequent cause; none where nothing
    failed."""
    simulator = SIMULATORS["raises"]
    with caplog.at_level(logging.WARNING):
        simulator.sample(40, seed=1)
    report = simulator.last_report
    assert [record.getMessage() for record in caplog.records] == [str(report)]
    expected = (
        f"{len(report.failures)} of 40 simulations failed: {len(report.recovered)} succeeded when "
        f"drawn again, {len(report.failed)} "
    )
    assert str(report).startswith(expected + f"failed for good (rows {report.failed[0]}, ")
    assert str(report).endswith("function 'fails_above_half' raised ArithmeticError: diverged.")
    caplog.clear()
    make_simulator(prior).sample(4, seed=0)
    assert caplog.records == []


def test_errors_of_use_are_never_retried():
    """A function that returns no dict is called once, whatever the policy."""
    calls = []
    simulator = make_simulator(lambda: calls.append(1), failures=policy(retries=5, allowed=1.0))
    with pytest.raises(SimulationError, match="must return a dict"):
        simulator.sample(3, seed=0)
    assert len(calls) == 1


def test_nothing_but_failures_is_an_error():
    """Without one success the shapes are unknown."""

    def never():
        raise ValueError("no")

    with pytest.raises(
        SimulationError, match=r"None of the 3 simulations succeeded.*'never' raised ValueError: no"
    ):
        make_simulator(never, failures=policy(allowed=1.0)).sample(3, seed=0)


def test_a_meta_fn_that_fails_is_named():
    """An exception of meta_fn is that of the row: it is chained to an error that names both."""

    def meta():
        raise ValueError("no")

    with pytest.raises(
        SimulationError, match=r"Simulations fail: row 0 of seed 0: function 'meta' raised ValueError"
    ) as caught:
        make_simulator(prior, meta).sample(3, seed=0)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    "settings",
    [
        {"retries": -1},
        {"retries": 1.0},
        {"retries": True},
        {"allowed": -1},
        {"allowed": 1.5},
        {"allowed": "1"},
        {"allowed": None},
    ],
)
def test_policies_that_make_no_sense_are_refused(settings):
    """Numbers out of range and of other types are refused at once."""
    with pytest.raises(ConfigurationError, match=f"Expected {next(iter(settings))} as"):
        FailurePolicy(**settings)


def test_a_policy_belongs_to_functions():
    """A simulator is made already: giving it a policy again is refused, not ignored."""
    with pytest.raises(ConfigurationError, match="got a simulator"):
        make_simulator(SIMULATORS["raises"], failures=policy())
