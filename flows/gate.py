"""The gate between challenger and champion: a new version takes over if it is calibrated, and not worse than the one that it replaces."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr

from flows.parameters import Experiment
from flows.studies import study_of
from sbi_models import diagnostics, load, seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.certificate import p_in_words
from sbi_models.diagnostics.verdict import UNINFORMATIVE
from sbi_models.errors import ConfigurationError, ModelFileError, SbiModelsError, suggest
from sbi_models.tracking import Store, alias_of, annotate, set_alias
from sbi_models.types import FloatArray, Variables

CHAMPION = "champion"
ROLLED_BACK = "gate.rolled_back"
"""Tag of a version in whose place an older one was put by hand."""

DRAWS = 200
"""Of each posterior, for the energy score of models without a density."""


@dataclass(frozen=True)
class Comparison:
    """Scores of two models on the same simulations, higher is better: the mean difference, its standard error, and whether it is worse.

    `p_value` is that of a one-sided paired t-test: small if the first model is worse.
    """

    score: str
    difference: float
    error: float
    p_value: float


def judge_challenger(
    store: Store, experiment: Experiment, registered: Mapping[str, Any], verdict: Mapping[str, Any], test: Variables
) -> dict[str, Any]:
    """Give a registered version the alias `champion` if the gate passes; write the decision and its reasons to the version.

    Args:
        store: with the registry.
        experiment: with the settings of the gate, and the seed of draws.
        registered: name, version and uri of the challenger.
        verdict: of its diagnosis, as a dict.
        test: simulations that neither model was trained on, raw space.
    """
    name, version = registered["name"], registered["version"]
    before = alias_of(store, name, CHAMPION)
    said = f"verdict: {verdict['sentence']}"
    if before == version:  # what its page says of how it became so stays
        return {"promoted": True, "champion": version, "before": before, "reasons": ["it is the champion already", said]}
    reasons: list[str] = []
    refusals: list[str] = []
    if ROLLED_BACK in store.client.get_model_version(name, str(version)).tags:
        refusals.append("it was champion and was rolled back by hand: only `sbi-models promote` makes it the champion again")
    passed, words = _calibrated(experiment, verdict)
    (reasons if passed or not experiment.gate.calibrated else refusals).append(words)
    if before is None:
        reasons.append("there is no champion to compare with")
    elif experiment.gate.not_worse:
        passed, reason = _compared(store, experiment, registered["uri"], f"models:/{name}/{before}", test)
        (reasons if passed else refusals).append(reason)
    promoted = not refusals
    if promoted:
        set_alias(store, name, CHAMPION, version)
    decision = {
        "promoted": promoted,
        "champion": version if promoted else before,
        "before": before,
        "reasons": refusals or reasons,
    }
    annotate(store, name, version, tags=_tags(decision), description=described(decision, version))
    return decision


def check_gate(experiment: Experiment) -> None:
    """ConfigurationError for a parameter that there is none of."""
    known = [label for labels in study_of(experiment).parameter_names.values() for label in labels]
    for name in experiment.gate.uninformative:
        if name not in known:
            raise ConfigurationError(f"Expected parameters in gate.uninformative, got {name!r}. {suggest(name, known)}")


def _calibrated(experiment: Experiment, verdict: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the verdict lets a version be champion, and the words for it; a parameter whose posterior is the prior does not."""
    said = f"verdict: {verdict['sentence']}"
    silent = [name for name, row in verdict.get("parameters", {}).items() if row["label"] == UNINFORMATIVE]
    unknown = [name for name in silent if name not in experiment.gate.uninformative]
    if unknown:
        names = ", ".join(unknown)
        return False, (
            f"{said} The posterior of {names} may be the prior: train on more simulations, or diagnose with more (simulate: test); if the "
            f"data cannot tell, allow it with gate: {{uninformative: [{names}]}}"
        )
    return verdict["is_calibrated"] or (bool(silent) and verdict["label"] == UNINFORMATIVE), said


