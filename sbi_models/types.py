"""Type aliases of data that pass between the layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""A NumPy array; the docstring of its owner gives shape and space."""

FloatArray = NDArray[np.floating[Any]]

Variables = dict[str, Array]
"""Named variables, each (n, ...) with one leading axis of simulations or data sets, raw space."""

VariablesLike = Mapping[str, Any]
"""What users may pass as variables: arrays, lists, or torch tensors."""

Estimates = dict[str, Variables]
"""What scoring rules estimate: the name of a rule to its named arrays."""
