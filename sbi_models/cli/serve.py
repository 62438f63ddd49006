"""A registered model behind HTTP, and how to ask it."""

import json
import math
import socket
from collections.abc import Collection, Mapping

import numpy as np
import typer

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.runtime import project_root
from sbi_models.tracking import load, open_store, serve, version_of

MOST_NUMBERS = 40
"""Numbers of one data set that are written out in an example."""

Shapes = Mapping[str, tuple[int, ...]]


def serve_model(model: str, host: str, port: int, *, timeout: float, names: Collection[str] = ()) -> None:
    """Serve a registered model until it is stopped: its tensors, with the code of this package; see
    `sbi_models.tracking.serve`.

    Raises:
        TrackingError: if there is no such model.
        ModelFileError: if its file is damaged.
        ConfigurationError: if the port is taken, or the host is not of this machine.
    """
    store = open_store(project_root(), create=False)
    version = version_of(store, model)
    approximator = load(version.uri, store, certify=False)
    refuse_taken(host, port)
    shapes = {name: tuple(approximator.shapes[name]) for name in approximator.condition_names}
    typer.echo(f"{version.uri} on http://{host}:{port}/invocations  (Ctrl-C stops it)", err=True)
    typer.echo("It has no passwords: whoever reaches this address can ask it.\n", err=True)
    typer.echo(curl_example(host, port, shapes), err=True)
    serve(approximator, host, port, timeout=timeout, names=names)


def refuse_taken(host: str, port: int) -> None:
    """Raise ConfigurationError if a port cannot be listened on: it is taken, or the address is none of this
    machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ConfigurationError(
            f"Expected an address of this machine such as 127.0.0.1, got {host!r}: {error.strerror}."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"Expected a free port, got {host}:{port}: {error.strerror}. Choose another one, for "
            f"instance --port {port + 1}."
        ) from None


def curl_example(host: str, port: int, shapes: Shapes) -> str:
    """A command that asks a served model for a summary of the posterior of one data set, whose variables have
    these shapes.

    >>> print(curl_example("127.0.0.1", 5000, {"x": (2,)}))
    curl -H content-type:application/json http://127.0.0.1:5000/invocations \\
        -d '{"inputs": [[0.0, 0.0]], "params": {"num_samples": 1000, "output": "summary"}}'
    """
    start = f"curl -H content-type:application/json http://{host}:{port}/invocations \\\n    -d "
    params = '"params": {"num_samples": 1000, "output": "summary"}'
    if sum(math.prod(shape) for shape in shapes.values()) > MOST_NUMBERS:
        inside = ", ".join(f'"{name}": (n, {", ".join(map(str, shape))})' for name, shape in shapes.items())
        return (
            f'{start}@data.json    # {{"inputs": ..., {params}}}, with inputs an array, or arrays by '
            f"name: {{{inside}}}"
        )
    arrays = {name: np.zeros((1, *shape)).tolist() for name, shape in shapes.items()}
    inputs = next(iter(arrays.values())) if len(arrays) == 1 else arrays
    return f"{start}'{{\"inputs\": {json.dumps(inputs)}, {params}}}'"
