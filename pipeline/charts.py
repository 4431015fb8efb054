"""Charts as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]
"""Points (x, y), x ascending."""


def draw_curves(
    curves: Mapping[str, Curve], path: Path, *, title: str, x_label: str, y_label: str
) -> None:
    """Write a PNG with one line for each name, its end value in the legend."""
    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker=".", markersize=4, linewidth=1.4, label=f"{name}  ({ys[-1]:.2f})")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
