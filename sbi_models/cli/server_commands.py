"""Commands `serve` and `ui`: a registered model behind HTTP, and MLflow's pages."""

# Commands import what they need when they run: help must not wait for MLflow and PyTorch.
# ruff: noqa: PLC0415

import os
from typing import Annotated

import typer

from sbi_models.cli.options import Host, Port


def serve(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, or models:/NAME/VERSION.")],
    *,
    host: Host = "127.0.0.1",
    port: Port = 5001,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds for one request, its wait included; its work stops then.")
    ] = 60.0,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name of this machine by which clients ask; may be repeated.")
    ] = None,
) -> None:
    """Answer for a registered model over HTTP, and show how to ask it (stop it with Ctrl-C).

    An alias is looked up when the server starts: start it again to serve a later champion. Limits of a
    request: 10 000 data sets, 10 000 000 numbers in and as many out, 64 MiB, and --timeout. Names of hosts
    are checked: IP addresses, localhost, --host and the name of the machine are known.

    Example: sbi-models serve models:/michelson@champion --port 5001
    """
    from sbi_models.cli.serve import serve_model

    serve_model(model, host, port, timeout=timeout, names=allow_host or ())


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; loopback only.")] = "127.0.0.1",
    port: Port = 5000,
) -> None:
    """Open the MLflow UI on what was tracked (stop it with Ctrl-C).

    Example: sbi-models ui --port 5000
    """
    from sbi_models.cli.serve import refuse_taken
    from sbi_models.pipeline.folders import project_root
    from sbi_models.tracking import open_store, ui_command, ui_environment

    store = open_store(project_root(), create=False)
    command = ui_command(store, host=host, port=port)
    refuse_taken(host, port)
    typer.echo(f"MLflow UI on http://{host}:{port}  (Ctrl-C stops it)", err=True)
    os.execve(command[0], command, ui_environment(store))  # noqa: S606 - our own command; signals then reach the server itself
