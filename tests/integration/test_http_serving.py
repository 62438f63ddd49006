"""A registered approximator behind `sbi-models serve`: observations go in as JSON over HTTP, draws come out,
and signals end it."""

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import psutil
import pytest
from clients import COMMAND_LINE
from local_servers import free_port, running

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.networks import CouplingFlow, DeepSet
from sbi_models.ragged import as_ragged
from sbi_models.tracking import Tracker, load, open_store, register

pytestmark = pytest.mark.integration

Answer = tuple[int, Any]
ROLES = {"inference_variables": ["theta"], "summary_variables": ["x"]}
RANDOM = seeding.generator(0, "serving test")
THETA = RANDOM.normal(size=(400, 2))
X = (THETA[:, None, :] + RANDOM.normal(size=(400, 6, 2))).astype(np.float32)
"""Sets of six vectors around theta."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with two registered approximators of small random weights, which have certificates:
    "served" of sets of six vectors, "any" of one to six."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store = open_store(folder)
        with Tracker.start(store, "npe", "first", "key") as tracker:
            for name, x in {"served": X, "any": as_ragged([x[: k % 6 + 1] for k, x in enumerate(X)])}.items():
                made = ContinuousApproximator(
                    adapter=default_adapter(ROLES),
                    roles=ROLES,
                    inference_network=CouplingFlow(),
                    summary_network=DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)),
                )
                made.build({"theta": THETA, "x": x}, seed=0)
                made.eval().learn_certificate({"theta": THETA, "x": x}, None, seed=1)
                path = made.save(folder / f"{name}.safetensors")
                register(store, name, path, tracker.run_id, aliases=["champion"])
    return folder


@pytest.fixture(scope="module")
def post(root: Path) -> Iterator[Callable[..., Answer]]:
    """Sends a body to the server and gives back status and JSON."""
    with serving(root, "post") as (address, _):
        yield partial(send, address)


@contextmanager
def serving(root: Path, name: str, *options: str, model: str = "served") -> Iterator[tuple[str, Any]]:
    """The address of a server of a model, and its process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [*COMMAND_LINE, "serve", f"models:/{model}@champion", "--port", str(port), *options]
    with running(command, f"{address}/ping", root / f"{name}.log", {"OMP_NUM_THREADS": "1"}) as server:
        yield address, server