def promote(store: Store, name: str, version: int) -> int | None:
    """Make a version the champion by hand, such as the one before for a roll-back; returns the version that was champion until then.

    A newer version that an older one replaces is marked, so that the gate does not promote it again.
    """
    before = set_alias(store, name, CHAMPION, version)
    if before is not None and before > version:
        note = f"**Rolled back** by hand in favour of version {version}."
        annotate(store, name, before, tags={ROLLED_BACK: f"in favour of version {version}"}, description=note)
    if before != version:
        note = f"**Champion**: version {version} was promoted by hand."
        annotate(store, name, version, tags={"gate": "passed", "gate.reason": "promoted by hand"}, description=note)
    if ROLLED_BACK in store.client.get_model_version(name, str(version)).tags:
        store.client.delete_model_version_tag(name, str(version), ROLLED_BACK)
    return before


def compare(challenger: Approximator, champion: Approximator, test: Variables, seed: int) -> Comparison:
    """Paired comparison on simulations: by log density in nats where both have one, else by the energy score (its negative).

    Raises:
        SbiModelsError: if one of them cannot answer for these simulations.
    """
    both = (challenger, champion)
    if all(member.has_density for model in both for member in model.members.values()):
        score, (new, old) = "log density [nats]", (model.log_prob(test) for model in both)
    else:
        score, (new, old) = "energy score", (-_energy(model, test, seed) for model in both)
    with np.errstate(invalid="ignore"):  # densities may be 0
        differences = np.asarray(new, dtype=np.float64) - old
        mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))
    if error == 0 or not np.isfinite(error):
        return Comparison(score, mean, error, 1.0 if mean >= 0 else 0.0)
    return Comparison(score, mean, error, float(stdtr(len(differences) - 1, mean / error)))


def described(decision: Mapping[str, Any], version: int) -> str:
    """The decision in Markdown, as the page of the version shows it."""
    if decision["promoted"]:
        head = f"**Champion**: version {version} has passed the gate."
    else:
        now = "there is none" if decision["champion"] is None else f"version {decision['champion']} stays"
        head = f"**Refused** as champion; {now}."
    return "\n".join([head, "", *(f"- {reason}" for reason in decision["reasons"])])


def _tags(decision: Mapping[str, Any]) -> dict[str, str]:
    return {"gate": "passed" if decision["promoted"] else "refused", "gate.reason": "; ".join(decision["reasons"])}


def _compared(store: Store, experiment: Experiment, challenger: str, champion: str, test: Variables) -> tuple[bool, str]:
    """Whether the challenger is not worse than the champion, and the words for it; a champion that is damaged or too old refuses."""
    new = load(challenger, store, certify=False)
    try:
        old = load(champion, store, certify=False)
    except ModelFileError as error:
        return False, f"it cannot be compared with {champion}: {error}"
    if (new.inference_names, new.condition_names) != (old.inference_names, old.condition_names):
        return False, (
            f"it infers {', '.join(new.inference_names)} from {', '.join(new.condition_names)}, but {champion} infers "
            f"{', '.join(old.inference_names)} from {', '.join(old.condition_names)}: register it under another name"
        )
    try:
        found = compare(new, old, test, seeding.derive(experiment.seed, "gate"))
    except SbiModelsError as error:
        return False, f"it cannot be compared with {champion}: {error}"
    words = (
        f"{found.score} {found.difference:+.4f} ± {found.error:.4f} against {champion} on {len(next(iter(test.values())))} test simulations"
    )
    worse = found.p_value < experiment.gate.level
    return not worse, f"{words}, p = {p_in_words(found.p_value, experiment.gate.level)}: {'worse' if worse else 'not worse'}"


def _energy(model: Approximator, test: Variables, seed: int) -> FloatArray:
    draws = model.sample(num_samples=DRAWS, conditions=test, seed=seed)
    samples, truth = (np.concatenate([values[name] for name in model.inference_names], axis=-1) for values in (draws, test))
    return np.asarray(diagnostics.energy_score(samples, truth))
