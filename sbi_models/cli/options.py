"""Options that commands of `sbi-models` have in common, and the exit of interrupted work.

It imports nothing heavy.
"""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sbi_models.errors import ConfigurationError, is_from_outside
from sbi_models.pipeline.runtime import STOPPED

if TYPE_CHECKING:
    from sbi_models.pipeline.experiment.settings import Experiment

ExperimentName = Annotated[str, typer.Argument(help="Name of an experiment of the package, or a YAML file.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bars, and no lines that tell how far it is.")
]
Json = Annotated[bool, typer.Option("--json", help="The answer as JSON, alone on standard output.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]

EPILOG = "\n\n".join(
    [
        "Exit codes: 0 success; 1 an internal error, with a traceback; 2 bad input, said in one line; 3 a "
        "verdict other than calibrated, drift, or a run that was not reproduced; 129 ended by SIGHUP, 130 "
        "interrupted and 143 ended by SIGTERM: the same command then goes on.",
        "Progress bars are silent under --quiet, where SBI_MODELS_PROGRESS is 0, and where CI is "
        "set. COMMAND --help has examples.",
    ]
)


def settings_of(experiment: str, seed: int | None = None) -> "Experiment":
    """The experiment of a name or file, with another seed if one is given."""
    from sbi_models.pipeline.experiment.yaml_files import load_experiment  # noqa: PLC0415 - help need not wait for it

    settings = load_experiment(experiment)
    return settings if seed is None else settings.model_copy(update={"seed": seed})


@contextmanager
def interruptible() -> Iterator[None]:
    """Long work that ends with a word and an exit code of its own if it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as stop:
        if not is_from_outside(stop):
            frame = traceback.extract_tb(stop.__traceback__)[-1]
            raise ConfigurationError(
                "Expected code that leaves the program running, got "
                f"sys.exit({'' if stop.code is None else repr(stop.code)}) in {frame.filename}, line "
                f"{frame.lineno}. Raise an exception there, or return."
            ) from None
        code = int(stop.code or 0)
    else:
        return
    typer.echo(f"\n{STOPPED}", err=True)
    raise typer.Exit(code)
