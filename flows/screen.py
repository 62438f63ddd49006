"""What the main job prints."""

from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from flows.parameters import Experiment
from flows.reporting import MEAN_ERROR, SD_RATIO

STAGES = ("simulate", "train", "diagnose", "register", "infer")


class Screen:
    """Lines for the stages of a pipeline, and a table at the end."""

    def __init__(self, name: str) -> None:
        self.console = Console(soft_wrap=True, highlight=False)
        self.name = name
        self._started = perf_counter()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._started = perf_counter()
        self.console.print(f"[bold]\\[{STAGES.index(name) + 1}/{len(STAGES)}] {name}[/bold]")

    def _done(self, text: str) -> None:
        self.console.print(f"      {text} [dim]({perf_counter() - self._started:.1f} s)[/dim]")

    def simulated(self, manifest: dict[str, Any], reused: bool) -> None:
        """Simulations are on disk."""
        counts = ", ".join(f"{n:,} {purpose}".replace(",", " ") for purpose, n in manifest["num_simulations"].items())
        self._done(f"{_reused(manifest, reused)}{counts} simulations")

    def trained(self, manifest: dict[str, Any], reused: bool) -> None:
        """The approximator is trained."""
        losses = manifest["history"]
        last = ", ".join(f"{name} {values[-1]:.4f}" for name, values in losses.items())
        self._done(f"{_reused(manifest, reused)}{len(losses['loss'])} epochs: {last}")

    def diagnosed(self, manifest: dict[str, Any]) -> None:
        """Figures and metrics are tracked."""
        for name, row in manifest["metrics"].items():
            self.console.print(f"      {name:<22}" + "  ".join(f"{parameter} {value:7.3f}" for parameter, value in row.items()))
        self._done("figures: " + ", ".join(manifest["figures"]))

    def registered(self, manifest: dict[str, Any]) -> None:
        """The approximator is in the registry."""
        self._done(f"{manifest['uri']}" + (", the same model as before" if manifest["reused"] else ", a new version"))

    def finished(self, experiment: Experiment, result: dict[str, Any]) -> None:
        """The answer, and where to look next."""
        table = pd.DataFrame(result["inference"]["table"])
        exact = MEAN_ERROR in table
        for quantity, rows in table.groupby("quantity", sort=False):
            shown = Table(title=f"{quantity} [{rows['unit'].iloc[0]}]: posterior mean and 95 % interval", title_justify="left")
            for column in ("data set", "amortized", *(("exact", MEAN_ERROR, SD_RATIO) if exact else ())):
                shown.add_column(column, justify="left" if column == "data set" else "right", no_wrap=True)
            for _, row in rows.iterrows():
                cells = [str(row["data set"]), _estimate(row, "")]
                if exact:
                    cells += [_estimate(row, "exact "), f"{row[MEAN_ERROR]:+.3f}", f"{row[SD_RATIO]:.3f}"]
                shown.add_row(*cells)
            self.console.print()
            self.console.print(shown)
        model = f"models:/{experiment.register_as.name}@{experiment.register_as.alias}"
        self.console.print(f"\nmodel      {model}  (version {result['registered']['version']})")
        if result["artifacts"] is not None:
            artifacts = _relative(Path(result["artifacts"]))
            self.console.print(f"figures    {artifacts / 'figures'}\ndraws      {artifacts / 'inference' / 'draws.parquet'}")
        self.console.print(f"run        {result['run_id']}; look at it with: make ui  (or sbi-models ui)")
        self.console.print(f"sample     sbi-models sample {model} --observations FILE --num-samples 1000")


def _reused(manifest: dict[str, Any], reused: bool) -> str:
    return f"[green]reused[/green], finished {manifest['finished']}: " if reused else ""


def _estimate(row: "pd.Series[Any]", prefix: str) -> str:
    return f"{row[prefix + 'mean']:.1f}  [{row[prefix + '2.5 %']:.1f}, {row[prefix + '97.5 %']:.1f}]".replace("[", r"\[")


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
