"""A registered posterior over HTTP: draws and a certificate for JSON requests.

Shows: a run with `Tracker`, a model version with `register`, `sbi-models serve` as a child process, a request
for draws and one for a summary with certificates, a request that is wrong, and a clean end.

    python examples/serving.py --output figures

Time on one core: 87 s; with --quick 25 s.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import sbi_models as bf
from sbi_models.simulators.benchmarks import NormalModel

SEED = 1
MODEL = NormalModel()  # mean and log variance of twenty normals; the exact posterior is known by quadrature


@contextmanager
def served(uri: str, project: Path, log: Path) -> Iterator[str]:
    """Context manager with the address of a server of the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("sbi-models")), "serve", uri, "--port", port]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=project, stdout=output, stderr=output)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/ping", timeout=5)
                    break
                except OSError:
                    if server.poll() is not None:
                        raise RuntimeError(f"The server has ended:\n{log.read_text()[-2000:]}") from None
                    time.sleep(0.5)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=30)
            print(f"server ended with code {server.returncode}")


def ask(address: str, inputs: Any, **params: Any) -> tuple[int, Any]:
    """Status and response for observations, as of `curl -d '{"inputs": ..., "params": ...}'`."""
    body = json.dumps({"inputs": inputs, "params": params}).encode()
    request = urllib.request.Request(
        f"{address}/invocations", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def main() -> None:
    """Train, register, serve, ask, and compare with the exact posterior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()

    workflow = bf.BasicWorkflow(
        MODEL.simulator,
        inference_variables="theta",
        summary_variables="x",
        summary_network=bf.networks.DeepSet(widths=(32, 32)),
        standardize="all",
        initial_learning_rate=2e-3,
        seed=SEED,
    )
    number, epochs = (2_000, 2) if options.quick else (20_000, 10)
    workflow.fit_offline(MODEL.simulator.sample(number, seed=SEED), epochs=epochs, batch_size=256)

    usual = MODEL.simulator.sample(1, seed=2)["x"]
    strange = usual.copy()
    strange[0, 0] += 8.0  # one measurement of twenty is wrong
    with TemporaryDirectory() as scratch:  # a folder of yours, or MLFLOW_TRACKING_URI
        store = bf.tracking.open_store(scratch)
        with bf.tracking.Tracker.start(
            store, "serving", "first", key="serving 1", params={"seed": SEED}
        ) as tracker:
            path = workflow.approximator.save(Path(scratch) / "model.safetensors")
            version = bf.tracking.register(store, "normal", path, tracker.run_id, aliases=["champion"])
        print(f"registered {version.uri}")
        with served("models:/normal@champion", Path(scratch), Path(scratch) / "server.log") as address:
            begin = time.perf_counter()
            status, answer = ask(address, usual.tolist(), num_samples=4000, seed=3)
            print(f"4000 draws: HTTP {status} after {1000 * (time.perf_counter() - begin):.0f} ms")
            draws = np.array(answer["predictions"])  # (1, 4000, 2)
            both = np.concatenate([usual, strange]).tolist()
            status, answer = ask(address, both, num_samples=1000, seed=3, output="summary", certificate=True)
            for name, certificate in zip(
                ("usual", "strange"), answer["predictions"]["certificates"], strict=True
            ):
                print(
                    f"{name}: {certificate['verdict']} (p = {certificate['p_value']:.3g})",
                    *certificate["warnings"],
                )
            status, refusal = ask(address, both, num_samples=0)
            print(f"a wrong request: HTTP {status}, {refusal['message'].splitlines()[-1]}")

    exact = MODEL.posterior(usual[0])
    mean, sd = draws[0].mean(axis=0), draws[0].std(axis=0)
    print(
        "means and sds over HTTP:",
        np.round([mean, sd], 3).tolist(),
        "exact:",
        np.round([exact.mean, exact.sd], 3).tolist(),
    )
    grid = np.stack(
        [np.linspace(m - 4.5 * s, m + 4.5 * s, 200) for m, s in zip(exact.mean, exact.sd, strict=True)]
    )
    figure = bf.diagnostics.plot_posterior_reference(
        draws,
        grid,
        np.stack([exact.mean_density(grid[0]), exact.log_variance_density(grid[1])]),
        variable_names=["mean", "log variance"],
        samples_label="draws over HTTP",
    )
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "serving.png", dpi=130)


if __name__ == "__main__":
    main()
