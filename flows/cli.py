"""The command line `sbi-models`.

Exit codes: 0 success, 1 an internal error (with a traceback), 2 bad input (what was expected, and what to do), 3 a diagnosis whose verdict
is not "calibrated", 130 interrupted, 143 ended by SIGTERM; the same command then goes on.
"""

# Commands import what they need when they run: help must not wait for Prefect, MLflow and PyTorch.
# ruff: noqa: PLC0415

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from sbi_models.errors import ConfigurationError, SbiModelsError, suggest

app = typer.Typer(name="sbi-models", help="Amortized simulation-based inference.", no_args_is_help=True, pretty_exceptions_enable=False)

EXPERIMENTS = {
    "michelson": "flows.michelson:EXPERIMENT",
    "michelson-ensemble": "flows.michelson_ensemble:EXPERIMENT",
    "michelson-composed": "flows.michelson_composed:EXPERIMENT",
}


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="Name of the experiment.")] = "michelson",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random; default: the experiment's own.")] = None,
) -> None:
    """Run the pipeline: simulate, train one approximator or an ensemble, diagnose, register, infer, and compose where asked for.

    Example: sbi-models run michelson
    """
    if experiment not in EXPERIMENTS:
        raise ConfigurationError(f"Unknown experiment {experiment!r}. {suggest(experiment, EXPERIMENTS)}")
    from flows.parameters import Experiment, load_object
    from flows.pipeline import run as run_pipeline

    settings: Experiment = load_object(EXPERIMENTS[experiment])
    try:
        run_pipeline(settings if seed is None else settings.model_copy(update={"seed": seed}))
    except (KeyboardInterrupt, SystemExit) as stop:
        typer.echo("\nInterrupted. The same command goes on from here.", err=True)
        raise typer.Exit(130 if isinstance(stop, KeyboardInterrupt) else int(stop.code or 0)) from None


@app.command()
def schedule(
    experiment: Annotated[str, typer.Argument(help="Name of the experiment.")],
    cron: Annotated[str, typer.Option(help="When: minute, hour, day of month, month, day of week.")],
    *,
    timezone: Annotated[str, typer.Option(help="In which time zone, by its IANA name.")] = "UTC",
    flow: Annotated[str, typer.Option(help="What to run.")] = "pipeline",
    name: Annotated[str | None, typer.Option(help="Name of the schedule; default: the experiment's.")] = None,
) -> None:
    """Run an experiment again and again at the times of a cron line, until Ctrl-C; each run is a process of its own.

    The schedule lives as long as this command. It is served on the Prefect server that PREFECT_API_URL names, or on one of its own.

    Example: sbi-models schedule michelson --cron "0 3 * * *" --timezone Europe/Berlin
    """
    if experiment not in EXPERIMENTS:
        raise ConfigurationError(f"Unknown experiment {experiment!r}. {suggest(experiment, EXPERIMENTS)}")
    from flows.parameters import Experiment, load_object
    from flows.scheduling import Times
    from flows.scheduling import schedule as schedule_flow

    settings: Experiment = load_object(EXPERIMENTS[experiment])
    schedule_flow(settings, Times(cron, timezone), flow=flow, name=name)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, or a saved file.")],
    observations: Annotated[
        Path, typer.Option(help="CSV file: one row a data set, or one row a measurement (data set, position, values).")
    ],
    *,
    num_samples: Annotated[int, typer.Option(min=1, max=10_000_000, help="Posterior draws for each data set.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same draws.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Where to write the draws: .csv or .parquet. Default: CSV on standard output.")
    ] = None,
    certificate: Annotated[bool, typer.Option(help="Say for each data set whether its posterior can be trusted.")] = True,
) -> None:
    """Draw from the posterior of each observed data set, with a registered or saved model.

    The draws go to --output, or as CSV to standard output; a summary and a certificate go to standard error: is a data set like the
    simulations of the training, and do the members of an ensemble agree on it? A data set that fails changes neither draws nor exit code.

    Example: sbi-models sample models:/michelson@champion --observations speeds.csv --num-samples 1000 --output draws.csv
    """
    from flows.sampling import sample_file

    sample_file(model, observations, num_samples=num_samples, seed=seed, output=output, certificate=certificate)


@app.command()
def diagnose(  # noqa: PLR0917 - options of a command are named
    model: Annotated[str, typer.Argument(help="Name of an experiment, models:/NAME@ALIAS, models:/NAME/VERSION, or a saved file.")],
    data: Annotated[
        str | None,
        typer.Option(help="An experiment, for fresh simulations of its study, or a file of simulations: .npz, .safetensors or .pkl."),
    ] = None,
    num_datasets: Annotated[int, typer.Option(min=20, max=1_000_000, help="Fresh simulations; all rows of a file.")] = 300,
    num_samples: Annotated[int, typer.Option(min=10, max=1_000_000, help="Posterior draws for each of them.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same simulations and draws.")] = 0,
    figures: Annotated[Path | None, typer.Option(help="A folder for figures; made if it is not there.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Say whether the posteriors of a registered or saved model are calibrated, and if not, how they are wrong.

    Exit code 0: calibrated; 3: not calibrated, or no more than the prior; 2: bad input.

    Example: sbi-models diagnose michelson
    Example: sbi-models diagnose models:/michelson@champion --data test.npz --json
    """
    from flows.diagnosing import diagnose_model

    verdict = diagnose_model(
        model, data, EXPERIMENTS, num_datasets=num_datasets, num_samples=num_samples, seed=seed, figures=figures, as_json=json_output
    )
    if not verdict.is_calibrated:
        raise typer.Exit(3)


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; loopback only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open the MLflow UI on what was tracked (stop it with Ctrl-C).

    Example: sbi-models ui --port 5000
    """
    from flows.runtime import project_root
    from sbi_models.tracking import open_store, ui_command, ui_environment

    command = ui_command(open_store(project_root(), create=False), host=host, port=port)
    with socket.socket() as probe:
        if probe.connect_ex((host, port)) == 0:
            raise ConfigurationError(f"Port {port} is taken. Choose another one, for instance --port {port + 1}.")
    typer.echo(f"MLflow UI on http://{host}:{port}  (Ctrl-C stops it)", err=True)
    os.execve(command[0], command, ui_environment())  # noqa: S606 - our own command; signals then reach the server itself


def main() -> None:
    """Entry point: errors that a user can cause are one line and exit code 2."""
    try:
        app()
    except SbiModelsError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of standard output, such as `head`, has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
