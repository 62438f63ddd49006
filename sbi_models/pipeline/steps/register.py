"""Step `register`: a new version in the model registry, and the gate between challenger and champion.

A challenger takes over if it is calibrated, and shown not to be worse by a margin.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sbi_models import load, seeding
from sbi_models.approximators import Approximator
from sbi_models.diagnostics.verdict import UNINFORMATIVE
from sbi_models.errors import ConfigurationError, SbiModelsError, suggest
from sbi_models.pipeline.champions import (
    champion_of,
    crown,
    follow_alias,
    reference_of,
    set_reference,
    was_champion,
)
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.folders import project_root
from sbi_models.pipeline.model_comparison import Comparison, compare
from sbi_models.pipeline.outcomes import (
    Decision,
    Diagnosis,
    JSONObject,
    Registered,
    Simulations,
    Training,
    VersionComparison,
)
from sbi_models.pipeline.steps.diagnose import verdict_tags
from sbi_models.pipeline.steps.simulate import more_tests
from sbi_models.pipeline.steps.task import step
from sbi_models.tracking import Store, annotate, open_store
from sbi_models.tracking import register as register_version
from sbi_models.types import Variables

MOST = 20_000
"""Test simulations that are made for a comparison, unless the settings say otherwise, and never more than
there are to train on."""

Tests = Callable[[int], Variables]
"""The first simulations of the stream of test simulations, of which it makes those that are missing."""


@step("register", Registered)
def register(experiment: Experiment, training: Training, diagnosis: Diagnosis, run_id: str) -> Registered:
    """Register the approximator as challenger, with its verdict as tags; the same file is registered once."""
    version = register_version(
        open_store(project_root()),
        experiment.register_as.name,
        training.model,
        run_id,
        aliases=("challenger",),
        tags=verdict_tags(diagnosis.verdict),
        metrics=diagnosis.metrics,
    )
    return Registered(uri=version.uri, name=version.name, version=version.version, reused=version.reused)


def decide(
    question: Question, simulations: Simulations, diagnosis: Diagnosis, registered: Registered
) -> Decision:
    """Decide whether the challenger becomes the champion.

    As many more test simulations are computed as it takes to tell.
    """
    return judge_challenger(
        open_store(project_root()),
        question.experiment,
        registered,
        diagnosis.verdict,
        simulations.load("test"),
        tests=partial(more_tests, question),
    )


def judge_challenger(
    store: Store,
    experiment: Experiment,
    registered: Registered,
    verdict: JSONObject,
    test: Variables,
    *,
    tests: Tests | None = None,
) -> Decision:
    """Give a version the alias `champion` if the gate passes, and write the decision to the version.

    Args:
        store: the store that has the registry.
        experiment: experiment with the settings of the gate, and the seed of draws.
        registered: name, version and uri of the challenger.
        verdict: verdict of its diagnosis, as a dict.
        test: simulations that no model was trained on, raw space.
        tests: function that simulates more of them, where these do not tell; None for no more.
    """
    name, version = registered.name, registered.version
    while True:
        before = champion_of(store, name)
        if before == version:  # what its page says of how it became so stays
            follow_alias(store, name)
            reasons = ["it is the champion already", f"verdict: {verdict['sentence']}"]
            return Decision(promoted=True, champion=version, before=before, reasons=reasons)
        reasons, refusals = _judged(store, experiment, registered, verdict)
        rivals = [] if before is None or not experiment.gate.not_worse else _rivals(store, name, before)
        comparisons: dict[int, Comparison] = {}
        for rival in rivals:
            passed, words, comparison = _compared(
                store, experiment, registered, rival, test=test, tests=None if refusals else tests
            )
            (reasons if passed else refusals).append(words)
            comparisons |= {} if comparison is None else {rival: comparison}
        if before is None:
            reasons.append("there is no champion to compare with")
        decision = Decision(
            promoted=not refusals,
            champion=before if refusals else version,
            before=before,
            reasons=refusals or reasons,
            comparisons=[_row(comparison, rival) for rival, comparison in comparisons.items()],
        )
        if refusals:
            annotate(store, name, version, tags=_tags(decision), description=described(decision, version))
            return decision
        if (
            crown(store, name, version, reasons=reasons, why=f"by the gate: {reasons[-1]}", expected=before)
            == before
        ):
            is_measure = all(comparison.word == "better" for comparison in comparisons.values())
            set_reference(store, name, version, None if is_measure else rivals[-1])
            return decision
        # else another run has made another version the champion meanwhile: compare with that one


def check_gate(question: Question) -> None:
    """Raise ConfigurationError if `gate.uninformative` names a parameter that there is none of."""
    for name in question.experiment.gate.uninformative:
        if name not in question.parameters:
            raise ConfigurationError(
                f"Expected parameters in gate.uninformative, got {name!r}. "
                f"{suggest(name, question.parameters)}"
            )


def _judged(
    store: Store, experiment: Experiment, registered: Registered, verdict: JSONObject
) -> tuple[list[str], list[str]]:
    """What speaks for a version and against it by itself: its past, and its verdict."""
    name, version = registered.name, registered.version
    passed, words = _calibrated(experiment, verdict)
    refused = [] if passed or not experiment.gate.calibrated else [words]
    if was_champion(store, name, version):
        only = f"only `sbi-models promote models:/{name}/{version}` makes it the champion again"
        refused.insert(0, f"it was champion before: {only}")
    return [] if words in refused else [words], refused


def _rivals(store: Store, name: str, champion: int) -> list[int]:
    """The champion, and the version that it was only shown not to be worse than.

    Without the second, many small steps would lead down.
    """
    reference = reference_of(store, name, champion)
    return [champion] if reference is None else list(dict.fromkeys([champion, reference]))


def _calibrated(experiment: Experiment, verdict: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the verdict lets a version be champion, in words, too.

    A parameter whose posterior is the prior does not.
    """
    words = f"verdict: {verdict['sentence']}"
    silent = [name for name, row in verdict.get("parameters", {}).items() if row["label"] == UNINFORMATIVE]
    unknown = [name for name in silent if name not in experiment.gate.uninformative]
    if unknown:
        names = ", ".join(unknown)
        return False, (
            f"{words} The posterior of {names} may be the prior: train on more simulations, or diagnose with "
            "more (simulate: test); if the data cannot tell, allow it with gate: {uninformative: "
            f"[{names}]}}"
        )
    return verdict["is_calibrated"] or (bool(silent) and verdict["label"] == UNINFORMATIVE), words


