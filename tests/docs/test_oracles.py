"""The table of oracles in CONTRIBUTING.md has every computation that is registered, and files that exist."""

import re
from inspect import isfunction

import pytest
from pages import DOCS

from sbi_models.adapters import KINDS, transforms
from sbi_models.approximators.base import APPROXIMATORS
from sbi_models.approximators.composition import METHODS
from sbi_models.diagnostics import metrics
from sbi_models.networks.diffusion import SAMPLERS, SCHEDULES
from sbi_models.networks.layers import SUBNETS
from sbi_models.networks.registry import NETWORKS
from sbi_models.simulators.benchmarks import BENCHMARKS

TEXT = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| (.+) \| (.+) \| (.+) \|$", TEXT.partition("## Oracles")[2].partition("\n## ")[0], re.M
)[1:]


def _ours(registry) -> set[str]:
    """Names of the package; other tests register names of their own."""
    return {
        name
        for name, thing in registry.items()
        if getattr(thing, "__module__", "sbi_models").startswith("sbi_models")
    }


REGISTERED = {
    "transforms": {kind for kind, cls in KINDS.items() if hasattr(transforms, cls.__name__)},
    "networks": _ours(NETWORKS),
    "samplers": _ours(SAMPLERS),
    "schedules": _ours(SCHEDULES),
    "subnets": _ours(SUBNETS),
    "methods of composition": _ours(METHODS),
    "approximators": _ours(APPROXIMATORS),
    "benchmarks": _ours(BENCHMARKS),
    "metrics": {name for name in metrics.__all__ if isfunction(getattr(metrics, name))},
}


@pytest.mark.parametrize("kind", REGISTERED)
def test_every_registered_computation_has_an_oracle(kind: str) -> None:
    """Each name stands in the first column of a row."""
    assert REGISTERED[kind]
    assert REGISTERED[kind] <= {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[0])}


def test_files_of_oracles_exist() -> None:
    """Each row names one or more files under tests/, and a word of what it is compared with."""
    assert len(ROWS) > 30
    for computation, oracle, files in ROWS:
        named = re.findall(r"`([^`]+\.py)`", files)
        assert named, computation
        assert len(oracle) > 10
        for name in named:
            assert (DOCS.parent / "tests" / name).is_file(), f"{computation}: {name}"
