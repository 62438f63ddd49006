"""What the main job prints."""

from math import floor, log10
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from sbi_models.diagnostics.metrics.registry import METRICS
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.member_runs import of_member, of_mixture
from sbi_models.pipeline.report.output import answer_console, show, stage_console
from sbi_models.pipeline.report.posteriors import MEAN_ERROR, SD_RATIO
from sbi_models.pipeline.runtime import project_root
from sbi_models.pipeline.steps.certify import in_short, show_certificates
from sbi_models.simulators import NormalProposal
from sbi_models.tracking import open_store, run_page


class Screen:
    """Lines for the stages of a pipeline, and a table at the end."""

    def __init__(self, experiment: Experiment) -> None:
        self.console = stage_console()
        self.experiment = experiment
        self.stages = [] if experiment.narrow is None else ["narrow"]
        self.stages += [
            "simulate",
            "train" if experiment.ensemble is None else "ensemble",
            "diagnose",
            "register",
        ]
        self.stages += ["infer"] if study_of(experiment).observations()[0] else []
        self.stages += [] if experiment.compose is None else ["compose"]
        self._started = perf_counter()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._started = perf_counter()
        self.console.print(f"[bold]\\[{self.stages.index(name) + 1}/{len(self.stages)}] {name}[/bold]")

    def _line(self, name: str, text: str) -> None:
        show(self.console, f"      {name:<21} {text}", indent=28)

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return perf_counter() - self._started

    def _done(self, text: str) -> None:
        show(self.console, f"      {text} [dim]({self.seconds:.1f} s)[/dim]", indent=6)

    def _made(self, manifest: dict[str, Any], reused: bool, text: str) -> None:
        """A task is done: the seconds that it took are those that the page of the run has."""
        if reused:
            self._done(
                f"[green]reused[/green], finished {manifest['finished']} in "
                f"{manifest['seconds']:.1f} s: {text}"
            )
        else:
            show(
                self.console,
                f"      {text} [dim]({manifest.get('seconds', self.seconds):.1f} s)[/dim]",
                indent=6,
            )

    def narrowed(
        self,
        number: int,
        simulations: dict[str, Any],
        training: dict[str, Any],
        found: dict[str, Any],
        reused: bool,
    ) -> None:
        """A round of simulation before the main one has shown where the next one looks."""
        prior = NormalProposal.from_json(found["prior"])
        names = [name for labels in study_of(self.experiment).parameter_names.values() for name in labels]
        intervals = prior.central_intervals()
        digits = [_digits(high - low) for low, high in intervals]
        for name, (low, high), places in zip(names, intervals, digits, strict=True):
            self._line(escape(name), f"{low:.{places}f} to {high:.{places}f}")
        count = f"{sum(simulations['num_simulations'].values()):,}".replace(",", " ")
        text = (
            f"round {number + 1}: {count} simulations, {_last_losses(training['history'])}; above are "
            "95 % of the next prior"
        )
        self._done(f"[green]reused[/green], finished {found['finished']}: {text}" if reused else text)

    def simulated(self, manifest: dict[str, Any], reused: bool) -> None:
        """Simulations are on disk."""
        counts = ", ".join(
            f"{n:,} {purpose}".replace(",", " ") for purpose, n in manifest["num_simulations"].items()
        )
        kept = sum(manifest["num_simulations"].values()) - manifest["made"]
        more = "" if reused or kept <= 0 else f"; {f'{kept:,}'.replace(',', ' ')} were there"
        self._made(manifest, reused, f"{counts} simulations{more}")

    def trained(self, manifest: dict[str, Any], reused: bool) -> None:
        """The approximator is trained, or all members of an ensemble are."""
        history = manifest["history"]
        for name, member in manifest.get("members", {}).items():
            losses, numbers = _last_losses(of_member(history, name)), member["numbers"]
            self._line(name, f"{losses}, best epoch {numbers['best_epoch']}, weight {numbers['weight']:.3f}")
        for name, value in manifest.get("choices", {}).items():
            self._line(escape(name), escape(str(value)))
        members = f"{len(manifest['members'])} members, " if "members" in manifest else ""
        self._made(
            manifest, reused, f"{members}{len(history['loss'])} epochs: {_last_losses(of_mixture(history))}"
        )

    def diagnosed(self, manifest: dict[str, Any], reused: bool) -> None:
        """Figures and metrics are tracked."""
        for name, row in manifest["diagnostics"].items():
            self._line(
                name,
                "  ".join(f"{parameter} {value:7.3f}" for parameter, value in row.items())
                + f"  [dim]{METRICS[name].reading if name in METRICS else ''}[/dim]",
            )
        if "log_score" in manifest:
            rows = {"": manifest} | {
                name: row for name, row in manifest.get("members", {}).items() if "log_score" in row
            }
            self._line(
                "Log Score",
                "  ".join(f"{name} {row['log_score']:.3f}".lstrip() for name, row in rows.items()) + "  nats",
            )
        if "disagreement" in manifest:
            observed, simulated = manifest["disagreement"]["observed"], manifest["disagreement"]["simulated"]
            self._line(
                "Disagreement", f"{_pairs(observed)} of real data; {_pairs(simulated)} of test simulations"
            )
        verdict = manifest["verdict"]
        color = "green" if verdict["is_calibrated"] else "yellow"
        self._line("Verdict", f"[{color}]{escape(verdict['sentence'])}[/{color}]")
        rows = {
            **verdict["parameters"],
            **({} if verdict["joint"] is None else {"jointly": verdict["joint"]}),
        }
        for name, row in rows.items():
            if row["flaws"]:
                self._line(f"  {escape(name)}", escape(row["sentence"]))
        self._made(manifest, reused, f"{len(manifest['figures'])} figures")

    def registered(self, manifest: dict[str, Any], gate: dict[str, Any]) -> None:
        """The approximator is in the registry; whether it is the champion, and why."""
        color, said = ("green", "champion") if gate["promoted"] else ("yellow", "refused as champion")
        for reason in gate["reasons"]:
            self._line("Gate", f"[{color}]{said}[/{color}]: {escape(reason)}")
        self._done(
            f"{manifest['uri']}" + (", the same model as before" if manifest["reused"] else ", a new version")
        )

    def inferred(self, manifest: dict[str, Any], reused: bool) -> None:
        """The real data sets have their posteriors; whether these can be trusted."""
        for row in manifest["corrections"]:
            before = f"{row['raw_effective_draws']:.0f} before smoothing"
            worth = (
                f"{row['effective_draws']:.0f} effective draws of {row['num_proposals']} ({before}), "
                f"Pareto k {row['pareto_k']:.2f}"
            )
            self._line(
                f"Corrected {escape(row['data_set'])}", f"{worth}, log evidence {row['log_evidence']:.2f}"
            )
            for warning in row["warnings"]:
                self._line("", f"[yellow]{escape(warning)}[/yellow]")
        if manifest["reference_c2st"]:
            scores = ", ".join(f"{label} {score:.3f}" for label, score in manifest["reference_c2st"].items())
            self._line("C2ST to reference", f"{scores} (0.5 is indistinguishable)")
        self._made(manifest, reused, f"certificates: {in_short(manifest['certificates'])}")

    def composed(self, manifest: dict[str, Any], reused: bool) -> None:
        """All real data sets have one posterior; reasons not to trust it."""
        report = manifest["report"]
        for warning in report["warnings"]:
            self._line("Warning", f"[yellow]{escape(warning)}[/yellow]")
        if report["sbc_p_value"] is not None:
            off = f"off by about {report['sbc_shift']:+.2f} posterior sd"
            self._line(
                "Test of draws",
                f"posterior simulation-based calibration: p = {report['sbc_p_value']:.3g}, {off}",
            )
        if report["calibrated"] and report["bias_shift"] is not None:
            by = (
                f"{report['simulations']} simulations"
                if report["simulations"]
                else "what the training learned"
            )
            corrected = f"corrected by {by} to within {report['calibration_residual']:.3f}"
            self._line("Shared errors", f"{report['bias_shift']:.3f} posterior sd, {corrected}")
        self._made(
            manifest,
            reused,
            f"one posterior given all {report['num_items']} data sets, method {report['method']}",
        )

    def finished(self, result: dict[str, Any]) -> None:
        """The answer, and where to look next."""
        self.console = answer_console()
        if result["inference"] is not None:
            self._answers(result["inference"], result["composition"])
        name, version = self.experiment.register_as.name, result["registered"]["version"]
        alias = "champion" if result["gate"]["champion"] == version else "challenger"
        model = f"models:/{name}@{alias}"
        self.console.print(f"\nmodel      {model}  (version {version})")
        if result["artifacts"] is not None:
            artifacts = _relative(Path(result["artifacts"]))
            self.console.print(f"figures    {artifacts / 'figures'}")
            for label, step in (("draws", "inference"), ("composed", "composition")):
                if result[step] is not None:
                    self.console.print(f"{label:<10} {artifacts / step / 'draws.parquet'}")
        self.console.print(f"run        {result['run_id']}; {_where_to_look(result['run_id'])}")
        if result["report"] is None:
            self.console.print(f"report     [yellow]not made[/yellow]: {escape(result['report_error'])}")
        else:
            self.console.print(f"report     sbi-models report {result['run_id']}")
        if self.experiment.narrow is None:  # else its draws would want weights
            self.console.print(f"sample     sbi-models sample {model} --observations FILE")

    def _answers(self, inference: dict[str, Any], composition: dict[str, Any] | None) -> None:
        """The posteriors as tables, and certificates."""
        posteriors = pd.DataFrame(inference["table"] + (composition["table"] if composition else []))
        exact, name = MEAN_ERROR in posteriors, inference["data_set_name"]
        ours = "corrected" if inference["corrections"] else "amortized"
        for (quantity, unit), rows in posteriors.groupby(["quantity", "unit"], sort=False):
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
            for column in (name, ours, *(("exact", MEAN_ERROR, SD_RATIO) if exact else ())):
                table.add_column(column, justify="left" if column == name else "right", no_wrap=True)
            digits = _digits(rows["sd"].max())
            for _, row in rows.iterrows():
                cells = [str(row[name]), _estimate(row, "", digits)]
                if exact:
                    cells += [
                        _estimate(row, "exact ", digits),
                        f"{row[MEAN_ERROR]:+.3f}",
                        f"{row[SD_RATIO]:.3f}",
                    ]
                table.add_row(*cells)
            self.console.print(
                f"\n[bold]{quantity}[/bold]{f' in {unit}' if unit else ''}: posterior mean \\[95 % "
                "interval]\n"
            )
            self.console.print(table)
        if exact:
            self.console.print(
                f"\n{MEAN_ERROR}: {ours} minus exact mean in exact posterior sd; {SD_RATIO}: "
                f"{ours} over exact"
            )
        self.console.print(
            "\n[bold]certificates[/bold]: is a data set like the simulations, and is its posterior right?\n"
        )
        show_certificates(self.console, name, inference["certificates"])


