"""The command line `sbi-models`.

Exit codes: 0 success, 1 an internal error (with a traceback), 2 bad input (what was expected, and what to
do), 3 a diagnosis whose verdict is not "calibrated", drift, or a run that was not reproduced, 129 ended by
SIGHUP, 130 interrupted, 143 ended by SIGTERM; the same command then goes on.
"""

# Commands import what they need when they run: help must not wait for Prefect, MLflow and PyTorch.
# ruff: noqa: PLC0415

import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sbi_models.cli.options import EPILOG, ExperimentName, Json, Quiet, interruptible, settings_of
from sbi_models.cli.server_commands import serve, ui
from sbi_models.errors import DriftError, SbiModelsError
from sbi_models.pipeline.report.output import escape_unencodable, output_as, print_json, use_utf8
from sbi_models.pipeline.runtime import end_in_time, program_environment

app = typer.Typer(
    name="sbi-models",
    help="Amortized simulation-based inference.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    experiment: ExperimentName = "michelson",
    *,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything random; default: the experiment's own.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Use no finished work: simulate, train and diagnose anew."),
    ] = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the pipeline: simulate, train one approximator or an ensemble, diagnose, register, infer, and
    compose where asked for, perhaps beside a learned likelihood.

    Example: sbi-models run michelson
    Example: sbi-models run my_experiment.yaml --seed 2 --quiet
    Example: sbi-models run michelson --fresh
    Example: sbi-models run michelson --json > answer.json
    """
    settings = settings_of(experiment, seed)
    from sbi_models.cli.run import run_flow

    with output_as(quiet=quiet, as_json=json_output), interruptible():
        run_flow("pipeline", settings, fresh=fresh)


@app.command()
def retrain(experiment: ExperimentName, *, json_output: Json = False, quiet: Quiet = False) -> None:
    """Train a challenger on more simulations than the last run had; it becomes the champion if it passes the
    gate.

    Example: sbi-models retrain michelson
    """
    settings = settings_of(experiment)
    from sbi_models.cli.run import run_flow

    with output_as(quiet=quiet, as_json=json_output), interruptible():
        run_flow("retrain", settings)


@app.command()
def monitor(experiment: ExperimentName, *, json_output: Json = False, quiet: Quiet = False) -> None:
    """Diagnose the champion on fresh simulations, and see whether the real observations are still like those
    of its training.

    Exit code 0: all is well; 3: it is not, for the reasons that are printed.

    Example: sbi-models monitor michelson
    """
    settings = settings_of(experiment)
    from sbi_models.cli.run import run_flow

    with output_as(quiet=quiet, as_json=json_output), interruptible():
        try:
            run_flow("monitor", settings)
        except DriftError as drift:
            print_json(drift.found)
            typer.echo(f"Drift: {drift}", err=True)
            raise typer.Exit(3) from None


@app.command()
def relocate() -> None:
    """Give the runs and models of a project that was moved or copied their addresses in this folder.

    Files that are in the old place alone are copied; nothing there is changed.

    Example: sbi-models relocate
    """
    from sbi_models.pipeline.folders import project_root
    from sbi_models.tracking.store import relocate_store

    done, root = relocate_store(project_root()), project_root()
    if not done.before:
        typer.echo(f"Nothing to do: the runs of {root} are where they should be.")
        return
    for place in done.before:
        typer.echo(f"from   {place}")
    copied = f"({done.entries} addresses, {done.copied} folders copied)"
    typer.echo(f"to     {root / 'mlruns' / 'artifacts'}  {copied}")


@app.command(name="list")
def list_all(*, json_output: Json = False) -> None:
    """List the experiments of the package, and the models in the registry with their versions and aliases.

    Example: sbi-models list
    """
    from sbi_models.cli.list_models import show_all

    with output_as(as_json=json_output):
        show_all()


@app.command()
def schedule(
    experiment: Annotated[str, typer.Argument(help="Name of the experiment.")],
    cron: Annotated[str, typer.Option(help="When: minute, hour, day of month, month, day of week.")],
    *,
    timezone: Annotated[str, typer.Option(help="In which time zone, by its IANA name.")] = "UTC",
    flow: Annotated[str, typer.Option(help="What to run.")] = "pipeline",
    name: Annotated[str | None, typer.Option(help="Name of the schedule; default: the experiment's.")] = None,
) -> None:
    """Run an experiment again and again at the times of a cron line, until Ctrl-C; each run is a process of
    its own.

    The schedule lives as long as this command. It is served on the Prefect server that PREFECT_API_URL names,
    or on one of its own.

    Example: sbi-models schedule michelson --cron "0 3 * * *" --timezone Europe/Berlin
    """
    settings = settings_of(experiment)
    from sbi_models.pipeline.runtime import make_folders

    make_folders()
    from sbi_models.pipeline.schedule import Times
    from sbi_models.pipeline.schedule import schedule as schedule_flow

    schedule_flow(settings, Times(cron, timezone), flow=flow, name=name)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, or a saved file.")],
    observations: Annotated[
        Path,
        typer.Option(
            help="CSV file: one row a data set, or one row a measurement (data set, position, values), "
            "as for sets of any length. Where values may be missing, an empty cell, NA or NaN is one."
        ),
    ],
    *,
    num_samples: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Posterior draws for each data set.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same draws.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write the draws: .csv or .parquet. Default: CSV on standard output."),
    ] = None,
    certificate: Annotated[
        bool, typer.Option(help="Say for each data set whether its posterior can be trusted.")
    ] = True,
    json_output: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Summary and certificates as JSON, alone on standard output; draws go to --output only.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No summary, and of certificates only those that fail.")
    ] = False,
) -> None:
    """Draw from the posterior of each observed data set, with a registered or saved model.

    The draws go to --output, or as CSV to standard output; a summary and a certificate go to standard error:
    is a data set like the simulations of the training, and do the members of an ensemble agree on it? A data
    set that fails changes neither draws nor exit code.

    Example: sbi-models sample models:/michelson@champion --observations speeds.csv --num-samples 1000
    --output draws.csv Example: sbi-models sample models:/michelson@champion --observations speeds.csv --json
    """
    from sbi_models.cli.sample import sample_file

    with output_as(quiet=quiet, as_json=json_output):
        sample_file(
            model, observations, num_samples=num_samples, seed=seed, output=output, certificate=certificate
        )


@app.command()
def diagnose(  # noqa: PLR0917 - options of a command are named
    model: Annotated[
        str,
        typer.Argument(
            help="Name or YAML file of an experiment, models:/NAME@ALIAS, models:/NAME/VERSION, or a "
            "saved file."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="An experiment, for fresh simulations of its study, or a file of simulations: .npz, "
            ".safetensors or .pkl."
        ),
    ] = None,
    num_datasets: Annotated[
        int, typer.Option(min=20, max=1_000_000, help="Fresh simulations; all rows of a file.")
    ] = 300,
    num_samples: Annotated[
        int, typer.Option(min=10, max=1_000_000, help="Posterior draws for each of them.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same simulations and draws.")] = 0,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for figures; made if it is not there.")
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether the posteriors of a registered or saved model are calibrated, and if not, how they are
    wrong.

    Exit code 0: calibrated; 3: not calibrated, or no more than the prior; 2: bad input.

    Example: sbi-models diagnose michelson
    Example: sbi-models diagnose models:/michelson@champion --data test.npz --json
    """
    from sbi_models.cli.diagnose import diagnose_model

    with output_as(quiet=quiet):
        verdict = diagnose_model(
            model,
            data,
            num_datasets=num_datasets,
            num_samples=num_samples,
            seed=seed,
            figures=figures,
            as_json=json_output,
        )
    if not verdict.is_calibrated:
        raise typer.Exit(3)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="models:/NAME/VERSION, or models:/NAME@ALIAS.")],
    *,
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
) -> None:
    """Make a registered version the champion by hand: an older one to roll back, or one that the gate
    refused.

    A version that was champion stays in the registry, and the gate does not promote it again.

    Example: sbi-models promote models:/michelson/1 --why "version 2 was trained on a wrong prior"
    """
    from sbi_models.pipeline.champions import promote as make_champion
    from sbi_models.pipeline.folders import project_root
    from sbi_models.tracking import open_store, version_of

    store = open_store(project_root(), create=False)
    version = version_of(store, model)
    before = make_champion(store, version.name, version.version, why=why)
    was = "there was none" if before is None else f"until now it was version {before}"
    typer.echo(f"models:/{version.name}@champion is version {version.version} ({was})")


