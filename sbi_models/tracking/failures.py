"""Errors of MLflow's client as TrackingErrors of one line: temporary failures, and wrong requests."""

import errno
import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy import exc as sql

from sbi_models.errors import TrackingError
from sbi_models.tracking.redaction import redacted

ERRORS = (MlflowException, sql.SQLAlchemyError, OSError, sqlite3.Error)
"""All that MLflow's client raises where the outside fails; errors of requests are OSErrors."""

LONGEST = 300

_AWAY_STATUS = {408, 429, 500, 502, 503, 504}  # those that MLflow itself calls transient
_AWAY_CODES = {"TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
_SQLITE_AWAY = re.compile(r"(database|database schema|table)\b.* is (locked|busy)", re.IGNORECASE)
_SERVER_REFUSES = re.compile(
    r"authentication failed|does not exist|permission denied|no such|unknown database|access denied",
    re.IGNORECASE,
)
_RACE = re.compile(r"IntegrityError|UniqueViolation|UNIQUE constraint|duplicate key", re.IGNORECASE)
_TOO_MANY = re.compile(r"too many (\d{3}) error responses")
_ERRNO = re.compile(r"""\[Errno -?\d+\] ([^'")\]\n]+)""")
_FULL = re.compile(r"disk is full|No space left on device|Disk quota exceeded", re.IGNORECASE)
_UNKNOWN_USER = re.compile(r"not authenticated|error code 401|Unauthorized", re.IGNORECASE)
_CLOSED = re.compile(
    r"readonly database|Read-only file system|Permission denied: |unable to open database file", re.IGNORECASE
)


def is_away(error: BaseException) -> bool:
    """Whether the store is only away (locked, stopped, overloaded), so that the same call may work later."""
    for cause in _chain(error):
        if isinstance(cause, sql.DBAPIError):
            return _database_is_away(cause)
        if isinstance(cause, sqlite3.Error):
            return _SQLITE_AWAY.search(str(cause)) is not None
        if isinstance(cause, requests.RequestException):
            return _server_is_away(cause)
        if isinstance(cause, MlflowException) and (match := _TOO_MANY.search(str(cause))):
            return int(match[1]) in _AWAY_STATUS
    code = getattr(error, "error_code", None)
    return isinstance(error, ConnectionError | TimeoutError) or code in _AWAY_CODES


def is_race(error: BaseException) -> bool:
    """Whether another process has written the same row between MLflow's look-up and its write."""
    return getattr(error, "error_code", None) == "BAD_REQUEST" and _RACE.search(str(error)) is not None


def failure(doing: str, error: BaseException) -> TrackingError:
    """The TrackingError of one line: what could not be done, why, and a cure where there is one."""
    why = reason(error)
    text = " ".join(str(cause) for cause in _chain(error))
    if _FULL.search(text) or getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        why += (
            ". Free some space on the disk and give the same command again: what was trained is kept "
            "in mlruns/work"
        )
    elif _UNKNOWN_USER.search(text):
        why += ". Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those that the server knows"
    elif _CLOSED.search(text):
        why += ". Make the folder of the store writable, or set MLFLOW_TRACKING_URI to another store"
    return TrackingError(f"Could not {redacted(doing)}: {why.rstrip('.')}.")


def reason(error: BaseException) -> str:
    """Why, in one line, without secrets."""
    text = str(getattr(error, "message", None) or error).strip()
    databases = [cause for cause in _chain(error) if isinstance(cause, sql.DBAPIError)]
    if databases:
        text = str(databases[0].orig).strip()
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif match := _TOO_MANY.search(text):
        text = f"the server answers with HTTP {match[1]}"
    elif "API request to" in text and (match := _ERRNO.search(text)):
        text = f"{text.partition('API request to ')[2].split()[0]}: {match[1]}"
    line = redacted(text.partition("\n")[0])
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def cause_to_show(error: BaseException) -> BaseException | None:
    """The error to chain to a TrackingError; none if a traceback of it would show a secret."""
    text = "\n".join(str(cause) for cause in _chain(error))
    return error if redacted(text) == text else None


@contextmanager
def tracking_errors(doing: str) -> Iterator[None]:
    """Turn what MLflow raises meanwhile into a TrackingError of one line: Could not <doing>: <reason>."""
    try:
        with quiet_log():
            yield
    except ERRORS as error:
        raise failure(doing, error) from cause_to_show(error)


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and those that it came from, the deepest first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.insert(0, cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _database_is_away(error: sql.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return _SQLITE_AWAY.search(str(error.orig)) is not None
    gone = error.connection_invalidated or isinstance(error, sql.OperationalError | sql.InterfaceError)
    return gone and _SERVER_REFUSES.search(str(error.orig)) is None


def _server_is_away(error: requests.RequestException) -> bool:
    if error.response is not None:
        return error.response.status_code in _AWAY_STATUS
    if match := _TOO_MANY.search(str(error)):
        return int(match[1]) in _AWAY_STATUS
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return isinstance(
        error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError
    )


_inside_a_call: ContextVar[bool] = ContextVar("inside a call of this package to MLflow", default=False)


@contextmanager
def quiet_log() -> Iterator[None]:
    """Let MLflow log only warnings and errors, in one line and without secrets, in this thread and context.

    Its other callers are not affected: the filters, which stay from the first call on, look at the records of
    calls inside of this context alone.
    """
    _install_filters()
    token = _inside_a_call.set(True)
    try:
        yield
    finally:
        _inside_a_call.reset(token)


@cache
def _install_filters() -> None:
    logging.getLogger("mlflow.store.db.utils").addFilter(_in_one_line)
    for handler in logging.getLogger("mlflow").handlers:
        handler.addFilter(_without_secrets)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Log filter: no tracebacks of errors that are raised as well, one line while MLflow connects."""
    if not _inside_a_call.get():
        return True
    if "SQLAlchemy engine could not be created" in record.msg and record.args:
        record.msg, record.args = (
            f"The database of the tracking store is not reachable, trying again: {_first_line(record.args)}",
            (),
        )
    return record.levelno >= logging.WARNING and "SQLAlchemy database error" not in record.msg


def _first_line(arguments: Any) -> str:
    return str(arguments[0]).partition("\n")[0]


def _without_secrets(record: logging.LogRecord) -> bool:
    if not _inside_a_call.get():
        return True
    record.msg, record.args = redacted(record.getMessage()), ()
    return record.levelno >= logging.WARNING