def described(decision: Decision, version: int) -> str:
    """The decision in Markdown, as the page of the version shows it."""
    if decision.promoted:
        head = f"Version {version} has passed the gate and is the champion."
    else:
        now = "there is none" if decision.champion is None else f"version {decision.champion} stays"
        head = f"**Refused** as champion; {now}."
    return "\n".join([head, "", *(f"- {reason}" for reason in decision.reasons)])


def _tags(decision: Decision) -> dict[str, str]:
    return {
        "gate": "passed" if decision.promoted else "refused",
        "gate.reason": "; ".join(decision.reasons),
    }


def _compared(
    store: Store,
    experiment: Experiment,
    registered: Registered,
    rival: int,
    *,
    test: Variables,
    tests: Tests | None,
) -> tuple[bool, str, Comparison | None]:
    """Whether the challenger is not worse than a version by the margin, in words and numbers, too.

    Against a newer one it has to be better.

    A rival that is damaged, of an earlier format or deleted refuses.
    """
    name, version = registered.name, registered.version
    address, cure = (
        f"models:/{name}/{rival}",
        f"Make one of the versions the champion by hand: sbi-models promote models:/{name}/{version}",
    )
    new = load(registered.uri, store, certify=False)
    try:
        old = load(address, store, certify=False)
        if (new.inference_names, new.condition_names) != (old.inference_names, old.condition_names):
            return (
                False,
                f"{_asks(new)}, but {address} {_asks(old, '')}: register it under another name",
                None,
            )
        comparison = _at_all_looks(experiment, new, old, test, tests)
    except SbiModelsError as error:
        return False, f"it cannot be compared with {address}: {error} {cure}.", None
    words = comparison.in_words(address)
    if comparison.word == "not known":
        words += f". {_more(experiment, comparison)}"
    if comparison.not_worse and version < rival and comparison.word != "better":
        return False, f"{words}. It is older: only a better one would take over", comparison
    return comparison.not_worse, words, comparison


def _at_all_looks(
    experiment: Experiment, new: Approximator, old: Approximator, test: Variables, tests: Tests | None
) -> Comparison:
    """The comparison on the test simulations and, where these do not tell, on as many as it takes."""
    gate, seed = experiment.gate, seeding.derive(experiment.seed, "gate")
    comparison = compare(new, old, test, seed, margin=gate.margin, level=gate.level)
    if tests is None or not comparison.is_open:
        return comparison
    enough = min(comparison.wanted, comparison.num_simulations + most_simulations(experiment))
    return (
        comparison
        if enough <= comparison.num_simulations
        else compare(new, old, tests(enough), seed, margin=gate.margin, level=gate.level)
    )


def most_simulations(experiment: Experiment) -> int:
    """How many test simulations may be made for a comparison, beside those of the diagnosis."""
    given = experiment.gate.simulations
    return min(MOST, experiment.simulate.training) if given is None else given


def _more(experiment: Experiment, comparison: Comparison) -> str:
    """What would tell, where it is not known."""
    gate = experiment.gate
    if not comparison.is_open:
        return f"It is refused as long as that is so; a wider margin is gate: {{margin: {2 * gate.margin:g}}}"
    cure = f"{comparison.wanted} test simulations would tell: gate: {{simulations: {comparison.wanted}}}"
    return f"{cure}, or a wider margin: gate: {{margin: {2 * gate.margin:g}}}"


def _asks(model: Approximator, subject: str = "it ") -> str:
    return f"{subject}infers {', '.join(model.inference_names)} from {', '.join(model.condition_names)}"


def _row(comparison: Comparison, rival: int) -> VersionComparison:
    names = ("word", "score", "num_simulations", "difference", "low", "high", "margin", "level")
    return VersionComparison(version=rival, **{name: getattr(comparison, name) for name in names})
