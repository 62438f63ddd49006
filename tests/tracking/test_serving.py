"""The server of a posterior: its limits, and that work stops when nobody waits for it. What computes is a
small program."""

import asyncio
import json
import math
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking import serve
from sbi_models.tracking import server as serving
from sbi_models.tracking.server import application
from sbi_models.tracking.server_worker import Worker

PROGRAM = """
import os, struct, sys, time
put = lambda data: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush())
time.sleep({start}); put(b".")
while head := sys.stdin.buffer.read(8):
    body = sys.stdin.buffer.read(struct.unpack(">Q", head)[0])
    if body == b"end": os._exit(1)
    time.sleep(float(body.split()[0] or 0)) if body[:1].isdigit() else None
    content = str(os.getpid()).encode() + b" " + body[:20]
    put(struct.pack(">HQ", 200, len(content)) + content)
"""
"""Speaks as the process that computes does: sleeps for as long as the body says, and answers with its id."""


def worker(start: float = 0.0) -> Worker:
    return Worker([sys.executable, "-S", "-c", PROGRAM.format(start=start)])


def run(coroutine: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, 30)

    return asyncio.run(limited())


def is_there(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Client:
    """One HTTP request as an ASGI server passes it on; `leave` says that the client is gone."""

    def __init__(
        self, body: bytes = b"{}", path: str = "/invocations", method: str = "POST", **headers: str
    ) -> None:
        given = {"host": "127.0.0.1:5000", "content-type": "application/json"} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [
                (name.encode(), value.encode()) for name, value in given.items() if value is not None
            ],
        }
        self.parts = [body[at : at + 50] for at in range(0, len(body), 50)] or [b""]
        self.gone = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    def leave(self) -> None:
        self.gone.set()

    async def receive(self) -> dict[str, Any]:
        if self.parts:
            return {"type": "http.request", "body": self.parts.pop(0), "more_body": bool(self.parts)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def ask(self, app: Any) -> tuple[int, str]:
        await app(self.scope, self.receive, self.send)
        return self.sent[0]["status"], b"".join(
            message.get("body", b"") for message in self.sent[1:]
        ).decode()


@asynccontextmanager
async def nothing(_: Any):
    yield


def app_of(answer: Callable[[bytes], Awaitable[tuple[int, bytes]]], **limits: Any) -> Any:
    made = application(
        nothing, **({"most_bytes": 1000, "timeout": 20.0, "names": ["server.example"]} | limits)
    )
    made.state.answer = answer
    return made


async def echo(body: bytes) -> tuple[int, bytes]:
    return 200, body


# ---- what is let in


@pytest.mark.parametrize(
    ("request_of", "status", "words"),
    [
        ({"body": b"x" * 1000}, 200, "xxx"),
        ({"body": b"x" * 1001}, 413, "at most 1000 bytes"),
        ({"body": b"x" * 100_000}, 413, "at most 1000 bytes"),
        ({"content_type": "application/json; charset=utf-8"}, 200, ""),
        ({"content_type": "text/plain"}, 415, "application/json"),
        ({"content_type": "text/csv"}, 415, "got 'text/csv'"),
        ({"content_type": None}, 415, "got ''"),
        ({"host": "localhost"}, 200, ""),
        ({"host": "LOCALHOST:80"}, 200, ""),
        ({"host": "[::1]:5000"}, 200, ""),
        ({"host": "10.1.2.3:5000"}, 200, ""),
        ({"host": "server.example:443"}, 200, ""),
        ({"host": "rebound.example:5000"}, 403, "--allow-host"),
        ({"host": "127.0.0.1.nip.example"}, 403, "127.0.0.1.nip.example"),
        ({"host": ""}, 403, "is this machine"),
        ({"host": "["}, 403, "is this machine"),
        ({"host": None}, 403, "is this machine"),
        ({"method": "GET"}, 405, ""),
        ({"path": "/ping", "method": "GET"}, 200, ""),
        ({"path": "/ping", "method": "GET", "host": "rebound.example"}, 403, ""),
        ({"path": "/version", "method": "GET"}, 404, ""),
    ],
)
def test_requests_are_let_in_by_host_type_and_size(
    request_of: dict[str, Any], status: int, words: str
) -> None:
    """Names that are not this machine's (DNS rebinding), types that pages may send unasked, and long bodies
    do not reach the model."""

    async def asked() -> tuple[int, str]:
        return await Client(**request_of).ask(app_of(echo))

    got, content = run(asked())
    assert got == status
    assert words in content
    assert "Traceback" not in content


@pytest.mark.parametrize(
    ("port", "timeout"),
    [(0, 60.0), (65536, 60.0), (5000, 0.0), (5000, -1.0), (5000, math.nan), (5000, math.inf)],
)
def test_a_server_without_port_or_time_is_an_error(port: int, timeout: float) -> None:
    """Both are checked before anything starts."""
    with pytest.raises(ConfigurationError, match=r"Expected (a port|timeout)"):
        serve(None, port=port, timeout=timeout)  # type: ignore[arg-type]


def test_a_server_whose_process_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a quiet end with exit code 0."""
    monkeypatch.setattr(
        serving, "command_of", lambda file: [sys.executable, "-S", "-c", "raise SystemExit(7)"]
    )
    approximator = SimpleNamespace(save=lambda path: path, condition_names=(), shapes={})
    with pytest.raises(TrackingError, match="did not start"):
        serve(approximator)  # type: ignore[arg-type]


# ---- work that nobody waits for


def test_answers_come_from_one_process_in_turn() -> None:
    """Requests at once are all answered, each with its own, by the same process."""

    async def asked() -> list[tuple[int, bytes]]:
        working = worker()
        await working.start()
        answers = await asyncio.gather(*(working.answer(b"0 %d" % k) for k in range(20)))
        await working.close()
        return answers

    contents = [content.split() for status, content in run(asked()) if status == 200]
    assert [content[2] for content in contents] == [b"%d" % k for k in range(20)]
    assert len({content[0] for content in contents}) == 1


def test_what_takes_too_long_is_a_504_and_stops() -> None:
    """The process that computes is killed, and the next request is answered by another one."""

    async def asked() -> tuple[Any, ...]:
        working = worker()
        first = int((await working.answer(b"0"))[1].split()[0])
        app = app_of(working.answer, timeout=0.5)
        status, content = await Client(b"20").ask(app)
        await asyncio.sleep(0.2)
        there = is_there(first)
        again = await Client(b"0").ask(app_of(working.answer))
        await working.close()
        return status, content, there, first, again

    status, content, there, first, (after, other) = run(asked())
    assert (status, json.loads(content)["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert not there
    assert after == 200
    assert int(other.split()[0]) != first


def test_work_stops_when_the_client_leaves() -> None:
    """Soon after: what is nearly done may end, so that the next client does not pay for a start."""

    async def asked() -> tuple[Any, ...]:
        working = worker()
        first = int((await working.answer(b"0"))[1].split()[0])
        patient, short = Client(b"20"), Client(b"0.4")
        task = asyncio.create_task(short.ask(app_of(working.answer)))
        await asyncio.sleep(0.2)
        short.leave()
        await task
        kept = is_there(first)
        task = asyncio.create_task(patient.ask(app_of(working.answer)))
        await asyncio.sleep(0.2)
        patient.leave()
        begin = time.monotonic()
        await task
        await asyncio.sleep(0.2)
        there = is_there(first)
        await working.close()
        return kept, there, time.monotonic() - begin

    kept, there, seconds = run(asked())
    assert kept
    assert not there
    assert seconds < 10


def test_a_client_that_leaves_the_queue_stops_nobody_else() -> None:
    """Its request is never begun; the one before it is answered."""

    async def asked() -> tuple[Any, ...]:
        working = worker()
        app = app_of(working.answer)
        first, second = Client(b"1.5 first"), Client(b"0 second")
        tasks = [asyncio.create_task(client.ask(app)) for client in (first, second)]
        await asyncio.sleep(0.2)
        second.leave()
        answers = await asyncio.gather(*tasks)
        await working.close()
        return answers

    (status, content), (left, _) = run(asked())
    assert (status, content.split()[1:]) == (200, ["1.5", "first"])
    assert left == 499


def test_a_request_that_is_cancelled_as_the_server_ends_is_a_503() -> None:
    """As Uvicorn does it: no traceback, and the process is gone after `close`, also one that was just being
    started."""

    async def asked() -> tuple[Any, ...]:
        working = worker(start=0.5)
        client = Client(b"20")
        first = int((await working.answer(b"0"))[1].split()[0])
        task = asyncio.create_task(client.ask(app_of(working.answer)))
        await asyncio.sleep(0.2)
        task.cancel()
        status, _ = await task
        await asyncio.sleep(0.1)
        begun = working._process.pid  # type: ignore[union-attr]
        await working.close()
        return status, is_there(first), is_there(begun), begun != first

    assert run(asked()) == (503, False, False, True)


def test_a_process_that_ends_is_told_and_replaced() -> None:
    """As when the system kills it for its memory: 503, and the next request is answered."""

    async def asked() -> tuple[Any, ...]:
        working = worker()
        ended = await Client(b"end").ask(app_of(working.answer))
        again = await Client(b"0").ask(app_of(working.answer))
        await working.close()
        return ended, again

    ended, again = run(asked())
    assert ended[0] == 503
    assert "memory" in ended[1]
    assert again[0] == 200


def test_a_process_that_does_not_start_is_told_each_time() -> None:
    """503 with the code that it ended with; nothing waits for ever."""

    async def asked() -> list[Any]:
        working = Worker([sys.executable, "-c", "import sys; sys.exit(7)"])
        answers = [await Client(b"0").ask(app_of(working.answer)) for _ in range(2)]
        await working.close()
        return answers

    for status, content in run(asked()):
        assert status == 503
        assert "ended with code 7" in content


def test_the_process_that_computes_ends_with_the_one_that_listens() -> None:
    """Even if that was killed, and while it computes: its standard input ends."""
    code = (
        "import sys, time, threading\nfrom sbi_models.tracking import server_worker\n"
        "threading.Thread(target=server_worker.receive, args=(sys.stdin.buffer, lambda body: None)).start()\n"
        "print('.', flush=True)\nwhile True: sum(range(10**5))"
    )

    async def asked() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdin.write(struct.pack(">Q", 3) + b"abc")
        process.stdin.close()
        with suppress(ProcessLookupError):
            return await process.wait()
        return -1

    assert os.name != "posix" or run(asked()) == 0