@app.command()
def champions(
    model: Annotated[str, typer.Argument(help="Name of a registered model.")],
    *,
    json_output: Json = False,
) -> None:
    """List who was champion of a model: since when, in place of which version, made so by whom, and why.

    Example: sbi-models champions michelson
    """
    from sbi_models.cli.champions import show_history
    from sbi_models.pipeline.folders import project_root
    from sbi_models.tracking import open_store

    with output_as(as_json=json_output):
        show_history(open_store(project_root(), create=False), model)


@app.command()
def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a pipeline run.")],
    *,
    folder: Annotated[
        Path | None, typer.Option(help="An empty or new folder to run in. Default: below mlruns/work.")
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a tracked experiment again, from its record alone and from the start, and compare simulations,
    weights and draws.

    Exit code 0: the same to the bit; 3: different, with the largest difference of a posterior mean and sd.

    Example: sbi-models reproduce 0123456789abcdef0123456789abcdef
    """
    from sbi_models.pipeline.reproduction import reproduce_run

    with output_as(quiet=quiet, as_json=json_output), interruptible():
        same = reproduce_run(run_id, folder)
    if not same:
        raise typer.Exit(3)


@app.command()
def report(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of a pipeline run. Default: the last finished one."),
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option(help="Copy the page to this file, and do not open it.")
    ] = None,
    browser: Annotated[
        bool, typer.Option(help="Open the page in a browser, where there is a display.")
    ] = True,
    json_output: Json = False,
) -> None:
    """Open the page of a pipeline run, and print where it is: answers, verdict, certificates, figures,
    settings, lineage, how to draw.

    The page is one file that needs no network: send it to whom you like.

    Example: sbi-models report
    Example: sbi-models report 0123456789abcdef0123456789abcdef --output michelson.html
    """
    from sbi_models.cli.report import open_report

    with output_as(as_json=json_output):
        open_report(run_id, output, browser=browser)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the experiment: letters, digits and underscores.")],
    folder: Annotated[Path, typer.Option(help="Where its files go; made if it is not there.")] = Path(),
) -> None:
    """Write a new experiment that runs as it is: NAME.py with prior and likelihood, NAME.yaml with the
    settings, NAME.csv with data.

    Example: sbi-models new decay --folder experiments
    """
    from sbi_models.pipeline.experiment.scaffold import make_experiment

    for path in make_experiment(name, folder):
        typer.echo(str(path))
    typer.echo(f"\nRun it with: sbi-models run {folder / name}.yaml", err=True)


app.command()(serve)
app.command()(ui)


def main() -> None:
    """Entry point: errors that a user can cause are one line and exit code 2."""
    use_utf8()
    escape_unencodable()
    try:
        with program_environment():
            app()
    except SbiModelsError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of standard output, such as `head`, has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        gc.freeze()  # else Python looks through all packages once more before it ends
        stop = sys.exc_info()[1]
        code = stop.code if isinstance(stop, SystemExit) else int(stop is not None)
        end_in_time(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
