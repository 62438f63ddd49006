"""Bodies of requests, good and malformed, answered in this process by models with random weights."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator, ScoringRuleApproximator
from sbi_models.networks import CouplingFlow, DeepSet, ScoringRuleNetwork
from sbi_models.tracking.request_handling import answer
from sbi_models.tracking.served import MAX_NUMBERS, MAX_ROWS, PosteriorSampler

RANDOM = seeding.generator(0, "answering test")
THETA = RANDOM.normal(size=(300, 2))
DATA = {
    "theta": THETA,
    "x": THETA + RANDOM.normal(size=(300, 2)),
    "s": THETA[:, None] + RANDOM.normal(size=(300, 4, 2)),
}
VECTORS = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
BOTH = VECTORS | {"summary_variables": ["s"]}
INPUTS: dict[str, Any] = {
    "vectors": DATA["x"][:2].tolist(),
    "both": {name: DATA[name][:2].tolist() for name in ("x", "s")},
    "points": DATA["x"][:2].tolist(),
}


def small_model(kind: str) -> Any:
    """A posterior given vectors, one given vectors and sets, or point estimates; with certificates."""
    if kind == "points":
        made: Any = ScoringRuleApproximator(
            adapter=default_adapter(VECTORS),
            roles=VECTORS,
            inference_network=ScoringRuleNetwork("mean", widths=(8,)),
        )
    else:
        roles = BOTH if kind == "both" else VECTORS
        summaries = DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)) if kind == "both" else None
        made = ContinuousApproximator(
            adapter=default_adapter(roles),
            roles=roles,
            inference_network=CouplingFlow(),
            summary_network=summaries,
        )
    made.build(DATA, seed=0)
    made.eval().learn_certificate(DATA, None, seed=1)
    return made


@pytest.fixture(scope="module", params=["vectors", "both", "points"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def sampler(kind: str, tmp_path_factory: pytest.TempPathFactory) -> PosteriorSampler:
    path = small_model(kind).save(tmp_path_factory.mktemp("model") / "file.safetensors")
    made = PosteriorSampler()
    made.load_context(SimpleNamespace(artifacts={"approximator": str(path)}))
    return made


ODD: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        2**63,
        2**64,
        10**400,
        0.5,
        1e-320,
        1e308,
        float("nan"),
        float("-inf"),
        "",
        "x",
        "1",
        "\ud800",
        "\x00",
        "é" * 300,
    ),
    *(
        [],
        {},
        [[]],
        [None],
        [[[[[[1.0]]]]]],
        [1, [2]],
        [[1, 2], [3]],
        ["a", 1],
        {"x": 1},
        {"": []},
        [{}],
        {"a": {"a": {}}},
    ),
]
"""Values that JSON can have, some only in the form that Python writes."""


def malformed(kind: str, number: int) -> Iterator[bytes]:
    """Bodies one or several steps away from a good one: values replaced at any depth, keys renamed, bytes
    changed, cut or doubled."""
    rng = np.random.default_rng([number, len(kind)])
    good = {
        "inputs": INPUTS[kind],
        "params": {"num_samples": 3, "seed": 1, "output": "draws", "certificate": True},
    }
    if kind == "points":
        good["params"] = {"certificate": True}
    for _ in range(number):
        body = json.loads(json.dumps(good))
        for _ in range(rng.integers(1, 3)):
            place: Any = body
            for _ in range(rng.integers(0, 4)):
                keys = list(place) if isinstance(place, dict) else list(range(len(place)))
                inside = [key for key in keys if isinstance(place[key], dict | list) and place[key]]
                place = place[inside[rng.integers(len(inside))]] if inside else place
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[rng.integers(len(keys))]
            change = rng.integers(5)
            if change == 0:
                del place[key]
            elif change == 1 and isinstance(place, dict):
                place[["", "x", "param", "s", "output", "instances", "é" * 99][rng.integers(7)]] = place.pop(
                    key
                )
            elif change == 2 and isinstance(place, list):
                place += deepcopy(place)
            else:
                place[key] = deepcopy(ODD[rng.integers(len(ODD))])
            if not body:
                break
        raw = bytearray(json.dumps(body).encode())
        if rng.uniform() < 0.25:
            for _ in range(rng.integers(1, 4)):
                at = rng.integers(len(raw))
                raw[at : at + rng.integers(0, 3)] = [
                    b"",
                    b"\xff",
                    b"}",
                    b"]",
                    b"[",
                    b'"',
                    b"9" * 5000,
                    b"e999",
                    b"\x00",
                    b":",
                ][rng.integers(10)]
        yield bytes(raw)
    yield from (
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"theta, please",
        b"NaN",
        b"1" * 5000,
        b"{" * 2000,
        b'{"inputs":' + b"[" * 50_000,
    )
    yield from (
        b'{"inputs":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"inputs":1,"inputs":1}',
        '{"inputs":1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
    )


@pytest.mark.parametrize("number", [250])
def test_malformed_bodies_are_a_400_that_tells_nothing_of_the_server(
    kind: str, sampler: PosteriorSampler, number: int
) -> None:
    """Nearly 800 bodies, mutated from good ones: each is answered, or refused with a short reason as JSON,
    never with a 500."""
    statuses = []
    for body in malformed(kind, number):
        status, content = answer(sampler, body)
        told = json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert status in (200, 400), (body[:500], told)
        assert status == 200 or set(told) == {"error_code", "message"}
        assert status == 200 or len(content) < 8000
        assert not re.search(
            r"Traceback|site-packages|\.py\b|line \d+ in|/[a-z]+/[a-z]+", content.decode()
        ), (body[:500], content)
        statuses.append(status)
    assert 8 < statuses.count(200) < 0.5 * number, (
        "mutations that are all good, or all refused at once, test little"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"inputs": [[0.0, 0.0]] * (MAX_ROWS + 1), "params": {"num_samples": 1}},
            f"at most {MAX_ROWS} data sets in one request",
        ),
        (
            {"inputs": [[0.0, 0.0]] * 60, "params": {"num_samples": 100_000}},
            f"at most {MAX_NUMBERS} numbers in one answer",
        ),
        (
            {"inputs": [[0.0, 0.0]], "params": {"num_sample": 3}},
            "Unknown param 'num_sample'. Did you mean 'num_samples'?",
        ),
        ({"inputs": [[0.0, 0.0]], "parms": {}}, "got 'parms'. Did you mean 'params'?"),
        ({"inputs": [[0.0, 0.0]], "params": []}, None),
        ({"inputs": [[0.0, 0.0]], "params": [1]}, "Expected params by name"),
        ({"instances": [[0.0, 0.0]]}, "with the keys inputs and params, got 'instances'"),
        ({}, "with inputs, got none"),
    ],
)
@pytest.mark.parametrize("kind", ["vectors"], indirect=True)
def test_what_is_refused_is_refused_before_work_starts(
    sampler: PosteriorSampler, body: Any, message: str | None
) -> None:
    """Too many data sets, numbers in or out, and keys that there are not: 400 with the reason; params may be
    left empty."""
    status, content = answer(sampler, json.dumps(body).encode())
    assert status == (400 if message else 200)
    assert (message or "") in content.decode()


def test_a_failure_of_ours_is_a_500_whose_traceback_stays_here(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer says that it was not the request; the log has type, message and place."""

    def predict(*_: Any) -> None:
        raise KeyError(f"secret of {__file__}")

    status, content = answer(SimpleNamespace(predict=predict), b'{"inputs": [1]}')  # type: ignore[arg-type]
    assert status == 500
    assert "the log of the server" in json.loads(content)["message"]
    assert "secret" not in content.decode()
    assert "secret" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["vectors"], indirect=True)
