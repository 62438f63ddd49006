"""A registered model behind HTTP, and how to ask it."""

import socket
from collections.abc import Collection

import typer

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.folders import project_root
from sbi_models.pipeline.model_info import open_shape
from sbi_models.pipeline.report.usage import curl_example
from sbi_models.tracking import load, open_store, serve, version_of
from sbi_models.workflows.likelihood.implied import as_posterior


def serve_model(model: str, host: str, port: int, *, timeout: float, names: Collection[str] = ()) -> None:
    """Serve a registered model over HTTP until it is stopped; see `sbi_models.tracking.serve`.

    Raises:
        TrackingError: if there is no such model.
        ModelFileError: if its file is damaged.
        ConfigurationError: if the port is taken, or the host is not of this machine.
    """
    store = open_store(project_root(), create=False)
    version = version_of(store, model)
    approximator = load(version.uri, store, certify=False)
    asked = as_posterior(approximator)
    refuse_taken(host, port)
    shapes = {name: open_shape(asked, name) for name in asked.condition_names}
    typer.echo(f"{version.uri} on http://{host}:{port}/invocations  (Ctrl-C stops it)", err=True)
    typer.echo("It has no passwords: whoever reaches this address can ask it.\n", err=True)
    typer.echo(curl_example(host, port, shapes), err=True)
    serve(approximator, host, port, timeout=timeout, names=names)


def refuse_taken(host: str, port: int) -> None:
    """Raise ConfigurationError if an address is not of this machine, or its port is taken."""
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
