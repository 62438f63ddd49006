"""The champion under watch: is it still calibrated, and are the real observations still like the simulations
of its training?"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from prefect import flow, task
from scipy.special import chdtrc

from sbi_models import load, seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.certificate import p_in_words
from sbi_models.errors import ConfigurationError, DriftError
from sbi_models.pipeline.cache import content_key, refuse_changed_sources, simulator_fingerprint
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.outcomes import Manifest, Results, record
from sbi_models.pipeline.runtime import project_root, work_folder
from sbi_models.pipeline.steps.certify import certify_observations
from sbi_models.pipeline.steps.diagnose import Diagnosis
from sbi_models.tracking import FLOW_TAG, RunRecord, Store, Tracker, annotate, open_store, version_of


@flow(name="monitor", persist_result=False)
def monitor(experiment: Experiment) -> Manifest:
    """Diagnose the champion on simulations that nobody has seen, and look at the real observations; all is
    one MLflow run.

    Returns:
        Uri of the champion, verdict, p-value of the observations (None without any), and what is wrong, which
        is nothing.

    Raises:
        DriftError: if something is wrong, which fails the run and the flow.
        TrackingError: if there is no champion.
        ConfigurationError: for an experiment that narrows its prior.
    """
    if experiment.narrow is not None:
        raise ConfigurationError(
            "Expected an experiment without narrow to monitor, got one with it: its model serves "
            "one observation."
        )
    refuse_changed_sources(experiment)
    store = open_store(project_root(), create=False)
    champion = version_of(store, f"models:/{experiment.register_as.name}@champion")
    turn = 1 + max((int(found.params["turn"]) for found in watches(store, experiment)), default=0)
    with start_watch(store, experiment, champion.uri, turn) as tracker:
        found = watch(experiment, champion.uri, turn)
        record(tracker, found)
        tags = {
            "monitor.verdict": found["verdict"]["label"],
            "monitor.drift": found["drift"],
            "monitor.time": _now(),
        }
        annotate(store, champion.name, champion.version, tags=tags)
        if found["alarms"]:
            message = (
                f"{champion.uri}: {' '.join(found['alarms'])} Retrain it, or see why: run {tracker.run_id}."
            )
            raise DriftError(message, watch_answer(tracker.run_id, champion.uri, found))
    return {"run_id": tracker.run_id, "model": champion.uri} | found


def watch_answer(run_id: str, model: str, found: Manifest) -> Manifest:
    """What a monitoring has found, for machines."""
    names = ("alarms", "verdict", "drift", "p_value")
    return {"flow": "monitor", "run_id": run_id, "model": model} | {name: found[name] for name in names}


@task(name="watch")
def watch(experiment: Experiment, champion: str, turn: int) -> Manifest:
    """What there is to say of a model at its k-th monitoring, whose simulations are those of no other one."""
    approximator = load(champion, open_store(project_root(), create=False), certify=False)
    results = Results(work_folder() / "monitor" / experiment.name / str(turn))
    verdict = diagnose_afresh(experiment, approximator, turn, results)
    p_value = look_at_observations(experiment, approximator, results)
    alarms = (
        [] if verdict["is_calibrated"] else [f"Not calibrated on fresh simulations: {verdict['sentence']}"]
    )
    if p_value is not None and p_value < experiment.monitor.level:
        alarms.append(
            "The real observations are not like the simulations of the training (p = "
            f"{p_in_words(p_value, experiment.monitor.level)})."
        )
    drift = "not known" if p_value is None else "yes" if p_value < experiment.monitor.level else "no"
    results.tags |= {"alarms": " ".join(alarms) or "none"}
    return results.manifest() | {"verdict": verdict, "p_value": p_value, "drift": drift, "alarms": alarms}


def diagnose_afresh(
    experiment: Experiment, approximator: Approximator, turn: int, results: Results
) -> Manifest:
    """The verdict on new simulations, as a dict; figures and metrics go to the results."""
    study, settings = study_of(experiment), experiment.monitor
    seed = seeding.derive(experiment.seed, "monitor", turn)
    test = study.simulator.rows(0, settings.num_datasets, seed=seed, progress=False)
    draws = approximator.sample(num_samples=settings.num_samples, conditions=test, seed=seed)
    verdict: Manifest = Diagnosis(experiment, approximator.inference_names, test, seed)(
        results, approximator, draws
    )["verdict"]
    return verdict


def look_at_observations(
    experiment: Experiment, approximator: Approximator, results: Results
) -> float | None:
    """The p-value of all real observations together, small if they are not like the simulations; None without
    observations."""
    labels, observations = study_of(experiment).observations()
    if not labels:
        return None
    certificates = certify_observations(experiment, approximator, labels, observations, results)
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
    """The runs of this flow that have ended with a word on the model, whatever it was."""
    return [
        found
        for status in ("FINISHED", "FAILED")
        for found in RunRecord.ended(store, experiment.name, "monitor", status)
        if "alarms" in found.tags
    ]


def start_watch(store: Store, experiment: Experiment, champion: str, turn: int) -> Tracker:
    """The run of the k-th monitoring; one that was killed is opened again."""
    settings: Mapping[str, Any] = {
        "experiment": experiment.what_matters(),
        "monitor": experiment.monitor.model_dump(),
    }
    key = content_key("infer", "monitor", simulator_fingerprint(experiment), settings, champion, turn)
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
