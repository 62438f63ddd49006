"""HTML report of a pipeline run: one page, made of the outcomes of its steps, which needs no network.

Everything that comes from users (names, labels, settings) is escaped; styles and figures are inside the page.
"""

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.yaml_files import as_yaml
from sbi_models.pipeline.outcomes import (
    Composition,
    FilesOutcome,
    Inference,
    ModelDiagnosis,
    PipelineResult,
    Simulations,
)
from sbi_models.pipeline.report.numbers import number
from sbi_models.pipeline.report.tables import (
    certificate_rows,
    composition_facts,
    diagnostics_table,
    member_rows,
    posterior_tables,
    verdict_rows,
)
from sbi_models.pipeline.report.usage import FILE, NEAR, curl_example
from sbi_models.tracking import RunRecord, Tracker, redacted
from sbi_models.tracking.provenance import OWN_COMMIT, OWN_DIRTY, OWN_HASH

CAPTIONS = {
    "posteriors": "Posterior draws of each data set against its exact posterior.",
    "composed": "Draws of the posterior given all data sets against the exact one.",
    "losses": "Losses of each epoch. The validation loss should level off, and not rise.",
    "verdict": "By what to multiply posterior sds, and how far means are off, with intervals; 1 and 0 are "
    "right.",
    "observables": "The same for the observables given the true parameters, of which the likelihood is the "
    "density.",
    "recovery": "Posterior means against the true parameters of test simulations; near the diagonal is good, "
    "errors are posterior sds.",
    "confusion": "Mean posterior probability of each category, by the true one; the diagonal is right.",
    "reliability": "How often categories are true, by the probability that posteriors give them; near the "
    "diagonal is calibrated.",
    "calibration_ecdf": "Ranks of true parameters among posterior draws; inside the band is calibrated.",
    "coverage": "How often central intervals hold the truth, against how often they should.",
    "z_score_contraction": "How much of the prior variance is gone (right is more), and errors in "
    "posterior sds (within ±2 is usual).",
    "disagreement": "How far the members are apart on the real data, against test simulations.",
}
"""How to read each figure; others have none."""

TITLES = {"calibration_ecdf": "Calibration ECDF", "z_score_contraction": "z-scores and contraction"}
"""Names of figures that are not theirs with spaces."""

WIDE = 2.2
"""Width over height of figures that would be too small in half a page."""

MEMBER_FIGURES = ("losses", "verdict", "recovery")


