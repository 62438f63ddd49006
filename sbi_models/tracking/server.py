"""HTTP server of a posterior: one process listens and guards limits, another one computes.

The latter is killed when nobody waits for it.

No code of a model is run: what answers is the `PosteriorSampler` of this package, around the tensors of the
approximator.
"""

import asyncio
import ipaddress
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sbi_models.approximators import Approximator
from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking.server_worker import Worker, command_of, refusal
from sbi_models.workflows.likelihood.implied import as_posterior

MOST_BYTES, BYTES_A_NUMBER = 64 * 2**20, 32
"""Of the body of a request; one data set of the model's size, at so many bytes a number, is always taken.

Of a model whose data sets may have any length, one as long as those of its training.
"""

_READ_AT_ONCE, _MOST_CONNECTIONS = 8, 200
_GRACE_SECONDS = 1.0
"""For which work may go on after its client has left: killing costs the next client the seconds of a
start."""

_SHUTDOWN_SECONDS = 2

Answer = Callable[[bytes], Awaitable[tuple[int, bytes]]]


def serve(
    approximator: Approximator,
    host: str = "127.0.0.1",
    port: int = 5000,
    *,
    timeout: float = 60.0,
    names: Collection[str] = (),
) -> None:
    """Serve an approximator at http://HOST:PORT/invocations until SIGTERM or Ctrl-C.

    `PosteriorSampler.predict` describes requests.

    It has no passwords. Requests are answered one at a time. A request has at most 10 000 data sets, 10 000
    000 numbers in and as many out, 64 MiB (or one data set, if that is more), and `timeout` seconds, its wait
    for others included: after that it is answered with 504 and its work stops, as it does when the client
    leaves or the server ends. Wrong requests are a 400 with the reason; /ping answers while the server is
    there.

    Args:
        approximator: what to sample, of classes of this package.
        host: the address to listen on.
        port: the port to listen on.
        timeout: seconds for one request.
        names: further names of this machine under which the server may be asked. A request for another host
            than an IP address, localhost, `host` or the name of the machine is refused (403), so that a page
            that a browser shows cannot ask by a name that it has rebound.

    Raises:
        ConfigurationError: no such port, or no time.
        TrackingError: the process that computes does not start.
    """
    if not 0 < port < 65536:
        raise ConfigurationError(f"Expected a port from 1 to 65535, got {port}.")
    if not 0 < timeout < math.inf:
        raise ConfigurationError(f"Expected timeout as a positive number of seconds, got {timeout}.")

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        with TemporaryDirectory(prefix="sbi-models-serve-") as folder:
            worker = Worker(command_of(approximator.save(Path(folder) / "model.safetensors")))
            try:
                await worker.start()
                app.state.answer = worker.answer
                yield
            finally:
                await worker.close()

    app = application(running, most_bytes=most_bytes(approximator), timeout=timeout, names={host, *names})
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    with suppress(KeyboardInterrupt):
        try:
            uvicorn.Server(config).run()
        except SystemExit:
            raise TrackingError("The server did not start; the lines above say why.") from None


def most_bytes(approximator: Approximator) -> int:
    """Of the body of a request."""
    asked = as_posterior(approximator)
    one = sum(math.prod(asked.shapes[name]) for name in asked.condition_names)
    return max(MOST_BYTES, BYTES_A_NUMBER * one)


Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def application(lifespan: Lifespan, *, most_bytes: int, timeout: float, names: Collection[str]) -> Starlette:
    """The ASGI application.

    `lifespan` sets `app.state.answer`, a function from a request body to status and body.
    """
    slots = asyncio.Semaphore(_READ_AT_ONCE)  # bodies in memory

    async def invocations(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # pages of other origins may send other types without asking
            return _refused(415, f"Expected the header content-type: application/json, got {kind!r:.80}.")
        try:
            async with asyncio.timeout(timeout), slots:
                body = await _body(request, most_bytes)
                if body is None:
                    return _refused(
                        413,
                        f"Expected a body of at most {most_bytes} bytes, got more. Send the data "
                        "sets in parts.",
                    )
                status, content = await _while_waited_for(request, request.app.state.answer(body))
                return Response(content, status, media_type="application/json")
        except TimeoutError:
            return _refused(
                504,
                f"Not done after {timeout:g} seconds, and stopped. Ask for fewer draws or data "
                "sets at a time.",
            )
        except ClientDisconnect:
            return _refused(499, "The client has left.")
        except asyncio.CancelledError:  # by Uvicorn, when the server ends
            return _refused(503, "The server is ending, and has stopped this request.")

    async def ping(_: Request) -> Response:
        return Response("\n", media_type="application/json")

    routes = [
        Route("/invocations", invocations, methods=["POST"]),
        *(Route(path, ping) for path in ("/ping", "/health")),
    ]
    return Starlette(
        routes=routes, lifespan=lifespan, middleware=[Middleware(_OwnHostOnly, names=_own_names(names))]
    )


async def _body(request: Request, most: int) -> bytes | None:
    """The body; None if it is too long, of which nothing is kept."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        else:
            parts.clear()
    return b"".join(parts) if size <= most else None


async def _while_waited_for(request: Request, work: Awaitable[tuple[int, bytes]]) -> tuple[int, bytes]:
    """Result of the work, which is cancelled with this call or soon after the client has left.

    Raises:
        ClientDisconnect: if the client has left.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([task], timeout=_GRACE_SECONDS)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refused(status: int, message: str) -> Response:
    codes = {
        403: "PERMISSION_DENIED",
        413: "REQUEST_LIMIT_EXCEEDED",
        503: "TEMPORARILY_UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
    return Response(refusal(codes.get(status, "BAD_REQUEST"), message), status, media_type="application/json")


class _OwnHostOnly:
    """Refuses requests that name a host that this is not."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] == "http" and not (len(hosts) == 1 and self._is_own(hosts[0])):
            named = ", ".join(hosts) or "none"
            refused = _refused(
                403,
                f"Expected a host that is this machine, got {named!r:.80}. Start the server with "
                "--allow-host NAME.",
            )
            await refused(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.names or _is_address(name)


def _own_names(names: Collection[str]) -> set[str]:
    return {name.lower() for name in ("localhost", socket.gethostname(), *names)}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
