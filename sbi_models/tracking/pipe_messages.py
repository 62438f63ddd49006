"""Messages between the listening and the computing process of a model server, and refusals."""

import json
import os
import struct
from collections.abc import Callable
from typing import BinaryIO

REQUEST, ANSWER, READY = struct.Struct(">Q"), struct.Struct(">HQ"), b"."
"""What stands before bodies: length, or HTTP status and length. And the sign that the first request may
come."""

_LONGEST_MESSAGE = 1000


def receive(requests: BinaryIO, put: Callable[[bytes], None]) -> None:
    """Pass on the bodies of requests; end this process when the other side is gone."""
    while head := requests.read(REQUEST.size):
        put(requests.read(REQUEST.unpack(head)[0]))
    os._exit(0)


def refusal(code: str, message: str) -> bytes:
    """The body of an answer other than 200, JSON."""
    shortened = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
    return json.dumps({"error_code": code, "message": shortened}).encode()
