"""Cache keys change with what matters to a step, and with nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_run import ENSEMBLE, small_experiment

from sbi_models.pipeline.cache import observations_hash, simulator_fingerprint
from sbi_models.pipeline.experiment.composition_settings import Compose
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.settings import Diagnose, Experiment, Infer, Register
from sbi_models.pipeline.experiment.training_settings import Ensemble, Network
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.steps import compose, infer, sequential, simulate, train
from sbi_models.pipeline.studies.michelson import STUDY
from sbi_models.simulators import FailurePolicy
from sbi_models.simulators.benchmarks import NormalModel

EXPERIMENT = load_experiment("michelson")


def simulate_key(experiment: Experiment) -> str:
    return simulate.simulate_key(question_of(experiment))


def train_key(experiment: Experiment, content_hash: dict[str, str]) -> str:
    return train.train_key(question_of(experiment), content_hash)


def _changed(**update: object) -> Experiment:
    return EXPERIMENT.model_copy(update=update)


def test_keys_depend_on_seed_and_settings() -> None:
    """Another seed or number of simulations changes the simulate key; another seed, training setting or data
    set the train key."""
    fewer = EXPERIMENT.simulate.model_copy(update={"training": 10})
    longer = EXPERIMENT.train.model_copy(update={"epochs": 99})
    assert (
        len(
            {simulate_key(EXPERIMENT), simulate_key(_changed(seed=2)), simulate_key(_changed(simulate=fewer))}
        )
        == 3
    )
    keys = [
        train_key(EXPERIMENT, {"training": "a", "validation": "v"}),
        train_key(_changed(seed=2), {"training": "a", "validation": "v"}),
        train_key(_changed(train=longer), {"training": "a", "validation": "v"}),
        train_key(EXPERIMENT, {"training": "b", "validation": "v"}),
    ]
    assert len(set(keys)) == 4


def test_later_stages_do_not_change_the_keys() -> None:
    """Diagnosis, registration and inference settings make nobody simulate or train again."""
    other = _changed(
        diagnose=Diagnose(num_samples=70), register_as=Register(name="other"), infer=Infer(num_samples=3)
    )
    assert simulate_key(other) == simulate_key(EXPERIMENT)
    assert train_key(other, {"training": "a", "validation": "v"}) == train_key(
        EXPERIMENT, {"training": "a", "validation": "v"}
    )


def test_only_that_it_composes_changes_the_key() -> None:
    """A training that composes has a key of its own, whatever the settings of the composition."""
    content = {"training": "a", "validation": "v"}
    keys = [
        train_key(_changed(compose=compose), content)
        for compose in (None, Compose(), Compose(num_samples=7, noise=0.1))
    ]
    assert keys[0] != keys[1] == keys[2]


def test_the_key_of_an_ensemble_depends_on_its_members() -> None:
    """Networks, data_reuse and weights of an ensemble change its key; networks in `train` that no member has,
    and diagnoses, do not."""
    base, content = small_experiment(ENSEMBLE), {"training": "a", "validation": "v"}
    ensemble, other = base.ensemble, Network(name="coupling_flow")
    flow, sized = base.members["flow"], Ensemble(size=2)
    different = [
        base,
        base.model_copy(update={"ensemble": None}),
        base.model_copy(update={"ensemble": sized}),
        base.model_copy(
            update={"ensemble": sized, "train": base.train.model_copy(update={"inference_network": other})}
        ),
        *(
            base.model_copy(update={"ensemble": ensemble.model_copy(update=update)})
            for update in (
                {"data_reuse": 1.0},
                {"learn_weights": False},
                {"members": {"flow": flow, "coupling": flow}},
                {"members": dict(reversed(base.members.items()))},
            )
        ),
        base.model_copy(update={"train": base.train.model_copy(update={"epochs": 7})}),
    ]
    assert len({train_key(experiment, content) for experiment in different}) == len(different)
    for update in (
        {"train": base.train.model_copy(update={"inference_network": other})},
        {"diagnose": Diagnose(num_samples=70)},
    ):
        assert train_key(base.model_copy(update=update), content) == train_key(base, content)


def test_a_constant_of_the_simulator_changes_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two simulators with the same code but another constant have other fingerprints."""
    before = simulator_fingerprint(question_of(EXPERIMENT))
    monkeypatch.setattr(type(STUDY), "simulator", NormalModel(location=801.0, scale=100.0).simulator)
    assert simulator_fingerprint(question_of(EXPERIMENT)) != before