def send(address: str, body: Any, seconds: float = 60) -> Answer:
    """Status and JSON of the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{address}/invocations", data=data, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def model(root: Path) -> Any:
    """The same approximator in this process."""
    return loaded(root, "served")


def loaded(root: Path, name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return load(f"models:/{name}@champion", open_store(root), certify=False)


def test_sets_of_vectors_go_in_and_draws_come_out(post: Callable[..., Answer], model: Any) -> None:
    """An observation of rank 3 with params gives, to the bit, the draws that the approximator gives in
    process; sets may be longer."""
    status, body = post({"inputs": X[:3].tolist(), "params": {"num_samples": 5, "seed": 9}})
    assert status == 200, body
    np.testing.assert_array_equal(
        body["predictions"], model.sample(num_samples=5, conditions={"x": X[:3]}, seed=9)["theta"]
    )
    status, body = post({"inputs": X[:1].tolist()})
    assert np.shape(body["predictions"]) == (1, 1000, 2)


def test_certificates_summaries_and_densities_are_served(post: Callable[..., Answer], model: Any) -> None:
    """Each output is JSON with the figures that the approximator gives in process; an observation far out
    fails its certificate."""
    far = np.concatenate([X[:1], X[:1] + 50])
    draws = model.sample(num_samples=40, conditions={"x": far}, seed=2)["theta"]
    params = {"num_samples": 40, "seed": 2, "certificate": True}
    status, body = post({"inputs": far.tolist(), "params": params})
    assert status == 200, body
    np.testing.assert_array_equal(body["predictions"]["theta"], draws)
    assert body["predictions"]["certificates"][1]["verdict"] == "failed"
    status, body = post({"inputs": far.tolist(), "params": params | {"output": "summary"}})
    assert status == 200, body
    assert set(body["predictions"]) == {"theta", "certificates"}
    summary = body["predictions"]["theta"]
    np.testing.assert_allclose(summary["mean"], draws.mean(axis=1))
    np.testing.assert_allclose(summary["sd"], draws.std(axis=1, ddof=1))
    np.testing.assert_allclose(
        np.moveaxis(summary["quantiles"], 1, 0), np.quantile(draws, summary["levels"], axis=1)
    )
    status, body = post(
        {"inputs": far.tolist(), "params": {"num_samples": 40, "seed": 2, "output": "log_density"}}
    )
    assert status == 200, body
    np.testing.assert_array_equal(body["predictions"]["theta"], draws)
    expected = model.log_prob({"theta": draws[0], "x": np.repeat(far[:1], 40, axis=0)})
    np.testing.assert_allclose(body["predictions"]["log_density"][0], expected, rtol=1e-5)


def test_data_sets_of_three_lengths_in_one_request_are_answered_as_one_by_one(root: Path) -> None:
    """Draws of a request of 2, 6 and 1 vectors have, of each data set, the density given it alone, and the
    first has the draws of its own request; vectors of another width are refused."""
    sets, params = [X[0, :2], X[1], X[2, :1]], {"num_samples": 5, "seed": 9, "output": "log_density"}
    with serving(root, "any", model="any") as (address, _):
        status, body = send(address, {"inputs": [one.tolist() for one in sets], "params": params})
        assert status == 200, body
        _, first = send(address, {"inputs": [sets[0].tolist()], "params": params})
        refused, _ = send(address, {"inputs": [sets[0].tolist(), [[1.0]]], "params": params})
    draws, densities = (np.array(body["predictions"][name]) for name in ("theta", "log_density"))
    np.testing.assert_allclose(first["predictions"]["theta"], draws[:1], atol=1e-5)
    for own, density, one in zip(draws, densities, sets, strict=True):
        alone = loaded(root, "any").log_prob({"theta": own, "x": np.repeat(one[None], 5, axis=0)})
        np.testing.assert_allclose(density, alone, atol=1e-5)
    assert refused == 400


ONE = X[:1].tolist()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"inputs": X[0].tolist()}, "shape"),
        ({"inputs": X[:1, :, :1].tolist()}, "shape"),
        ({"inputs": [[[0.0, 1.0], [0.0]]]}, ""),
        (json.dumps({"inputs": [[[float("nan"), 1.0]] * 6]}).encode(), "6 of 12 that are NaN or infinite"),
        (json.dumps({"inputs": [[[float("inf"), 1.0]] * 6]}).encode(), "NaN or infinite"),
        (b'{"inputs": [[' + b",".join([b"[1e999, 1.0]"] * 6) + b"]]}", "NaN or infinite"),
        ({"inputs": [[[1e60, 1.0]] * 6]}, "too large for float32"),
        ({"inputs": ONE, "params": {"num_sample": 5}}, "Did you mean 'num_samples'"),
        (
            {"inputs": [ONE[0]] * 100_000, "params": {"num_samples": 1}},
            "at most 10000 data sets in one request",
        ),
        ({"inputs": ONE, "params": {"num_samples": 100_001}}, "num_samples as an integer from 1 to 100000"),
        (
            {"inputs": X[:60].tolist(), "params": {"num_samples": 100_000}},
            "at most 10000000 numbers in one answer",
        ),
        ({"inputs": ONE, "params": {"num_samples": "many"}}, "num_samples"),
        ({"inputs": ONE, "params": {"output": "sumary"}}, "output as one of draws, summary, log_density"),
        (
            {"inputs": ONE, "params": {"output": "summary", "num_samples": 1}},
            "num_samples as an integer from 2",
        ),
        ({"inputs": ONE, "params": {"seed": -1}}, "seed"),
        ({"observations": ONE}, "inputs"),
        ({"dataframe_split": {"columns": ["x"], "data": [[1]]}}, "inputs"),
        (b"theta, please", "valid JSON"),
        (b"\xff\xfe", "valid JSON"),
        (b"", "JSON"),
    ],
)
def test_what_is_wrong_with_a_request_is_answered_with_400(
    post: Callable[..., Answer], body: Any, reason: str
) -> None:
    """Wrong shapes, NaN, too many draws, unknown outputs and bodies that are not JSON: status 400 and the
    reason, as JSON."""
    status, answer = post(body)
    assert status == 400, answer
    assert reason in answer["message"]


def test_five_hundred_requests_at_eight_at_a_time_are_all_answered(
    post: Callable[..., Answer], model: Any
) -> None:
    """None is lost, and each has the draws of its own observation and seed, whatever is computed beside
    it."""

    def ask(request: int) -> Answer:
        return post(
            {
                "inputs": X[request % 400 : request % 400 + 1].tolist(),
                "params": {"num_samples": 10, "seed": request % 7},
            }
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(500)))
    assert [status for status, _ in answers] == [200] * 500
    for request, (_, body) in enumerate(answers):
        x = {"x": X[request % 400 : request % 400 + 1]}
        np.testing.assert_array_equal(
            body["predictions"], model.sample(num_samples=10, conditions=x, seed=request % 7)["theta"]
        )


LONG = {"inputs": X[:400].tolist() * 25, "params": {"num_samples": 500, "output": "log_density"}}
"""Tens of seconds of work within the limits."""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_signals_end_the_server_and_what_it_computes(root: Path, sent: signal.Signals) -> None:
    """In the middle of a long request: within seconds there is no process left, and the client has an answer
    or a closed connection."""
    answers: list[Any] = []

    def ask(address: str) -> None:
        try:
            answers.append(send(address, LONG)[0])
        except OSError as error:
            answers.append(error)

    with serving(root, sent.name) as (address, server):
        assert send(address, {"inputs": ONE})[0] == 200
        asking = Thread(target=ask, args=(address,))
        asking.start()
        time.sleep(3)
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert len(processes) == 2
        server.send_signal(sent)
        server.wait(20)
        _, left = psutil.wait_procs(processes[1:], timeout=5)
        asking.join(20)
    assert not left
    assert answers
    assert answers[0] == 503 or isinstance(answers[0], OSError)
    assert "Traceback" not in (root / f"{sent.name}.log").read_text()


def test_work_ends_with_the_time_of_its_request(root: Path) -> None:
    """A request that takes longer than --timeout is a 504; the processors are idle soon after, and the next
    one is answered."""
    with serving(root, "timeout", "--timeout", "2") as (address, server):
        assert send(address, LONG)[0] == 504
        deadline = time.monotonic() + 60
        while (status := send(address, {"inputs": ONE})[0]) != 200:
            assert status == 504
            assert time.monotonic() < deadline
        times = [
            sum(sum(p.cpu_times()[:2]) for p in psutil.Process(server.pid).children())
            for _ in (0, time.sleep(2))
        ]
        assert times[1] - times[0] < 0.5
