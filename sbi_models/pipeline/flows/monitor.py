"""The monitoring of a champion: diagnosis on fresh simulations, and a drift test of the real observations."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from prefect import flow
from scipy.special import chdtrc

from sbi_models import load, seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.certificate import p_in_words
from sbi_models.errors import ConfigurationError, DriftError
from sbi_models.pipeline.cache import content_key, refuse_changed_sources, simulator_fingerprint
from sbi_models.pipeline.experiment.question import Question, question_of
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.flows.registry import register_flow
from sbi_models.pipeline.folders import project_root, work_folder
from sbi_models.pipeline.outcomes import JSONObject, Monitoring, MonitorResult, Results
from sbi_models.pipeline.report.json_summary import monitor_summary
from sbi_models.pipeline.report.results import show_monitoring
from sbi_models.pipeline.run_record import log_files
from sbi_models.pipeline.steps.diagnose import Diagnoser, diagnose_likelihood
from sbi_models.pipeline.steps.infer import certify_observations
from sbi_models.pipeline.steps.task import step
from sbi_models.tracking import FLOW_TAG, RunRecord, Store, Tracker, annotate, open_store, version_of
from sbi_models.workflows.likelihood.implied import is_likelihood


@register_flow("monitor", show=show_monitoring)
@flow(name="monitor", persist_result=False)
def monitor(experiment: Experiment) -> MonitorResult:
    """Diagnose the champion on fresh simulations, and test the real observations for drift, in one run.

    Raises:
        DriftError: if there are alarms, which fails the run and the flow.
        TrackingError: if there is no champion.
        ConfigurationError: for an experiment with a sequential proposal.
    """
    if experiment.sequential is not None:
        raise ConfigurationError(
            "Expected an experiment without sequential to monitor, got one with it: its model serves "
            "one observation."
        )
    question = question_of(experiment)
    refuse_changed_sources(question)
    store = open_store(project_root(), create=False)
    champion = version_of(store, f"models:/{experiment.register_as.name}@champion")
    turn = 1 + max((int(record.params["turn"]) for record in watches(store, experiment)), default=0)
    with start_watch(store, question, champion.uri, turn) as tracker:
        monitoring = watch(question, champion.uri, turn)
        log_files(tracker, monitoring)
        tags = {
            "monitor.verdict": monitoring.verdict["label"],
            "monitor.drift": monitoring.drift,
            "monitor.time": _now(),
        }
        annotate(store, champion.name, champion.version, tags=tags)
        result = MonitorResult(run_id=tracker.run_id, model=champion.uri, monitoring=monitoring)
        if monitoring.alarms:
            message = (
                f"{champion.uri}: {' '.join(monitoring.alarms)} Retrain it, or see why: run {tracker.run_id}."
            )
            raise DriftError(message, monitor_summary(result))
    return result


@step("watch", Monitoring)
def watch(question: Question, champion: str, turn: int) -> Monitoring:
    """Diagnose a model on simulations of this monitoring alone, and test the real observations for drift."""
    experiment = question.experiment
    approximator = load(champion, open_store(project_root(), create=False), certify=False)
    results = Results(work_folder() / "monitor" / experiment.name / str(turn))
    verdict = diagnose_afresh(question, approximator, turn, results)
    p_value, level = look_at_observations(question, approximator, results), experiment.monitor.level
    alarms = (
        [] if verdict["is_calibrated"] else [f"Not calibrated on fresh simulations: {verdict['sentence']}"]
    )
    if p_value is not None and p_value < level:
        alarms.append(
            "The real observations are not like the simulations of the training (p = "
            f"{p_in_words(p_value, level)})."
        )
    drift = "not known" if p_value is None else "yes" if p_value < level else "no"
    results.tags |= {"alarms": " ".join(alarms) or "none"}
    return Monitoring(**results.fields(), verdict=verdict, p_value=p_value, drift=drift, alarms=alarms)


def diagnose_afresh(
    question: Question, approximator: Approximator, turn: int, results: Results
) -> JSONObject:
    """The verdict on new simulations, as a dict; figures and metrics go to the results."""
    settings = question.experiment.monitor
    seed = seeding.derive(question.experiment.seed, "monitor", turn)
    test = question.study.simulator.rows(0, settings.num_datasets, seed=seed, progress=False)
    if is_likelihood(approximator):
        fields = diagnose_likelihood(question, approximator, test, results)
        return dict(fields["verdict"])
    draws = approximator.sample(num_samples=settings.num_samples, conditions=test, seed=seed)
    diagnoser = Diagnoser(question, approximator.inference_names, test, seed)
    verdict: JSONObject = diagnoser(results, approximator, draws)["verdict"]
    return verdict


def look_at_observations(question: Question, approximator: Approximator, results: Results) -> float | None:
    """The p-value of all real observations together, small if they are unlike the simulations.

    None without observations, and of a learned likelihood.
    """
    labels, observations = question.study.observations()
    if not labels or is_likelihood(approximator):
        return None
    certificates = certify_observations(question, approximator, labels, observations, results)
    p_value = drift_p_value(
        [certificate["novelty"] for certificate in certificates if certificate["novelty"] is not None]
    )
    if p_value is not None:
        results.metrics["drift.p_value"] = p_value
    return p_value


def drift_p_value(p_values: Sequence[float]) -> float | None:
    """One p-value of those of several observations; None for none of them.

    Two questions, each of which counts half (Bonferroni): is one of them far out (the smallest p-value), and
    are many of them somewhat out (Fisher's sum of logarithms)? It assumes that data sets are independent.
    P-values of novelty are ranks among the simulations that a model keeps for it, at most 2000: one of n
    observations, however far out, is an alarm by itself only if there are 2 n / level of them.
    """
    if not p_values:
        return None
    values, n = np.asarray(p_values, dtype=np.float64), len(p_values)
    smallest = -np.expm1(n * np.log1p(-values.min())) if values.min() < 1 else 1.0
    together = chdtrc(2 * n, -2 * np.log(values).sum())
    return float(min(1.0, 2 * min(smallest, together)))


def watches(store: Store, experiment: Experiment) -> list[RunRecord]:
    """The runs of this flow that ended with a result, alarms or none."""
    return [
        record
        for status in ("FINISHED", "FAILED")
        for record in RunRecord.ended(store, experiment.name, "monitor", status)
        if "alarms" in record.tags
    ]


def start_watch(store: Store, question: Question, champion: str, turn: int) -> Tracker:
    """The run of the k-th monitoring; one that was killed is opened again."""
    experiment = question.experiment
    settings: Mapping[str, Any] = {
        "experiment": experiment.what_matters(),
        "monitor": experiment.monitor.model_dump(),
    }
    key = content_key("monitor", __name__, simulator_fingerprint(question), settings, champion, turn)
    tags = {FLOW_TAG: "monitor", "model": champion}
    params = {
        "model": champion,
        "turn": turn,
        "seed": experiment.seed,
        "monitor": experiment.monitor.model_dump(),
    }
    return Tracker.start(
        store,
        experiment.name,
        f"{experiment.name} monitor {turn}",
        key=key,
        params=params,
        tags=tags,
        folder=experiment.folder,
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
