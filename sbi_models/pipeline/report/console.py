"""Console output of a pipeline run: a line for each finished step, and posteriors as tables at the end."""

from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from sbi_models.diagnostics.metrics.registry import METRICS
from sbi_models.pipeline.certificate_summary import in_short
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.folders import project_root
from sbi_models.pipeline.learned_likelihood import doubts_in_short, report_in_words
from sbi_models.pipeline.member_runs import of_member, of_mixture
from sbi_models.pipeline.outcomes import (
    Composition,
    Decision,
    Diagnosis,
    Inference,
    LearnedLikelihood,
    MonitorResult,
    Outcome,
    PipelineResult,
    Proposal,
    Registered,
    Simulations,
    Training,
)
from sbi_models.pipeline.posterior_tables import MEAN_ERROR, SD_RATIO
from sbi_models.pipeline.report.certificates import print_certificates
from sbi_models.pipeline.report.numbers import digits_of
from sbi_models.pipeline.report.output import print_line, progress_console, result_console
from sbi_models.pipeline.report.tables import comparison_facts
from sbi_models.simulators import NormalProposal
from sbi_models.tracking import open_store, run_page


class PipelineConsole:
    """Console of a pipeline run.

    Args:
        question: question of the run.
    """

    def __init__(self, question: Question) -> None:
        self.console = progress_console()
        self.question, experiment = question, question.experiment
        composing = [] if experiment.compose is None else ["compose"]
        if experiment.compose is not None and experiment.compose.likelihood is not None:
            composing = ["likelihood", *composing]
        self.stages = [
            *([] if experiment.sequential is None else ["sequential"]),
            "simulate",
            "train" if experiment.ensemble is None else "ensemble",
            "diagnose",
            "register",
            *(["infer"] if question.has_observations else []),
            *composing,
        ]
        self._started = perf_counter()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._started = perf_counter()
        self.console.print(f"[bold]\\[{self.stages.index(name) + 1}/{len(self.stages)}] {name}[/bold]")

    def _line(self, name: str, text: str) -> None:
        print_line(self.console, f"      {name:<21} {text}", indent=28)

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return perf_counter() - self._started

    def _end(self, text: str, seconds: float | None = None) -> None:
        taken = self.seconds if seconds is None else seconds
        print_line(self.console, f"      {text} [dim]({taken:.1f} s)[/dim]", indent=6)

    def _done(self, outcome: Outcome, reused: bool, text: str) -> None:
        """A step is done: the seconds that it took are those that the page of the run has."""
        if reused:
            finished = f"finished {outcome.finished} in {outcome.seconds:.1f} s"
            self._end(f"[green]reused[/green], {finished}: {text}")
        else:
            self._end(text, outcome.seconds)

    def proposed(
        self, number: int, simulations: Simulations, training: Training, proposal: Proposal, reused: bool
    ) -> None:
        """A round of simulation before the main one has led to a proposal."""
        intervals = NormalProposal.from_json(proposal.prior).central_intervals()
        for name, (low, high) in zip(self.question.parameters, intervals, strict=True):
            places = digits_of(high - low)
            self._line(escape(name), f"{low:.{places}f} to {high:.{places}f}")
        count = _grouped(sum(simulations.num_simulations.values()))
        text = (
            f"round {number + 1}: {count} simulations, {_last_losses(training.history)}; above are "
            "95 % of the next prior"
        )
        self._end(f"[green]reused[/green], finished {proposal.finished}: {text}" if reused else text)

    def simulated(self, simulations: Simulations, reused: bool) -> None:
        """Simulations are on disk."""
        contexts = {
            purpose: f" (of {_grouped(n)} contexts)" for purpose, n in simulations.num_contexts.items()
        }
        counts = ", ".join(
            f"{_grouped(n)} {purpose}{contexts.get(purpose, '')}"
            for purpose, n in simulations.num_simulations.items()
        )
        there = sum(simulations.num_simulations.values()) - simulations.made
        more = "" if reused or there <= 0 else f"; {_grouped(there)} were there"
        self._done(simulations, reused, f"{counts} simulations{more}")

    def trained(self, training: Training, reused: bool) -> None:
        """The approximator is trained, or all members of an ensemble are."""
        history = training.history
        for name, member in training.members.items():
            losses = _last_losses(of_member(history, name))
            self._line(name, f"{losses}, best epoch {member.best_epoch}, weight {member.weight:.3f}")
        for name, value in training.choices.items():
            self._line(escape(name), escape(str(value)))
        members = f"{len(training.members)} members, " if training.members else ""
        epochs = f"{len(history['loss'])} epochs: {_last_losses(of_mixture(history))}"
        self._done(training, reused, members + epochs)

    def diagnosed(self, diagnosis: Diagnosis, reused: bool) -> None:
        """Figures and metrics are tracked."""
        for name, row in diagnosis.diagnostics.items():
            numbers = "  ".join(f"{parameter} {value:7.3f}" for parameter, value in row.items())
            self._line(name, f"{numbers}  [dim]{METRICS[name].reading if name in METRICS else ''}[/dim]")
        if diagnosis.log_score is not None:
            scores = {"": diagnosis.log_score} | {
                name: member.log_score
                for name, member in diagnosis.members.items()
                if member.log_score is not None
            }
            words = "  ".join(f"{name} {score:.3f}".lstrip() for name, score in scores.items())
            self._line("Log Score", f"{words}  nats")
        for label, number in diagnosis.custom.items():
            self._line(escape(label), f"{number:.4g}")
        if (apart := diagnosis.disagreement) is not None:
            self._line(
                "Disagreement",
                f"{_pairs(apart.observed)} of real data; {_pairs(apart.simulated)} of test simulations",
            )
        verdict = diagnosis.verdict
        color = "green" if verdict["is_calibrated"] else "yellow"
        self._line("Verdict", f"[{color}]{escape(verdict['sentence'])}[/{color}]")
        jointly = {} if verdict["joint"] is None else {"jointly": verdict["joint"]}
        for name, row in (verdict["parameters"] | jointly).items():
            if row["flaws"]:
                self._line(f"  {escape(name)}", escape(row["sentence"]))
        if diagnosis.observables is not None:
            self._line("Observables", escape(diagnosis.observables["sentence"]))
        if diagnosis.doubtful:
            self._line("Draws", f"[yellow]{diagnosis.doubtful:.0%} of the posteriors with doubts[/yellow]")
        self._done(diagnosis, reused, f"{len(diagnosis.figures) + len(diagnosis.custom_figures)} figures")

    def registered(self, registered: Registered, decision: Decision) -> None:
        """The approximator is in the registry; whether it is the champion, and why."""
        color, words = ("green", "champion") if decision.promoted else ("yellow", "refused as champion")
        for reason in decision.reasons:
            self._line("Gate", f"[{color}]{words}[/{color}]: {escape(reason)}")
        self._end(registered.uri + (", the same model as before" if registered.reused else ", a new version"))

    def inferred(self, inference: Inference, reused: bool) -> None:
        """The real data sets have their posteriors; whether these can be trusted."""
        for row in inference.corrections:
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
        for row in inference.reports:
            self._line(f"Drawn {escape(row['data_set'])}", report_in_words(row))
            for warning in row["warnings"]:
                self._line("", f"[yellow]{escape(warning)}[/yellow]")
        if inference.reference_c2st:
            scores = ", ".join(f"{label} {score:.3f}" for label, score in inference.reference_c2st.items())
            self._line("C2ST to reference", f"{scores} (0.5 is indistinguishable)")
        trust = f"certificates: {in_short(inference.certificates)}"
        if inference.reports:
            trust = f"draws: {doubts_in_short(inference.reports)}"
        self._done(inference, reused, trust)

    def learned(self, learned: LearnedLikelihood, reused: bool) -> None:
        """A likelihood of single elements is learned."""
        losses = _last_losses(of_mixture(learned.history))
        self._done(learned, reused, f"{len(learned.history['loss'])} epochs: {losses}")

    def composed(self, composition: Composition, reused: bool) -> None:
        """All real data sets have one posterior; reasons not to trust it."""
        report = composition.report
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
        for name, value in comparison_facts(report):
            self._line(name.capitalize(), value)
        how = f"method {report['method']}"
        if report.get("returned") == "likelihood":
            how = "by the learned likelihood"
        self._done(composition, reused, f"one posterior given all {report['num_items']} data sets, {how}")

    def finished(self, result: PipelineResult) -> None:
        """Posteriors, and where to look next."""
        self.console, experiment = result_console(), self.question.experiment
        if result.inference is not None:
            self._posteriors(result.inference, result.composition)
        version = result.registered.version
        alias = "champion" if result.gate.champion == version else "challenger"
        model = f"models:/{experiment.register_as.name}@{alias}"
        self.console.print(f"\nmodel      {model}  (version {version})")
        if result.artifacts is not None:
            artifacts = _relative(Path(result.artifacts))
            self.console.print(f"figures    {artifacts / 'figures'}")
            if result.inference is not None:
                self.console.print(f"draws      {artifacts / 'inference' / 'draws.parquet'}")
            if result.composition is not None:
                self.console.print(f"composed   {artifacts / 'composition' / 'draws.parquet'}")
        self.console.print(f"run        {result.run_id}; {_where_to_look(result.run_id)}")
        if result.report is None:
            self.console.print(f"report     [yellow]not made[/yellow]: {escape(str(result.report_error))}")
        else:
            self.console.print(f"report     sbi-models report {result.run_id}")
        if experiment.sequential is None:  # else its draws would want weights
            self.console.print(f"sample     sbi-models sample {model} --observations FILE")

    def _posteriors(self, inference: Inference, composition: Composition | None) -> None:
        """The posteriors as tables, and certificates."""
        posteriors = pd.DataFrame(inference.table + ([] if composition is None else composition.table))
        exact, name = MEAN_ERROR in posteriors, inference.data_set_name
        ours = "corrected" if inference.corrections else "drawn" if inference.reports else "amortized"
        for (quantity, unit), rows in posteriors.groupby(["quantity", "unit"], sort=False):
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
            for column in (name, ours, *(("exact", MEAN_ERROR, SD_RATIO) if exact else ())):
                table.add_column(column, justify="left" if column == name else "right", no_wrap=True)
            digits = digits_of(rows["sd"].max())
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
        if inference.reports:
            return
        self.console.print(
            "\n[bold]certificates[/bold]: is a data set like the simulations, and is its posterior right?\n"
        )
        print_certificates(self.console, name, inference.certificates)


def print_monitoring(result: MonitorResult) -> None:
    """Print what the flow `monitor` says of a champion without alarms."""
    console, monitoring = result_console(), result.monitoring
    console.print(f"[green]{result.model}: {escape(monitoring.verdict['sentence'])}[/green]")
    if monitoring.p_value is not None:
        console.print(
            f"The real observations are like the simulations of its training (p = {monitoring.p_value:.2g})."
        )
    console.print(f"run        {result.run_id}; {_where_to_look(result.run_id)}")


def _where_to_look(run_id: str) -> str:
    """The page of a run on a server, or the command that opens MLflow's pages.

    In a checkout the environment need not be active.
    """
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


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _estimate(row: "pd.Series[Any]", prefix: str, digits: int) -> str:
    """Mean and interval."""
    mean, low, high = (f"{row[prefix + name]:.{digits}f}" for name in ("mean", "2.5 %", "97.5 %"))
    return rf"{mean} \[{low}, {high}]"


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
