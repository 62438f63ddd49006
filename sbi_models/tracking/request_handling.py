"""Handle requests to a served model: JSON in, JSON out, in a process of its own.

    python -P -m sbi_models.tracking.request_handling FILE

reads requests from standard input, each 8 bytes of length and a body, and writes answers to standard output,
each 2 bytes of HTTP status, 8 bytes of length and a body. It writes a byte when it is ready, and ends when
its standard input does, whatever it is computing.
"""

import json
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any, BinaryIO, Protocol

import numpy as np
from mlflow.exceptions import MlflowException

from sbi_models.errors import TrustWarning, suggest
from sbi_models.tracking.served import PosteriorSampler
from sbi_models.tracking.server_worker import ANSWER, READY, receive, refusal

KEYS = ("inputs", "params")


class Sampler(Protocol):
    """What answers: see `PosteriorSampler.predict`."""

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any: ...


def answer(sampler: Sampler, body: bytes) -> tuple[int, bytes]:
    """HTTP status and JSON for the body of a request, `{"inputs": array or arrays by name, "params": {...}}`.

    200 has `{"predictions": ..., "warnings": [...]}`: what `PosteriorSampler.predict` gives, null where a log
    density is minus infinity, and, if there are any, its warnings that draws should not be trusted. 400 has
    `{"error_code": ..., "message": ...}`. 500 is an error of ours; its traceback goes to standard error
    alone.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inputs, params = _request(body)
            predictions = sampler.predict(None, inputs, params)
        for warning in caught:
            print(f"{warning.category.__name__}: {warning.message}", file=sys.stderr)
        messages = [str(warning.message) for warning in caught if issubclass(warning.category, TrustWarning)]
        return 200, _json({"predictions": predictions} | ({"warnings": messages} if messages else {}))
    except MlflowException as error:
        return int(error.get_http_status_code()), refusal(error.error_code, error.message)
    except RecursionError:
        return 400, refusal(
            "INVALID_PARAMETER_VALUE",
            "Expected arrays as lists of lists, got JSON that is nested too deeply.",
        )
    except Exception:  # noqa: BLE001 - the next request is to be answered, whatever was wrong with this one
        traceback.print_exc()
        return 500, refusal(
            "INTERNAL_ERROR",
            "This request has failed for a reason that is not its own; the log of the server has it.",
        )


def _request(body: bytes) -> tuple[Any, dict[str, Any]]:
    """Inputs and params of a body."""
    try:
        content = json.loads(body, object_pairs_hook=_once)
    except ValueError as error:  # of JSON, of its encoding, and of integers of thousands of digits
        raise _invalid(f"Expected a body that is valid JSON, got something else: {error}.") from None
    if not isinstance(content, Mapping):
        raise _invalid(
            'Expected a body {"inputs": ..., "params": {...}}, got JSON of another type: '
            f"{type(content).__name__}."
        )
    for key in content:
        if key not in KEYS:
            raise _invalid(
                f"Expected a body with the keys {' and '.join(KEYS)}, got {key!r:.80}. "
                f"{suggest(key[:80], KEYS)}"
            )
    if "inputs" not in content:
        raise _invalid(
            'Expected a body with inputs, got none. Write {"inputs": array or arrays by name, '
            '"params": {...}}.'
        )
    params = content.get("params") or {}
    if not isinstance(params, Mapping):
        raise _invalid(
            f'Expected params by name, such as {{"num_samples": 1000}}, got {type(params).__name__}.'
        )
    return content["inputs"], dict(params)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each of whose keys is there once."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _invalid(f"Expected each key once, got {twice!r:.80} several times.")
    return content


def _invalid(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


def _json(content: Any) -> bytes:
    return json.dumps(_plain(content), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Arrays as lists, and null for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | float):
        array = np.array(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            fine, array = np.isfinite(array), array.astype(object)
            array[~fine] = None
        return array.tolist()
    return value


def main(path: Path, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests for the approximator of a file until there are no more."""
    sampler = PosteriorSampler()
    sampler.load_context(SimpleNamespace(artifacts={"approximator": str(path)}))
    answers.write(READY)
    answers.flush()
    waiting: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=receive, args=(requests, waiting.put), daemon=True).start()
    while True:
        status, content = answer(sampler, waiting.get())
        answers.write(ANSWER.pack(status, len(content)) + content)
        answers.flush()


if __name__ == "__main__":
    own_requests, own_answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is for the log
    main(Path(sys.argv[1]), own_requests, own_answers)
