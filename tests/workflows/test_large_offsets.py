"""Times of 1e9 s, strains of 1e-46 and counts of 1e90 teach what plain numbers teach: float64 until
standardized, on every way in.

Numbers on a grid can be moved by 2^31 and scaled by powers of two without rounding, so that what was learned
must be the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sbi_models as bf
from sbi_models.approximators import load_approximator
from sbi_models.datasets import SimulationStore
from sbi_models.networks import CouplingFlow, DeepSet

SMALL = CouplingFlow(widths=(16,), depth=2)

Move = Callable[[np.ndarray], np.ndarray]
MOVES: dict[str, Move] = {
    "moved": lambda x: x + 2.0**31,
    "tiny": lambda x: x * 2.0**-150,
    "huge": lambda x: x * 2.0**300,
}


def simulator(move: Move, shape: tuple[int, ...] = (2,)) -> Any:
    """theta and x = theta + noise, both on a grid of 1/1024, x moved."""

    def prior(rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"theta": np.round(1024 * rng.normal(size=2)) / 1024}

    def likelihood(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": move(np.round(1024 * (theta + rng.normal(size=shape))) / 1024)}

    return bf.make_simulator([prior, likelihood])


def workflow(simulator: Any = None, **options: Any) -> Any:
    given = {
        "inference_variables": "theta",
        "inference_conditions": "x",
        "inference_network": SMALL,
        "seed": 1,
        "standardize": "all",
        "progress": False,
    }
    return bf.BasicWorkflow(simulator, **(given | options))


def offline(move: Move, folder: Path) -> Any:
    fitted = workflow()
    fitted.fit_offline(simulator(move).sample(300, seed=3), epochs=1, batch_size=64)
    return fitted


def sets(move: Move, folder: Path) -> Any:
    fitted = workflow(
        inference_conditions=None,
        summary_variables="x",
        summary_network=DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)),
    )
    fitted.fit_offline(simulator(move, (5, 2)).sample(300, seed=3), epochs=1, batch_size=64)
    return fitted


def online(move: Move, folder: Path) -> Any:
    fitted = workflow(simulator(move))
    fitted.fit_online(epochs=1, num_batches_per_epoch=5, batch_size=64)
    return fitted


def stored(move: Move, folder: Path) -> Any:
    made = simulator(move)
    SimulationStore.create(
        folder / "store",
        lambda start, stop: made.rows(start, stop, seed=3),
        300,
        seed=3,
        fingerprint="offsets",
    )
    fitted = workflow()
    fitted.fit_disk(folder / "store", epochs=1, batch_size=64)
    return fitted


def files(move: Move, folder: Path) -> Any:
    np.savez(folder / "simulations.npz", **simulator(move).sample(300, seed=3))
    fitted = workflow()
    fitted.fit_disk(folder, pattern="*.npz", epochs=1, batch_size=64)
    return fitted


def ensemble(move: Move, folder: Path) -> Any:
    fitted = bf.EnsembleWorkflow(
        inference_networks=SMALL,
        ensemble_size=2,
        inference_variables="theta",
        inference_conditions="x",
        seed=1,
        standardize="all",
        progress=False,
    )
    fitted.fit_offline(simulator(move).sample(300, seed=3), epochs=1, batch_size=64)
    return fitted


def adapted(move: Move, folder: Path) -> Any:
    fitted = workflow(adapter=bf.Adapter().standardize("x"), standardize="inference_variables")
    fitted.fit_offline(simulator(move).sample(300, seed=3), epochs=1, batch_size=64)
    return fitted


def augmented(move: Move, folder: Path) -> Any:
    fitted = workflow()
    fitted.fit_offline(simulator(move).sample(300, seed=3), epochs=1, batch_size=64, augmentations=dict)
    return fitted


WAYS = {way.__name__: way for way in (offline, sets, online, stored, files, ensemble, adapted, augmented)}


def answers(fitted: Any, x: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Draws, densities and p-values of certificates of some observations, and draws of the saved file."""
    theta, conditions = np.zeros((len(x), 2)), {"x": x}
    saved = load_approximator(fitted.approximator.save(folder / "model.safetensors"))
    return {
        "draws": fitted.sample(num_samples=20, conditions=conditions, seed=0)["theta"],
        "log densities": fitted.log_prob({"theta": theta, "x": x}),
        "p-values": np.array(
            [certificate.novelty for certificate in fitted.certify(conditions, num_replicates=0, seed=0)]
        ),
        "draws of the file": saved.sample(num_samples=20, conditions=conditions, seed=0)["theta"],
    }


@pytest.mark.nightly_cases("ensemble", "online", "files", "augmented", "stored", "adapted")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_learned_does_not_depend_on_offset_and_unit(way: str, tmp_path: Path) -> None:
    """Draws and log densities agree to rounding in float32, p-values exactly, whether x is plain, moved by
    2^31, or out of the range of float32: tiny on every other way in, huge on the others."""
    found = {}
    moves = {name: MOVES[name] for name in ("moved", "tiny" if list(WAYS).index(way) % 2 else "huge")}
    for name, move in {"plain": lambda x: x, **moves}.items():
        folder = tmp_path / name
        folder.mkdir()
        x = simulator(move, (5, 2) if way == "sets" else (2,)).sample(30, seed=5)["x"]
        found[name] = answers(WAYS[way](move, folder), x, folder)
    spread = found["plain"]["draws"].mean(axis=1).std(axis=0)
    assert spread.min() > 0.05, "draws that do not depend on x would be the same anyhow"
    for name in moves:
        for what, values in found[name].items():
            np.testing.assert_allclose(values, found["plain"][what], atol=1e-4, err_msg=f"{what}, {name}")


@pytest.mark.nightly_cases("tiny")
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_parameters_keep_their_digits(move: Move) -> None:
    """Draws of a moved or scaled parameter are the moved or scaled draws: of an arrival at 2^31 s, its
    fractions of a second."""
    plain = simulator(lambda x: x).sample(300, seed=3)
    draws, scale = [], []
    for moved in (lambda x: x, move):
        fitted = workflow()
        fitted.fit_offline({"theta": moved(plain["theta"]), "x": plain["x"]}, epochs=1, batch_size=64)
        draws.append(fitted.sample(num_samples=20, conditions={"x": plain["x"][:30]}, seed=0)["theta"])
        scale.append(moved(plain["theta"]).std(axis=0))
    np.testing.assert_allclose((draws[1] - move(draws[0])) / scale[1], 0.0, atol=1e-4)


@pytest.mark.parametrize("seconds", [1e-3, 1e-4])
def test_milliseconds_of_gps_time_are_no_constant(seconds: float) -> None:
    """Columns that differ by 1e-13 of their values in thousands of steps are standardized to unit variance,
    by roles and by adapter."""
    noise = np.random.default_rng(0).normal(size=(400, 1))
    data = {"theta": noise.copy(), "x": 1126259462.4 + seconds * noise}
    for options in ({}, {"adapter": bf.Adapter().standardize("x"), "standardize": "inference_variables"}):
        fitted = workflow(**options)
        fitted.approximator.build(data, seed=0)
        prepared = fitted.approximator.prepare(data)["inference_conditions"].numpy()
        np.testing.assert_allclose(
            prepared, (noise - noise.mean()) / noise.std(), atol=0.01 + 2.4e-7 / seconds
        )
