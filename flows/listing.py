"""What there is: experiments of the package, and models in the registry."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.experiment_files import FOLDER, experiment_names
from flows.runtime import project_root
from sbi_models.errors import TrackingError
from sbi_models.tracking import list_models, open_store

UNBROKEN = 10_000
"""Columns where there is no terminal: one line for each experiment and model."""


def show_all() -> None:
    """Print both on standard output; without a tracking store there are no models, which is said."""
    console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else UNBROKEN)
    experiments = Table("experiment", "what it is", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in experiment_names():
        experiments.add_row(name, escape((FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")))
    console.print(experiments)
    try:
        models = list_models(open_store(project_root(), create=False))
    except TrackingError as error:
        console.print(f"\nno models: {escape(str(error))}")
        return
    table = Table("model", "versions", "aliases", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for model in models:
        aliases = ", ".join(f"{alias} {version}" for alias, version in sorted(model.aliases.items()))
        table.add_row(escape(model.name), ", ".join(map(str, model.versions)), aliases)
    console.print()
    console.print(table)
