"""Worker process of a model server, killed as soon as nobody waits for its result."""

import asyncio
import json
import os
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sbi_models.errors import TrackingError

REQUEST, ANSWER, READY = struct.Struct(">Q"), struct.Struct(">HQ"), b"."
"""Headers of bodies (length; HTTP status and length), and the byte that a ready worker sends."""

_LONGEST_MESSAGE = 1000

_ENDED = (
    "The process that computes has ended, perhaps since memory ran out; another one is being started. "
    "Ask for less at a time."
)


def receive(requests: BinaryIO, put: Callable[[bytes], None]) -> None:
    """Pass on the bodies of requests; end this process when the other side is gone."""
    while head := requests.read(REQUEST.size):
        put(requests.read(REQUEST.unpack(head)[0]))
    os._exit(0)


def refusal(code: str, message: str) -> bytes:
    """The body of an answer other than 200, JSON."""
    shortened = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
    return json.dumps({"error_code": code, "message": shortened}).encode()


def command_of(file: Path) -> list[str]:
    """Command line of the worker of an approximator file, without the current folder on its path."""
    return [sys.executable, "-P", "-m", "sbi_models.tracking.request_handling", str(file)]


class Worker:
    """One process at a time, started anew after each that had to be killed.

    Args:
        command: the program and its arguments; it speaks as `sbi_models.tracking.request_handling` does.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._free = asyncio.Lock()
        self._process: Process | None = None
        self._starting: asyncio.Task[Process] | None = None

    async def start(self) -> None:
        """Start the process, and wait until it is ready; TrackingError if it ends instead."""
        await self._running()

    async def answer(self, body: bytes) -> tuple[int, bytes]:
        """HTTP status and body for a request.

        Cancelling kills the process, unless the request had not reached it yet.
        """
        async with self._free:
            try:
                process = await self._running()
            except TrackingError as error:
                return 503, refusal("TEMPORARILY_UNAVAILABLE", str(error))
            try:
                return await _asked(process, body)
            except (asyncio.IncompleteReadError, ConnectionError):
                self._replace()
                return 503, refusal("TEMPORARILY_UNAVAILABLE", _ENDED)
            except BaseException:
                self._replace()
                raise

    async def close(self) -> None:
        """Kill the process, if there is one, and wait for its end."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        if self._process is not None:
            self._kill()
            await self._process.wait()

    async def _running(self) -> Process:
        if self._starting is None:
            self._starting = asyncio.create_task(self._started())
        try:
            return await asyncio.shield(self._starting)
        except TrackingError:
            self._starting = None  # the next request tries again
            raise

    def _replace(self) -> None:
        """Kill the process; the next one starts before there is a request for it."""
        self._kill()
        self._starting = asyncio.create_task(self._started())

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _started(self) -> Process:
        """A process that is ready. In a session of its own, so that Ctrl-C reaches it through us alone."""
        quiet = {**os.environ, "SBI_MODELS_PROGRESS": "0"}
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, env=quiet, start_new_session=True
        )
        assert process.stdout is not None
        if await process.stdout.read(len(READY)) != READY:
            raise TrackingError(
                "The process that computes did not start: it ended with code "
                f"{await process.wait()}. The log has its reason."
            )
        return process


async def _asked(process: Process, body: bytes) -> tuple[int, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(REQUEST.pack(len(body)) + body)
    await process.stdin.drain()
    status, length = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
    return int(status), await process.stdout.readexactly(length)