@dataclass(frozen=True)
class Picture:
    """A PNG as text, with a name, what it shows, and its pixels; a wide one needs the whole page."""

    name: str
    caption: str
    data: str
    width: int
    height: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file."""
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])  # of the header of every PNG
        name = path.stem
        return cls(
            TITLES.get(name, name.replace("_", " ").capitalize()),
            CAPTIONS.get(name, ""),
            base64.b64encode(content).decode(),
            width,
            height,
        )

    @property
    def wide(self) -> bool:
        return self.width > WIDE * self.height


def publish_report(tracker: Tracker, question: Question, result: PipelineResult) -> str | None:
    """Make the page of a run and log it; the reason if that fails, which leaves the run as it is."""
    try:
        page = make_report(question, result, RunRecord.read(tracker.store, tracker.run_id))
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / FILE
            file.write_text(page, encoding="utf-8")
            tracker.log_file(file)
    except Exception as error:  # noqa: BLE001 - a run that took hours is not lost for its page
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def make_report(question: Question, result: PipelineResult, run: RunRecord) -> str:
    """The page as text.

    Args:
        question: experiment and study of the run.
        result: result of the flow `pipeline`.
        run: run with tags, parameters and data sets.
    """
    diagnosis = result.diagnosis
    model = _model(result)
    return _template("report.html.j2").render(
        experiment=question.experiment.name,
        run=_run(run),
        model=model,
        verdict=diagnosis.verdict,
        verdict_rows=verdict_rows(diagnosis.verdict),
        diagnostics=diagnostics_table(diagnosis.diagnostics),
        log_score=diagnosis.log_score,
        observables=diagnosis.observables,
        doubtful=diagnosis.doubtful,
        custom=_custom(diagnosis),
        posteriors=None if result.inference is None else _posteriors(result.inference),
        composition=None if result.composition is None else _composition(result.composition),
        members=_members(result),
        choices=result.training.choices,
        figures=_pictures(diagnosis, leave_out=diagnosis.custom_figures.values()),
        sampling=_sampling(question, result.simulations, model["address"]),
        settings=redacted(as_yaml(question.experiment)),
        params=sorted(run.params.items()),
        lineage=_lineage(result, run),
    )


def _template(name: str) -> Template:
    folder = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def _run(run: RunRecord) -> dict[str, str]:
    started = datetime.fromtimestamp(run.run.info.start_time / 1000, UTC)
    return {"id": str(run.run.info.run_id), "started": f"{started:%Y-%m-%d %H:%M UTC}"}


def _model(result: PipelineResult) -> dict[str, Any]:
    """The registered version, the decision of the gate, and the address that users take."""
    registered, gate = result.registered, result.gate
    is_champion = gate.champion == registered.version
    return {
        "name": registered.name,
        "version": registered.version,
        "address": f"models:/{registered.name}@{'champion' if is_champion else 'challenger'}",
        "is_champion": is_champion,
        "promoted": gate.promoted,
        "champion": gate.champion,
        "reasons": gate.reasons,
        "was_there": registered.reused,
    }


def _custom(diagnosis: ModelDiagnosis) -> dict[str, Any]:
    """The user's own metrics and figures."""
    pictures = [
        replace(Picture.read(Path(diagnosis.folder, file)), name=label, caption="")
        for label, file in diagnosis.custom_figures.items()
        if Path(diagnosis.folder, file).is_file()
    ]
    return {
        "numbers": [(label, number(value)) for label, value in diagnosis.custom.items()],
        "figures": pictures,
    }


def _posteriors(inference: Inference) -> dict[str, Any]:
    """Posteriors of the real data sets with their certificates."""
    rows, columns = certificate_rows(inference.certificates)
    return {
        "data_set_name": inference.data_set_name,
        "tables": posterior_tables(inference.table, inference.data_set_name, inference.certificates),
        "corrections": inference.corrections,
        "reports": [_report(row) for row in inference.reports],
        "reference_c2st": inference.reference_c2st,
        "certificates": rows,
        "certificate_columns": columns,
        "failed": [row for row in rows if row["reasons"]],
        "passed": sum(row["verdict"] == "passed" for row in rows),
        "figures": _pictures(inference),
    }


