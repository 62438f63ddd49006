"""The command line `sbi-models`.

Exit codes: 0 success, 1 an internal error (with a traceback), 2 bad input (what was expected, and what to do), 3 a diagnosis whose verdict
is not "calibrated", drift, or a run that was not reproduced, 130 interrupted, 143 ended by SIGTERM; the same command then goes on.
"""

# Commands import what they need when they run: help must not wait for Prefect, MLflow and PyTorch.
# ruff: noqa: PLC0415

import gc
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbi_models.errors import ConfigurationError, DriftError, SbiModelsError

if TYPE_CHECKING:
    from flows.parameters import Experiment

app = typer.Typer(name="sbi-models", help="Amortized simulation-based inference.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="Name of an experiment of the package, or a YAML file.")] = "michelson",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random; default: the experiment's own.")] = None,
) -> None:
    """Run the pipeline: simulate, train one approximator or an ensemble, diagnose, register, infer, and compose where asked for.

    Example: sbi-models run michelson
    Example: sbi-models run my_experiment.yaml --seed 2
    """
    settings = _settings(experiment, seed)
    from flows.running import run_flow

    with _interruptible():
        run_flow("pipeline", settings)


@app.command()
def retrain(
    experiment: Annotated[str, typer.Argument(help="Name of an experiment of the package, or a YAML file.")],
) -> None:
    """Train a challenger on more simulations than the last run had; it becomes the champion if it passes the gate.

    Example: sbi-models retrain michelson
    """
    settings = _settings(experiment)
    from flows.running import run_flow

    with _interruptible():
        run_flow("retrain", settings)


@app.command()
def monitor(
    experiment: Annotated[str, typer.Argument(help="Name of an experiment of the package, or a YAML file.")],
) -> None:
    """Diagnose the champion on fresh simulations, and see whether the real observations are still like those of its training.

    Exit code 0: all is well; 3: it is not, for the reasons that are told.

    Example: sbi-models monitor michelson
    """
    settings = _settings(experiment)
    from flows.running import run_flow

    with _interruptible():
        try:
            run_flow("monitor", settings)
        except DriftError as drift:
            typer.echo(f"Drift: {drift}", err=True)
            raise typer.Exit(3) from None


@app.command(name="list")
def list_all() -> None:
    """List the experiments of the package, and the models in the registry with their versions and aliases.

    Example: sbi-models list
    """
    from flows.listing import show_all

    show_all()


def _settings(experiment: str, seed: int | None = None) -> "Experiment":
    """The experiment, with another seed if one is given."""
    from flows.experiment_files import load_experiment

    settings = load_experiment(experiment)
    return settings if seed is None else settings.model_copy(update={"seed": seed})


@contextmanager
def _interruptible() -> Iterator[None]:
    """Long work that ends with a word and an exit code of its own if it is interrupted."""
    try:
        yield
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
    settings = _settings(experiment)
    from flows.scheduling import Times
    from flows.scheduling import schedule as schedule_flow

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
    model: Annotated[
        str, typer.Argument(help="Name or YAML file of an experiment, models:/NAME@ALIAS, models:/NAME/VERSION, or a saved file.")
    ],
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
        model, data, num_datasets=num_datasets, num_samples=num_samples, seed=seed, figures=figures, as_json=json_output
    )
    if not verdict.is_calibrated:
        raise typer.Exit(3)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="models:/NAME/VERSION, or models:/NAME@ALIAS.")],
) -> None:
    """Make a registered version the champion by hand: an older one to roll back, or one that the gate refused.

    A version that is rolled back from stays in the registry, and the gate does not promote it again.

    Example: sbi-models promote models:/michelson/1
    """
    from flows.gate import promote as make_champion
    from flows.runtime import project_root
    from sbi_models.tracking import open_store, version_of

    store = open_store(project_root(), create=False)
    found = version_of(store, model)
    before = make_champion(store, found.name, found.version)
    was = "there was none" if before is None else f"until now it was version {before}"
    typer.echo(f"models:/{found.name}@champion is version {found.version} ({was})")


@app.command()
def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a pipeline run.")],
    folder: Annotated[Path | None, typer.Option(help="An empty or new folder to run in. Default: below mlruns/work.")] = None,
) -> None:
    """Run a tracked experiment again, from its record alone and from the start, and compare simulations, weights and draws.

    Exit code 0: the same to the bit; 3: different, with the largest difference of a posterior mean and sd.

    Example: sbi-models reproduce 0123456789abcdef0123456789abcdef
    """
    from flows.reproduction import reproduce_run

    with _interruptible():
        same = reproduce_run(run_id, folder)
    if not same:
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

    store = open_store(project_root(), create=False)
    command = ui_command(store, host=host, port=port)
    with socket.socket() as probe:
        if probe.connect_ex((host, port)) == 0:
            raise ConfigurationError(f"Port {port} is taken. Choose another one, for instance --port {port + 1}.")
    typer.echo(f"MLflow UI on http://{host}:{port}  (Ctrl-C stops it)", err=True)
    os.execve(command[0], command, ui_environment(store))  # noqa: S606 - our own command; signals then reach the server itself


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
    finally:
        gc.freeze()  # else Python looks through all packages once more before it ends


if __name__ == "__main__":
    main()