def test_distrust_is_part_of_the_answer(sampler: PosteriorSampler) -> None:
    """Draws of an observation far from the simulations come with the warning; those of usual ones come
    alone."""
    far = answer(sampler, json.dumps({"inputs": [[60.0, 60.0]], "params": {"num_samples": 3}}).encode())
    (warning,) = json.loads(far[1])["warnings"]
    assert "should not be trusted" in warning
    usual = answer(
        sampler, json.dumps({"inputs": [DATA["x"][0].tolist()], "params": {"num_samples": 3}}).encode()
    )
    assert set(json.loads(usual[1])) == {"predictions"}


def test_densities_of_minus_infinity_are_null() -> None:
    """JSON has no infinity: what Python would write for it, other readers refuse."""
    sampler = SimpleNamespace(
        predict=lambda *_: {
            "log_density": np.array([[-1.5, -np.inf]]),
            "p": float("nan"),
            "n": [np.float32(2)],
        }
    )
    status, content = answer(sampler, b'{"inputs": [1]}')  # type: ignore[arg-type]
    assert (status, json.loads(content)) == (
        200,
        {"predictions": {"log_density": [[-1.5, None]], "p": None, "n": [2.0]}},
    )


@pytest.mark.parametrize(
    "move",
    [lambda x: 2.0**31 + x, lambda x: x * 2.0**-150, lambda x: x * 2.0**300],
    ids=["moved", "tiny", "huge"],
)
def test_served_data_keep_their_digits(move: Any, tmp_path: Path) -> None:
    """Times of 1e9 s that differ by seconds, and strains of 1e-46, give over HTTP the draws of the model in
    this process, to the bit."""
    data = {"theta": THETA, "x": move(DATA["x"])}
    made = ContinuousApproximator(
        adapter=default_adapter(VECTORS),
        roles=VECTORS,
        inference_network=CouplingFlow(),
        standardize=("inference_variables", "inference_conditions"),
    )
    made.build(data, seed=0)
    sampler = PosteriorSampler()
    sampler.load_context(
        SimpleNamespace(artifacts={"approximator": str(made.eval().save(tmp_path / "file.safetensors"))})
    )
    status, content = answer(
        sampler,
        json.dumps({"inputs": data["x"][:9].tolist(), "params": {"num_samples": 5, "seed": 3}}).encode(),
    )
    assert status == 200
    draws = made.sample(num_samples=5, conditions={"x": data["x"][:9]}, seed=3)["theta"]
    np.testing.assert_array_equal(json.loads(content)["predictions"], draws)
    assert draws[:, 0].std(axis=0).min() > 0.1, "draws that do not depend on x would be the same anyhow"
