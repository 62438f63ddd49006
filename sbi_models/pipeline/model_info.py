"""Notes of the pipeline in a saved model."""

from collections.abc import Mapping
from typing import Any

from sbi_models.approximators import Approximator
from sbi_models.workflows.likelihood.implied import ImpliedPosterior

PROPOSAL = "proposal"
_EARLIER = "narrowed_to"
"""Name of the same note in files of version 0.1."""


def has_proposal(info: Mapping[str, Any]) -> bool:
    """True if a model was trained on a proposal around one observation, so that its draws want weights."""
    return PROPOSAL in info or _EARLIER in info


def open_shape(approximator: Approximator | ImpliedPosterior, name: str) -> tuple[int | None, ...]:
    """Shape of a data set of a condition; None for the axes that may have any length."""
    axes = approximator.any_length.get(name, 0)
    return (None,) * axes + tuple(approximator.shapes[name][axes:])
