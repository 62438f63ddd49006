"""Training and validation loss over epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sbi_models.diagnostics.metrics.checks import as_floats
from sbi_models.diagnostics.plots.style import BLUE, RED, finish, note, panel_grid
from sbi_models.errors import DataError, suggest

MEMBER: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.5}


def plot_losses(history: Mapping[str, Sequence[float]]) -> Figure:
    """Plot `loss` and, if given, `val_loss` against the epoch, with a ring at the lowest validation loss.

    Epochs are counted from 1. A loss that is not finite leaves a gap. Those of members of an ensemble
    (`member/loss`) are thin lines, up to the last epoch of each.

    Args:
        history: losses by name, one value an epoch, in nats for density estimators.

    Raises:
        DataError: `loss` is missing or empty, or a loss is not a list of numbers.
    """
    if "loss" not in history:
        raise DataError(f"Expected a history with 'loss', got none. {suggest('loss', map(str, history))}")
    figure, (axes,) = panel_grid([""], aspect=0.7)
    figure.set_size_inches(5.2, 3.2)
    legend: dict[str, Artist] = {}
    for key, label, color in (("loss", "training", BLUE), ("val_loss", "validation", RED)):
        values = as_floats(f"history[{key!r}]", list(history.get(key, [])))
        if values.ndim != 1 or (key == "loss" and not values.size):
            raise DataError(
                f"Expected history[{key!r}] as one number an epoch, got shape {values.shape}. "
                "Train before plotting losses."
            )
        if not values.size:
            continue
        for name in history:
            if name.endswith(f"/{key}"):
                of_member = as_floats(f"history[{name!r}]", list(history[name]))
                axes.plot(
                    np.arange(1, len(of_member) + 1),
                    np.where(np.isfinite(of_member), of_member, np.nan),
                    color=color,
                    **MEMBER,
                )
        epochs = np.arange(1, len(values) + 1)
        finite = np.isfinite(values)
        marker = "o" if len(values) < 20 else None
        (legend[label],) = axes.plot(
            epochs, np.where(finite, values, np.nan), color=color, linewidth=1.4, marker=marker, markersize=3
        )
        if key == "val_loss" and finite.any():
            best = int(np.argmin(np.where(finite, values, np.inf)))
            axes.plot(
                epochs[best], values[best], "o", markersize=7, markerfacecolor="none", markeredgecolor=color
            )
            note(
                axes,
                f"lowest validation loss {values[best]:.4g}, epoch {epochs[best]}".replace("-", "−"),
                x=0.98,
            )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return finish(figure, "epoch", "loss", legend)