def _report(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the draws of a data set from a likelihood are worth."""
    names = ("effective_draws", "r_hat", "pareto_k", "log_evidence", "outside_reach")
    return {
        "data_set": row["data_set"],
        "numbers": [number(row[name]) for name in names],
        "warnings": row["warnings"],
    }


def _composition(composition: Composition) -> dict[str, Any]:
    """The posterior given all data sets together."""
    report = composition.report
    return {
        "tables": posterior_tables(composition.table, next(iter(composition.table[0])), []),
        "facts": composition_facts(report),
        "warnings": report["warnings"],
        "number": report["num_items"],
        "how": "from the learned likelihood of all of them"
        if report.get("returned") == "likelihood"
        else "composed of those of single data sets",
        "figures": _pictures(composition),
    }


def _members(result: PipelineResult) -> list[dict[str, Any]]:
    """Each member of an ensemble, with its figures."""
    diagnosed = result.diagnosis.members
    rows = member_rows(result.training, diagnosed)
    return [row | {"figures": _pictures(diagnosed[row["name"]], MEMBER_FIGURES)} for row in rows]


def _pictures(
    outcome: FilesOutcome, only: tuple[str, ...] | None = None, leave_out: Iterable[str] = ()
) -> list[Picture]:
    """The figures of a step, in the order of their captions, others last."""
    paths: dict[str, Path] = {}
    for file in sorted(set(outcome.files) - set(leave_out)):
        path = Path(outcome.folder, file)
        if file.startswith("figures/") and path.suffix == ".png" and path.is_file():
            paths[path.stem] = path
    order = list(CAPTIONS)
    names = sorted(paths, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [Picture.read(paths[name]) for name in names if only is None or name in only]


def _sampling(question: Question, simulations: Simulations, address: str) -> dict[str, Any]:
    """Examples of drawing for other observations, on the command line, in Python, and over HTTP."""
    schema, experiment = simulations.store("training").manifest["schema"], question.experiment
    names = [*experiment.summary_variables, *experiment.inference_conditions]
    shapes = {name: tuple(schema[name]["shape"]) for name in names}
    likelihood = experiment.likelihood
    if likelihood is not None and likelihood.iid is not None:
        start = 0 if likelihood.iid == "elements" else 1
        shapes = {name: (None, *(shape[start:] or (1,))) for name, shape in shapes.items()}
    return {
        "note": "" if experiment.sequential is None else NEAR,
        "file": len(names) == 1,
        "python": _python_example(address, shapes, experiment.inference_variables[0], likelihood is not None),
        "serve": f"sbi-models serve {address}",
        "curl": curl_example("127.0.0.1", 5001, shapes),
        "address": address,
    }


def _python_example(
    address: str, shapes: Mapping[str, tuple[int | None, ...]], target: str, is_likelihood: bool
) -> str:
    conditions = ", ".join(f"{name!r}: {_variable(name)}" for name in shapes)
    loaded = f"bf.load({address!r})"
    loaded = f"bf.LikelihoodWorkflow(network={loaded})" if is_likelihood else loaded
    lines = ["import sbi_models as bf", "", f"model = {loaded}"]
    lines += [f"# {_variable(name)}: {_described(shape)}" for name, shape in shapes.items()]
    lines += [f"draws = model.sample(num_samples=1000, conditions={{{conditions}}}, seed=1)[{target!r}]"]
    if is_likelihood:
        return "\n".join([*lines, "reports = model.reports"])
    return "\n".join([*lines, f"certificates = model.certify({{{conditions}}})"])


def _variable(name: str) -> str:
    return name if name.isidentifier() else "observations"


def _described(shape: tuple[int | None, ...]) -> str:
    """The array that a condition is, or the list of arrays if its data sets differ in length."""
    one = tuple("N" if length is None else length for length in shape)
    return (
        f"a list of n arrays of shape {_shape(one)}, for any N"
        if None in shape
        else (f"an array of shape {_shape(('n', *one))}")
    )


def _shape(sizes: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, sizes))})" if len(sizes) > 1 else f"({sizes[0]},)"


def _lineage(result: PipelineResult, run: RunRecord) -> dict[str, Any]:
    """Where the run comes from: seed, code, versions, data, model."""
    tags, simulations = run.tags, result.simulations
    hashes = run.content_hashes
    stages = ("simulate", "train", "ensemble", "diagnose", "infer", "likelihood", "compose")
    seconds = run.run.data.metrics
    return {
        "seed": tags.get("sbi_models.seed", run.params.get("seed", "")),
        "commit": tags.get("mlflow.source.git.commit"),
        "dirty": tags.get("sbi_models.git_dirty") == "true",
        "own_commit": tags.get(OWN_COMMIT),
        "own_dirty": tags.get(OWN_DIRTY) == "true",
        "own_hash": tags.get(OWN_HASH, ""),
        "versions": {
            name.removeprefix("version."): value
            for name, value in sorted(tags.items())
            if name.startswith("version.")
        },
        "data": [
            {
                "purpose": purpose,
                "number": number,
                "contexts": simulations.num_contexts.get(purpose),
                "hash": hashes.get(purpose, simulations.content_hash[purpose]),
            }
            for purpose, number in simulations.num_simulations.items()
        ],
        "stages": [
            {
                "name": name,
                "how": tags[name],
                "seconds": seconds.get(f"{name}.seconds"),
                "again": seconds.get(f"{name}.seconds_of_reuse"),
            }
            for name in stages
            if name in tags
        ],
        "simulator": tags.get("simulator.fingerprint", ""),
        "model_sha256": result.training.sha256,
        "draws": [
            {"file": file, "sha256": outcome.draws_sha256}
            for outcome, file in (
                (result.inference, "inference/draws.parquet"),
                (result.composition, "composition/draws.parquet"),
            )
            if outcome is not None
        ],
    }
