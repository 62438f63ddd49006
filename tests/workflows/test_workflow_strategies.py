"""fit_online, fit_offline and fit_disk learn equally well from the same number of simulations."""

from itertools import combinations

import numpy as np
from linear_gaussian import SIMULATOR, workflow

STEPS, BATCH, SEEDS = 60, 64, 3


# Seconds: nine trainings, from which the scatter between seeds is known.
def test_the_three_strategies_reach_the_same_loss(tmp_path):
    """After one pass over 3 840 simulations the held-out losses differ by less than their scatter between
    seeds allows (4 standard errors), and each is far below that of an untrained network."""
    validation = SIMULATOR.sample(1000, seed=900)
    losses = {"fit_online": [], "fit_offline": [], "fit_disk": []}
    for seed in range(SEEDS):
        data = SIMULATOR.sample(STEPS * BATCH, seed=100 + seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for k in range(8):
            np.savez(
                folder / f"{k}.npz", **{name: np.array_split(value, 8)[k] for name, value in data.items()}
            )
        own = {
            "fit_online": {"num_batches_per_epoch": STEPS},
            "fit_offline": {"data": data},
            "fit_disk": {"root": folder, "pattern": "*.npz"},
        }
        for method, arguments in own.items():
            made = workflow(widths=(32, 32), seed=seed)
            history = getattr(made, method)(
                epochs=1, batch_size=BATCH, validation_data=validation, **arguments
            )
            losses[method].append(history.history["val_loss"][-1])
    values = np.array(list(losses.values()))
    scatter = np.sqrt(values.var(axis=1, ddof=1).mean())
    for a, b in combinations(losses, 2):
        assert abs(np.mean(losses[a]) - np.mean(losses[b])) < 4 * scatter * np.sqrt(2 / SEEDS)
    assert values.max() < 0.9
    assert scatter < 0.05
