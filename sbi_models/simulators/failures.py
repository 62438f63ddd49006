"""Failure policy of simulations: retries, allowed failures, timeouts, and the failure report."""

import math
from dataclasses import dataclass
from operator import index

from sbi_models.errors import ConfigurationError

_ROWS_SHOWN = 5


@dataclass(frozen=True)
class FailurePolicy:
    """Policy for functions that raise an exception, time out or, on request, return values not finite.

    A failed simulation is drawn again as a whole, its parameters too, from the stream (seed, row, attempt):
    row i stays a function of the seed and i alone. The table is then that of the simulator given success. Its
    posteriors are those of the simulator itself, for data that it returns: p(theta | x, success) = p(theta |
    x), since x is only ever seen after a success. (Drawing the data again for the same theta would be wrong:
    it weights theta by 1 / p(success | theta).)

    A row that fails for good keeps what was computed before the function that failed and is NaN from there
    on, so that it stays in its place; training refuses it by name. A column of integers that has such a row
    becomes float64.

    A function can also hang, or end its process (`os._exit`, a crash in compiled code). With a `timeout` it
    runs in a process beside this one, which is then ended with all that it has started, and the simulation
    counts as failed like any other.

    Args:
        retries: number of times that a failed simulation is drawn again.
        allowed: rows of one call of `sample` or `rows` that may fail for good: a number (int) or a
            fraction (float from 0 to 1).
        non_finite: True if a row with NaN or inf among its values counts as failed. If it is allowed to fail
            it keeps those values.
        timeout: seconds that a function may take for one row, or for one block if functions are batched; None
            for any time. Take several times what the slowest row needs: which rows are cut depends on the
            machine. Functions must be such that they can be sent to another process; a call takes about half
            a millisecond more.

    Raises:
        ConfigurationError: for numbers out of range.

    >>> from sbi_models.simulators import make_simulator
    >>> def draw(rng): return {"x": rng.normal() if rng.random() < 0.5 else 1 / 0}
    >>> simulator = make_simulator(draw, failures=FailurePolicy(retries=50))
    >>> simulator.sample(10, seed=1, progress=False)["x"].shape
    (10, 1)
    """

    retries: int = 0
    allowed: int | float = 0
    non_finite: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        if not _is_count(self.retries):
            raise ConfigurationError(f"Expected retries as an integer of at least 0, got {self.retries!r}.")
        is_fraction = isinstance(self.allowed, float) and 0 <= self.allowed <= 1
        if not (_is_count(self.allowed) or is_fraction):
            raise ConfigurationError(
                "Expected allowed as a number of rows (an int of at least 0) or a fraction of them (a "
                f"float from 0 to 1), got {self.allowed!r}."
            )
        if self.timeout is not None and not _is_time(self.timeout):
            raise ConfigurationError(
                f"Expected timeout as a number of seconds above 0, or None, got {self.timeout!r}."
            )

    def limit(self, num_rows: int) -> int:
        """Number of rows out of `num_rows` that may fail for good.

        >>> FailurePolicy(allowed=0.1).limit(25), FailurePolicy(allowed=3).limit(25)
        (2, 3)
        """
        return math.floor(self.allowed * num_rows) if isinstance(self.allowed, float) else self.allowed


@dataclass(frozen=True)
class Failure:
    """A row that failed at least once.

    Attributes:
        row: its number in the table.
        attempts: number of failed attempts.
        recovered: True if a later attempt succeeded.
        cause: what happened the last time, for instance "'likelihood' raised ZeroDivisionError: division by
            zero".
    """

    row: int
    attempts: int
    recovered: bool
    cause: str


@dataclass(frozen=True)
class FailureReport:
    """The failures of one call of `sample` or `rows`, in the order of the rows."""

    num_rows: int = 0
    failures: tuple[Failure, ...] = ()

    @property
    def recovered(self) -> tuple[int, ...]:
        """Rows that failed and succeeded later."""
        return tuple(failure.row for failure in self.failures if failure.recovered)

    @property
    def failed(self) -> tuple[int, ...]:
        """Rows that failed for good."""
        return tuple(failure.row for failure in self.failures if not failure.recovered)

    def __str__(self) -> str:
        if not self.failures:
            return f"All of {self.num_rows} simulations succeeded at once."
        causes: dict[str, int] = {}
        for failure in self.failures:
            causes[failure.cause] = causes.get(failure.cause, 0) + 1
        cause, times = max(causes.items(), key=lambda item: item[1])
        shown = ", ".join(map(str, self.failed[:_ROWS_SHOWN])) + (
            ", ..." if len(self.failed) > _ROWS_SHOWN else ""
        )
        return (
            f"{len(self.failures)} of {self.num_rows} simulations failed: {len(self.recovered)} succeeded "
            f"when drawn again, {len(self.failed)} failed for good{f' (rows {shown})' if shown else ''}. "
            f"Most often ({times} times): {cause}."
        )


def _is_count(value: object) -> bool:
    try:
        return not isinstance(value, bool | float) and index(value) >= 0  # type: ignore[arg-type]
    except TypeError:
        return False


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
