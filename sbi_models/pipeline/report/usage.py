"""How to use a registered model from the command line and over HTTP, as the report of a run says it."""

import json
import math
from collections.abc import Mapping

import numpy as np

FILE = "report.html"
"""The page among the artifacts of a run."""

NEAR = (
    "This model was trained near one observation, and these draws are those under a narrower prior. Those "
    "of the posterior have weights: run its experiment, or workflow.importance_sample."
)

MOST_NUMBERS = 40
"""Numbers of one data set that are written out in an example."""

Shapes = Mapping[str, tuple[int | None, ...]]
"""Shape of a data set of each condition; None for a length that may differ."""

_SOME = 2
"""Elements of a data set of any length in an example."""


def curl_example(host: str, port: int, shapes: Shapes) -> str:
    """A curl command that asks a served model for a summary of the posterior of one data set.

    Of two elements, where data sets may have any length.

    >>> print(curl_example("127.0.0.1", 5000, {"x": (2,)}))
    curl -H content-type:application/json http://127.0.0.1:5000/invocations \\
        -d '{"inputs": [[0.0, 0.0]], "params": {"num_samples": 1000, "output": "summary"}}'
    """
    start = f"curl -H content-type:application/json http://{host}:{port}/invocations \\\n    -d "
    params = '"params": {"num_samples": 1000, "output": "summary"}'
    some = {name: [_SOME if length is None else length for length in shape] for name, shape in shapes.items()}
    if sum(math.prod(shape) for shape in some.values()) > MOST_NUMBERS:
        inside = ", ".join(
            f'"{name}": (n, {", ".join("N" if length is None else str(length) for length in shape)})'
            for name, shape in shapes.items()
        )
        return (
            f'{start}@data.json    # {{"inputs": ..., {params}}}, with inputs an array, or arrays by '
            f"name: {{{inside}}}"
        )
    arrays = {name: np.zeros((1, *shape)).tolist() for name, shape in some.items()}
    inputs = next(iter(arrays.values())) if len(arrays) == 1 else arrays
    return f"{start}'{{\"inputs\": {json.dumps(inputs)}, {params}}}'"