def show_monitored(result: dict[str, Any]) -> None:
    """What the flow `monitor` has found, where nothing was wrong."""
    console = answer_console()
    console.print(f"[green]{result['model']}: {escape(result['verdict']['sentence'])}[/green]")
    if result["p_value"] is not None:
        console.print(
            f"The real observations are like the simulations of its training (p = {result['p_value']:.2g})."
        )
    console.print(f"run        {result['run_id']}; {_where_to_look(result['run_id'])}")


def _where_to_look(run_id: str) -> str:
    """The page of a run on a server, or the command that opens MLflow's pages: in a checkout the environment
    need not be active."""
    page = run_page(open_store(project_root(), create=False), run_id)
    if page is not None:
        return f"look at it at {page}"
    makefile = project_root() / "Makefile"
    in_checkout = makefile.is_file() and "sbi-models ui" in makefile.read_text(errors="replace")
    return f"look at it with: {'make ui' if in_checkout else 'sbi-models ui'}"


def _last_losses(history: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {values[-1]:.4f}" for name, values in history.items())


def _pairs(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:.4f}" for name, number in numbers.items())


def _digits(sd: float) -> int:
    """Decimals that show two digits of a standard deviation."""
    return max(0, 1 - floor(log10(sd))) if sd > 0 else 3


def _estimate(row: "pd.Series[Any]", prefix: str, digits: int) -> str:
    """Mean and interval."""
    mean, low, high = (f"{row[prefix + name]:.{digits}f}" for name in ("mean", "2.5 %", "97.5 %"))
    return rf"{mean} \[{low}, {high}]"


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
