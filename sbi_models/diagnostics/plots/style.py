"""Style of all diagnostic figures, and the grid of their panels.

Everything is set on the figure's own objects: neither pyplot nor Matplotlib's global settings are touched, so
figures can be drawn from any thread, and look the same when they are saved later.
"""

from collections.abc import Mapping
from io import BytesIO
from math import ceil
from textwrap import fill
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

BLUE, ORANGE, GREEN, RED, GREY, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8A8A", "#222222"
"""Colours of Okabe and Ito (2008), which colour-blind readers can distinguish."""

TICK, TEXT, LABEL, TITLE = 7.5, 7.5, 9.5, 9.5
"""Font sizes in points."""

LONG_NAME = 26
"""Number of characters after which a title is wrapped."""

MANY_PANELS = 12
"""Number of panels above which label sizes are estimated; measuring them would dominate large figures."""

LETTER = 0.64
"""Width of a digit over the font size."""

TITLE_PAD = 5.0
"""Distance between a panel and its title in points."""

TICKS: dict[str, Any] = {
    "labelsize": TICK,
    "color": BLACK,
    "labelcolor": BLACK,
    "width": 0.7,
    "length": 2.5,
    "direction": "out",
    "gridOn": True,
    "grid_color": "#E8E8E8",
    "grid_linewidth": 0.6,
}

BAND: dict[str, Any] = {"color": GREY, "alpha": 0.25, "linewidth": 0}
LINE: dict[str, Any] = {"color": BLUE, "linewidth": 1.4}
GUIDE: dict[str, Any] = {"color": BLACK, "linewidth": 0.8, "linestyle": (0, (4, 3))}
DOTS: dict[str, Any] = {"s": 9, "color": BLUE, "alpha": 0.55, "linewidths": 0}


class DiagnosticFigure(Figure):
    """Figure that notebooks show by itself, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


class Panel(Axes):
    """Axes that estimate the room of their labels, for a quick layout of many panels."""

    def get_tightbbox(self, renderer: Any = None, **options: Any) -> Any:
        """Bounding box of the panel with its labels in pixels, measured, or estimated for many panels."""
        figure = self.get_figure(root=True)
        if (
            figure is None
            or not options.get("for_layout_only")
            or len(figure.axes) <= MANY_PANELS
            or "$" in self.get_title()
        ):
            return super().get_tightbbox(renderer, **options)
        inner, pixels = self.bbox, figure.dpi / 72.0
        left, bottom, right, top = (pixels * points for points in self._room())
        return Bbox.from_extents(inner.x0 - left, inner.y0 - bottom, inner.x1 + right, inner.y1 + top)

    def _room(self) -> tuple[float, float, float, float]:
        """Room of the labels beyond the left, bottom, right and top edge, in points."""
        left = bottom = right = top = 0.0
        if self.get_title():
            top = TITLE_PAD + 1.25 * TITLE * (1 + self.get_title().count("\n"))
        if self.get_ylabel():
            left += 4.0 + 1.25 * TITLE * (1 + self.get_ylabel().count("\n"))
        if self.yaxis.get_tick_params()["labelleft"]:
            left += 6.0 + LETTER * TICK * max(map(len, _tick_labels(self.yaxis)), default=0)
        if self.xaxis.get_tick_params()["labelbottom"]:
            bottom = 6.0 + 1.3 * TICK
            right = 0.5 * LETTER * TICK * max(map(len, _tick_labels(self.xaxis)), default=0)
            left = max(left, right)
        if self.get_xlabel():
            bottom += 4.0 + 1.25 * TITLE * (1 + self.get_xlabel().count("\n"))
        return left, bottom, right, top


def _tick_labels(axis: Axis) -> list[str]:
    return axis.get_major_formatter().format_ticks(list(axis.get_majorticklocs()))


def panel_grid(
    titles: list[str],
    *,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    aspect: float = 0.85,
    columns: int | None = None,
    width: float | None = None,
) -> tuple[Figure, list[Axes]]:
    """Figure with one titled panel for each title, in a grid that stays readable from 1 to 50 panels.

    Limits, if given, are those of every panel; then only the left and the lowest panels carry tick labels.
    (Matplotlib's own sharing of axes costs time quadratic in the number of panels.) `aspect` is height over
    width of a panel, `width` its width in inches.
    """
    count = len(titles)
    columns = columns or _columns(count)
    rows = ceil(count / columns)
    width = width or ({1: 3.6, 2: 3.2, 3: 2.9, 4: 2.6}.get(columns, 2.2) if rows <= 2 else 2.0)
    figure = DiagnosticFigure(
        figsize=(columns * width + 0.4, rows * (width * aspect + 0.1) + 0.8), dpi=110, layout="constrained"
    )
    grid = figure.add_gridspec(rows, columns)
    panels = [figure.add_subplot(grid[i // columns, i % columns], axes_class=Panel) for i in range(count)]
    for i, (title, axes) in enumerate(zip(titles, panels, strict=True)):
        below, beside = x_limits is None or i + columns >= count, y_limits is None or i % columns == 0
        dress(axes, title, labelbottom=below, labelleft=beside)
        if x_limits:
            axes.set_xlim(x_limits)
        if y_limits:
            axes.set_ylim(y_limits)
    return figure, panels


def _columns(count: int) -> int:
    """Number of columns, at most 7: near a square with few empty cells; up to 4 panels form one row."""
    if count <= 4:
        return count
    least = min(round(count**0.5), 7)
    return min(range(min(least + 2, 7), least - 1, -1), key=lambda columns: -count % columns)


def dress(axes: Axes, title: str = "", **ticks: Any) -> None:
    """Style axes: two spines, small ticks, the name of the panel on top.

    `ticks` are arguments of Matplotlib's tick_params.
    """
    if "$" not in title:  # mathematics cannot be broken
        title = fill(title, LONG_NAME)
    axes.set_title(title, fontsize=TITLE, color=BLACK, pad=TITLE_PAD)
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=BLACK, linewidth=0.7)
    axes.tick_params(**TICKS, **ticks)  # grid and ticks in one go: each call costs as much as a line
    axes.locator_params(nbins=5 if len(axes.figure.axes) <= MANY_PANELS else 3)


def note(axes: Axes, text: str, *, x: float = 0.04, y: float = 0.96, color: str = BLACK) -> None:
    """Add a small note inside a panel, at a corner given in fractions of the panel, on a light background."""
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        fontsize=TEXT,
        color=color,
        ha="left" if x < 0.5 else "right",
        va="top" if y > 0.5 else "bottom",
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2},
        zorder=5,
    )


def finish(figure: Figure, x_label: str, y_label: str, legend: Mapping[str, Artist]) -> Figure:
    """Label the figure's two axes and put its one legend above the panels."""
    figure.supxlabel(x_label, fontsize=LABEL, color=BLACK)
    figure.supylabel(y_label, fontsize=LABEL, color=BLACK)
    if legend:
        per_row = max(1, int(figure.get_figwidth() // 1.9))
        figure.legend(
            list(legend.values()),
            list(legend),
            loc="outside upper center",
            ncols=min(len(legend), per_row),
            frameon=False,
            fontsize=8.5,
            labelcolor=BLACK,
        )
    engine = figure.get_layout_engine()
    if engine is not None and len(figure.axes) > MANY_PANELS:
        engine.execute(figure)
        figure.set_layout_engine(
            None
        )  # "none" would leave a placeholder, for which savefig draws everything twice
    return figure
