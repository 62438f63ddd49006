"""What there is: experiments of the package, and models in the registry."""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sbi_models.errors import TrackingError
from sbi_models.pipeline.experiment.yaml_files import FOLDER, experiment_names
from sbi_models.pipeline.folders import project_root
from sbi_models.pipeline.report.output import output_settings, print_json
from sbi_models.tracking import ModelListing, list_models, open_store

UNBROKEN = 10_000
"""Columns where there is no terminal: one line for each experiment and model."""


def show_all() -> None:
    """Print experiments and models, in words or as JSON; a missing tracking store is no error."""
    experiments = {name: _first_line(name) for name in experiment_names()}
    try:
        models, missing = list_models(open_store(project_root(), create=False)), None
    except TrackingError as error:
        models, missing = [], str(error)
    if output_settings().as_json:
        print_json(
            {
                "experiments": [{"name": name, "description": words} for name, words in experiments.items()],
                "models": [
                    {"name": model.name, "versions": model.versions, "aliases": model.aliases}
                    for model in models
                ],
                "no_models": missing,
            }
        )
        return
    console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else UNBROKEN)
    _show_experiments(console, experiments)
    if missing is None:
        _show_models(console, models)
    else:
        console.print(f"\nno models: {escape(missing)}")


def _first_line(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _show_experiments(console: Console, experiments: Mapping[str, str]) -> None:
    table = Table("experiment", "what it is", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, words in experiments.items():
        table.add_row(name, escape(words))
    console.print(table)


def _show_models(console: Console, models: Sequence[ModelListing]) -> None:
    table = Table("model", "versions", "aliases", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for model in models:
        aliases = ", ".join(f"{alias} {version}" for alias, version in sorted(model.aliases.items()))
        table.add_row(escape(model.name), ", ".join(map(str, model.versions)), aliases)
    console.print()
    console.print(table)
