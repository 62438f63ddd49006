"""Retries of calls to the tracking store while it is locked by another process, stopped, or restarting."""

import logging
import os
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking.failures import ERRORS, cause_to_show, failure, is_away, is_race, quiet_log, reason
from sbi_models.tracking.redaction import redacted

VARIABLE = "SBI_MODELS_TRACKING_PATIENCE"
PATIENCE = 300.0
"""Seconds that a call goes on trying, unless the environment variable says otherwise."""

FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0
RACES = 5
"""How often a call is made again at once because another process wrote the same row first."""

WARN_AFTER = 3.0
"""Seconds after which the next failed try is warned of."""

_logger = logging.getLogger(__name__)

Given = ParamSpec("Given")
Result = TypeVar("Result")


def patience() -> float:
    """Seconds that a call goes on trying, 0 or more."""
    given = os.environ.get(VARIABLE, "")
    if not given:
        return PATIENCE
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"Expected {VARIABLE} as a number of seconds of 0 or more, got {given!r}.")
    return seconds


def patiently(
    doing: str, call: Callable[Given, Result], *arguments: Given.args, **options: Given.kwargs
) -> Result:
    """Call a function again, after longer and longer waits, while the store is away; its result.

    The call may have done its work and lost the answer: it must be one that does nothing new the second time.

    Raises:
        TrackingError: of one line, at once for what is wrong, such as an unknown run, and when patience is at
            its end.
    """
    limit, started, wait, warned, races = patience(), time.monotonic(), FIRST_WAIT, False, 0
    while True:
        try:
            with quiet_log():
                result = call(*arguments, **options)
        except ERRORS as error:
            if is_race(error) and races < RACES:
                races += 1
                continue
            if not is_away(error):
                raise failure(doing, error) from cause_to_show(error)
            waited = time.monotonic() - started
            if waited >= limit:
                raise _given_up(doing, error, waited) from cause_to_show(error)
            if waited >= WARN_AFTER and not warned:
                warned = True
                _logger.warning(
                    "The tracking store is not reachable, trying again for up to %s: %s",
                    _span(limit),
                    reason(error),
                )
            time.sleep(min(wait, max(limit - waited, 0.0)))
            wait = min(2 * wait, LONGEST_WAIT)
        else:
            if warned:
                _logger.warning(
                    "The tracking store is reachable again, after %s.", _span(time.monotonic() - started)
                )
            return result


def _given_up(doing: str, error: BaseException, waited: float) -> TrackingError:
    return TrackingError(
        f"Could not {redacted(doing)}: the tracking store was not reachable for {_span(waited)} "
        f"({reason(error)}). Start it, or end what locks it, and give the same command again: what was "
        f"trained is kept. {VARIABLE}=SECONDS waits longer."
    )


def _span(seconds: float) -> str:
    return f"{seconds / 60:.3g} minutes" if seconds >= 120 else f"{seconds:.3g} seconds"
