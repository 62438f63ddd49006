"""Training from files and stores of data sets of different lengths."""

import numpy as np
import pytest

import sbi_models as bf
from sbi_models.datasets import SimulationStore, to_arrays
from sbi_models.networks import CouplingFlow, DeepSet


def prior(rng):
    return {"mu": rng.normal(size=1)}


def sets(mu, rng):
    return {"x": rng.normal(mu, size=(rng.integers(1, 6), 1))}


SIMULATOR = bf.make_simulator([prior, sets])


@pytest.mark.nightly
def test_training_from_disk_is_training_from_memory(tmp_path):
    """Held-out losses after files, a store and memory agree within noise, and are below that of the prior."""
    data, test = SIMULATOR.sample(960, seed=8), SIMULATOR.sample(500, seed=9)
    np.savez(tmp_path / "data.npz", **to_arrays(data))
    store = SimulationStore.create(
        tmp_path / "store",
        lambda start, stop: SIMULATOR.rows(start, stop, seed=8, progress=False),
        960,
        seed=8,
        fingerprint="f",
        rows_per_shard=500,
    )
    losses = []
    for root in (None, tmp_path, store):
        fitted = bf.BasicWorkflow(
            inference_variables=["mu"],
            summary_variables=["x"],
            summary_network=DeepSet(summary_dim=4, widths=(16,), head_widths=(16,)),
            inference_network=CouplingFlow(depth=2, widths=(16,)),
            seed=1,
        )
        if root is None:
            fitted.fit_offline(data, epochs=6, batch_size=64)
        else:
            fitted.fit_disk(root, pattern="*.npz", epochs=6, batch_size=64)
        losses.append(-np.mean(fitted.log_prob(test)))
    assert max(losses) - min(losses) < 0.15
    print(losses)
    prior_loss = -np.mean(-(test["mu"] ** 2) / 2 - np.log(2 * np.pi) / 2)
    assert max(losses) < prior_loss - 0.2
