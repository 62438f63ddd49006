"""A step that was added to an adapter and thrown away is told before anything is trained without it; nobody
else is accused."""

import copy
import pickle
from collections.abc import Callable

import pytest

from sbi_models import Adapter, BasicWorkflow, EnsembleWorkflow
from sbi_models.errors import ConfigurationError


def workflow_with(adapter: Adapter) -> BasicWorkflow:
    return BasicWorkflow(inference_variables=["s", "m"], inference_conditions="x", adapter=adapter, seed=1)


def start() -> Adapter:
    return Adapter().standardize("x")


def result_unused() -> Adapter:
    adapter = start()
    adapter.constrain("s", lower=0)
    return adapter


def chain_unused() -> Adapter:
    adapter = start()
    adapter.constrain("s", lower=0).standardize("s")
    return adapter


def another_step_kept() -> Adapter:
    return result_unused().standardize("m")


def in_a_loop() -> Adapter:
    adapter = start()
    for lower in (0, 0):
        adapter.constrain("s", lower=lower)
    return adapter


@pytest.mark.parametrize("made", [result_unused, chain_unused, another_step_kept, in_a_loop])
def test_a_step_that_was_thrown_away_is_refused_with_the_cure(made: Callable[[], Adapter]) -> None:
    """Whatever was added to an adapter, or to one that it comes from, and is neither used nor in it, is
    named: constrain of s."""
    with pytest.raises(
        ConfigurationError,
        match=r"constrain .*'s'.* was thrown away\. .* adapter = adapter\.constrain\(\.\.\.\)",
    ):
        workflow_with(made())
    workflow_with(Adapter(made().transforms))  # the cure for who means it


def kept_after_all() -> Adapter:
    adapter = result_unused()
    return adapter.constrain("s", lower=0)


def looked_at() -> Adapter:
    adapter = start()
    adapter.log("s").to_json()
    assert repr(adapter.log("s")) == "Adapter(standardize, log)"
    return adapter


def variant_used() -> Adapter:
    adapter = start()
    workflow_with(adapter.log("s"))
    return adapter


def variant_at_hand() -> Adapter:
    adapter = start()
    BESIDE.append(adapter.log("s"))
    return adapter


def copied() -> Adapter:
    adapter = start().log("s")
    for other in (copy.copy(adapter), copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert other.to_json() == adapter.to_json()
    copy.copy(adapter)
    return adapter


def used_twice() -> Adapter:
    adapter = start()
    EnsembleWorkflow(
        inference_variables=["s", "m"],
        inference_conditions="x",
        inference_networks="coupling_flow",
        ensemble_size=2,
        adapter=adapter,
    )
    workflow_with(adapter)
    return adapter


BESIDE: list[Adapter] = []


@pytest.mark.parametrize(
    "made", [kept_after_all, looked_at, variant_used, variant_at_hand, copied, used_twice]
)
def test_nobody_else_is_accused(made: Callable[[], Adapter]) -> None:
    """Steps that were kept after all, adapters that were looked at, used, kept beside or copied are no steps
    thrown away."""
    workflow_with(made())