@pytest.mark.parametrize(
    "policy", [{"retries": 3}, {"allowed": 5}, {"allowed": 0.01}, {"non_finite": True}, {"timeout": 60.0}]
)
def test_a_policy_for_failures_changes_the_fingerprint(
    policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which rows a table has depends on what becomes of those that fail."""
    before = simulator_fingerprint(question_of(EXPERIMENT))
    simulator = NormalModel(location=800.0, scale=100.0).simulator
    monkeypatch.setattr(type(STUDY), "simulator", simulator)
    assert simulator_fingerprint(question_of(EXPERIMENT)) == before
    monkeypatch.setattr(simulator, "failures", FailurePolicy(**policy))
    assert simulator_fingerprint(question_of(EXPERIMENT)) != before


def test_roles_and_names_of_parameters_change_the_key_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same simulations with other roles of the variables, or another name of a parameter, are another
    training."""
    content = {"training": "a", "validation": "v"}
    roles = [
        {},
        {"inference_variables": ["x"]},
        {"summary_variables": ["theta"]},
        {"inference_conditions": ["x"]},
        {"summary_variables": [], "inference_conditions": ["x"]},
    ]
    keys = [train_key(_changed(**update), content) for update in roles]
    monkeypatch.setattr(type(STUDY), "parameter_names", {"theta": ["mu", "log_sd"]})
    keys.append(train_key(EXPERIMENT, content))
    assert len(set(keys)) == len(keys)
    assert train_key(EXPERIMENT, content | {"validation": "w"}) not in keys


def test_what_is_asked_changes_the_keys_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label or one value of the observations, a name or an offset of what is shown, the seed, the file and
    the settings are each in the keys of inference, composition and rounds; the order of labels counts."""
    question, (labels, observations) = question_of(EXPERIMENT), STUDY.observations()
    other = {"x": observations["x"].copy()}
    other["x"][4, 19, 0] += 1.0
    first, second = STUDY.quantities
    changes = [
        {},
        {"observations": lambda self: ([*labels[:4], "later"], observations)},
        {"observations": lambda self: ([*labels[:3], labels[4], labels[3]], observations)},
        {"observations": lambda self: (labels, other)},
        {"quantities": (replace(first, offset=0.0), second)},
        {"quantities": (replace(first, name="velocity"), second)},
        {"parameter_names": {"theta": ["mu", "log_sd"]}},
        {"data_set_name": "night"},
    ]
    hashes, keys = [], {name: [] for name in ("infer", "compose", "sequential")}
    makers = {
        "infer": infer.infer_key,
        "compose": compose.compose_key,
        "sequential": sequential.sequential_key,
    }
    for change in changes:
        with monkeypatch.context() as patch:
            for name, value in change.items():
                patch.setattr(type(STUDY), name, value)
            hashes.append(observations_hash(question))
            for name, key in makers.items():
                keys[name].append(key(question, "f" * 64))
    for name, key in makers.items():
        keys[name] += [key(question_of(_changed(seed=9)), "f" * 64), key(question, "e" * 64)]
        assert len(set(keys[name])) == len(changes) + 2, name
    assert len(set(hashes)) == 4


class SameStudy(type(STUDY)):  # type: ignore[misc]
    """The study of the experiment, by the code of this module."""


def test_the_code_of_a_study_changes_the_keys_of_answers() -> None:
    """A study of another module, with the same simulator, observations and names, may evaluate or compare
    otherwise: its answers have keys of their own, and its simulations are the same."""
    question = question_of(EXPERIMENT)
    other = replace(question, study=SameStudy())
    assert observations_hash(other) == observations_hash(question)
    assert simulate.simulate_key(other) == simulate.simulate_key(question)
    for key in (infer.infer_key, compose.compose_key, sequential.sequential_key):
        assert key(other, "f" * 64) != key(question, "f" * 64)


def test_references_are_the_exact_posterior() -> None:
    """The reference of each quantity agrees with draws of the exact posterior: mean, sd, interval; its
    density integrates to 1."""
    _, observations = STUDY.observations()
    references = STUDY.references(observations)
    for x, row in zip(observations["x"], references, strict=True):
        theta = NormalModel(location=800.0, scale=100.0).posterior(x).sample(200_000, seed=1)
        for reference, values in zip(row, STUDY.evaluate({"theta": theta[None]}), strict=True):
            assert reference.mean == pytest.approx(values.mean(), abs=0.01 * reference.sd)
            assert reference.sd == pytest.approx(values.std(), rel=0.01)
            np.testing.assert_allclose(
                reference.interval, np.quantile(values, [0.025, 0.975]), atol=0.05 * reference.sd
            )
            assert np.trapezoid(reference.density, reference.grid) == pytest.approx(1.0, abs=2e-3)


def test_the_reference_of_a_composition_is_the_exact_posterior_of_all_measurements() -> None:
    """It agrees with draws of the exact posterior given the hundred measurements as one data set."""
    _, observations = STUDY.observations()
    theta = (
        NormalModel(location=800.0, scale=100.0)
        .posterior(observations["x"].reshape(100))
        .sample(200_000, seed=1)
    )
    for reference, values in zip(
        STUDY.composed_references(observations), STUDY.evaluate({"theta": theta[None]}), strict=True
    ):
        assert reference.mean == pytest.approx(values.mean(), abs=0.01 * reference.sd)
        assert reference.sd == pytest.approx(values.std(), rel=0.01)
        assert np.trapezoid(reference.density, reference.grid) == pytest.approx(1.0, abs=2e-3)
