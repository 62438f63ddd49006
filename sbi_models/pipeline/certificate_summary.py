"""Certificates in short: the numbers that they have, and how many data sets passed."""

from collections.abc import Mapping, Sequence
from typing import Any

P_VALUES = {"p_value": "p", "novelty": "novelty", "agreement": "agreement", "predictive": "predictive"}
"""Titles of the p-values of a certificate."""

WEIGHTS = {
    "effective_sample_size": "effective",
    "raw_effective_sample_size": "raw",
    "largest_weight": "largest weight",
    "pareto_k": "Pareto k",
}
"""Titles of the statistics of importance weights."""


def in_short(certificates: Sequence[Mapping[str, Any]]) -> str:
    """How many data sets passed, and which did not.

    >>> in_short([{"data_set": "a", "verdict": "passed"}, {"data_set": "b", "verdict": "failed"}])
    '1 of 2 passed: b failed'
    """
    passed = sum(certificate["verdict"] == "passed" for certificate in certificates)
    others = [
        f"{certificate['data_set']} {certificate['verdict']}"
        for certificate in certificates
        if certificate["verdict"] != "passed"
    ]
    shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    return f"{passed} of {len(certificates)} passed" + (f": {shown}" if others else "")
