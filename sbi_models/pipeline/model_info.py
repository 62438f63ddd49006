"""Notes of the pipeline in a saved model."""

from collections.abc import Mapping
from typing import Any

PROPOSAL = "proposal"
_EARLIER = "narrowed_to"
"""Name of the same note in files of version 0.1."""


def has_proposal(info: Mapping[str, Any]) -> bool:
    """True if a model was trained on a proposal around one observation, so that its draws want weights."""
    return PROPOSAL in info or _EARLIER in info
