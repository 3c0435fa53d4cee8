"""Lines, bars and points, as SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.report.page import Picture

Series = tuple[Sequence[float], Sequence[float]]
_COLOURS = {"train": "#8fa3bf", "held out": "#c2410c", "test": "#c2410c"}
_BAR, _QUIET = "#31688e", "#c9d1dc"
_RC: dict[Any, Any] = {  # the names of the settings are a long Literal
    "svg.hashsalt": "report",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a6",
    "axes.labelcolor": "#465064",
    "axes.titlecolor": "#1d2430",
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "xtick.color": "#5b6577",
    "ytick.color": "#5b6577",
}


def curves(panels: Mapping[str, Mapping[str, Series]], xlabel: str) -> Picture:
    """A panel for each metric, with a line for each split: x and y."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(10, 2.9), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            for split, (x, y) in lines.items():
                marker = "o" if len(x) < 2 else ""
                axis.plot(x, y, label=split, color=_COLOURS[split], lw=1.8, marker=marker)
            _show_end(axis, [y for _, y in lines.values()])
            axis.set(title=title, xlabel=xlabel)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.grid(axis="y", color="#eceff4")
        axes[0].set_ylabel("nats per item")
        axes[0].legend(frameon=False, loc="lower right")
        return _picture(figure, _curves_text(panels, xlabel))


def bars(values: Sequence[float], threshold: float, what: str) -> Picture:
    """Values in falling order, those below the threshold pale; the axis names their index."""
    order = np.argsort(values, kind="stable")[::-1]
    heights = np.asarray(values)[order]
    few = len(order) <= 64
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        axis = figure.subplots()
        colours = [_BAR if height > threshold else _QUIET for height in heights]
        axis.bar(np.arange(len(order)), heights, color=colours, width=0.8 if few else 1.0)
        axis.axhline(threshold, color="#c2410c", lw=1, ls="--")
        axis.set(xlabel=f"{what}, by rate", ylabel="nats per item", xlim=(-0.8, len(order) - 0.2))
        if few:
            size = 9 if len(order) <= 32 else 6.5
            axis.set_xticks(np.arange(len(order)), [str(index) for index in order], fontsize=size)
        active = int((heights > threshold).sum())
        alt = (
            f"Bar chart of the rate of {len(order)} {what}s: {active} are above "
            f"{threshold:g} nats; the largest is {what} {order[0]} with {heights[0]:.2f} nats."
        )
        return _picture(figure, alt)


def points(
    positions: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    names: Sequence[str],
    title: str,
    axes_names: tuple[str, str] = ("", ""),
) -> Picture:
    """[N, 2] coloured by label [N], label k called names[k]; each label also at its median."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        axis = figure.subplots()
        size = 16 if len(positions) < 600 else 7
        present = [] if labels is None else np.unique(labels).tolist()
        if labels is None:
            _scatter(axis, positions, _BAR, size)
        for label, colour in zip(present, _palette(len(present)), strict=True):
            chosen = positions[labels == label]
            _scatter(axis, chosen, colour, size)
            axis.scatter([], [], s=30, color=colour, label=names[label])
            if len(present) <= 20:
                _name_cluster(axis, chosen, names[label], colour)
        if 1 < len(present) <= 20:
            axis.legend(
                frameon=False,
                loc="center left",
                bbox_to_anchor=(1, 0.5),
                handletextpad=0.1,
                title="class",
            )
        axis.set(title=title, xlabel=axes_names[0], ylabel=axes_names[1])
        axis.set_aspect("equal", "datalim")
        if not any(axes_names):
            axis.set(xticks=[], yticks=[])
        coloured = f", coloured by {len(present)} classes" if len(present) > 1 else ""
        return _picture(figure, f"Scatter plot of {len(positions)} items, {title}{coloured}.")


def _scatter(axis: Axes, places: NDArray[np.float32], colour: str, size: float) -> None:
    """Dots of one colour, as pixels: as SVG each would be an element."""
    axis.scatter(places[:, 0], places[:, 1], s=size, color=colour, alpha=0.6, lw=0, rasterized=True)


def _name_cluster(axis: Axes, chosen: NDArray[np.float32], name: str, colour: str) -> None:
    axis.annotate(
        name,
        (float(np.median(chosen[:, 0])), float(np.median(chosen[:, 1]))),
        ha="center",
        va="center",
        weight="bold",
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": colour, "alpha": 0.85},
    )


def _palette(count: int) -> list[str]:
    """Colours that differ, for as many labels as there are."""
    name = "tab10" if count <= 10 else "tab20" if count <= 20 else "turbo"
    colours = mpl.colormaps[name]
    places = range(count) if count <= 20 else np.linspace(0, 1, count)
    return [mpl.colors.to_hex(colours(place)) for place in places]


def _show_end(axis: Axes, lines: Sequence[Sequence[float]]) -> None:
    """Let the first steps, which are far from everything after them, leave the panel."""
    late = np.concatenate([np.asarray(y)[len(y) // 20 :] for y in lines])
    margin = 0.08 * (late.max() - late.min()) or 1.0
    axis.set_ylim(late.min() - margin, late.max() + margin)


def _curves_text(panels: Mapping[str, Mapping[str, Series]], xlabel: str) -> str:
    ends = [
        f"{title} {split} from {y[0]:.2f} to {y[-1]:.2f}"
        for title, lines in panels.items()
        for split, (_, y) in lines.items()
    ]
    return f"Line charts over {xlabel}, in nats per item: {'; '.join(ends)}."


def _picture(figure: Figure, alt: str) -> Picture:
    buffer = io.BytesIO()
    figure.set_dpi(200)  # of what is rasterized
    metadata = {"Date": None, "Creator": None}
    FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)  # type: ignore[no-untyped-call]
    return Picture(buffer.getvalue(), alt, round(figure.get_figwidth() * 96))
