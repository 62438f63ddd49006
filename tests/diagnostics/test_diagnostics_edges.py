"""Edges of diagnostics: defaults, columns without spread, ties, and thresholds that are met exactly."""

import inspect

import pytest

from sbi_models import diagnostics
from sbi_models.diagnostics import metrics

DEFAULTS = {"level": 0.95, "band": 0.95, "seed": 0, "folds": 5, "num_null": 100, "classifier": "mlp"}
DEFAULTS |= {"false_alarms": 0.01, "scaled": True, "kind": "mean", "estimate": "mean", "joint": True}


@pytest.mark.parametrize("module", [diagnostics, metrics])
def test_settings_of_one_name_have_one_default(module):
    """Every public function has the same default for a setting as the others: 95 % levels, seed 0."""
    found = {
        (name, a.name): a.default
        for name in module.__all__
        if callable(function := getattr(module, name)) and not inspect.isclass(function)
        for a in inspect.signature(function).parameters.values()
        if a.default is not a.empty and a.default is not None and not a.name.endswith("label")
    }
    assert found == {(name, setting): DEFAULTS[setting] for name, setting in found}
    assert len(found) > 10
