"""How charts look: colours, sizes, letters.

Colours are told apart by people with colour vision deficiencies (Okabe and Ito, 2008; their yellow,
faint on white, is replaced); with more names than colours, dashes or shapes tell them apart too.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from pipeline.drawing.chart_layout import Side

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#4d4d4d",
)  # fmt: skip
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Line patterns, each used for one round of the colours."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
WIDTH, HEIGHT = 640, 380
"""Of the area between the axes, in pixels."""
ROW, CELL = 18, 64
"""Height of a bar's row, and side of a heat map's cell, in pixels."""
TITLE_LETTERS = 78
"""A longer title goes on in the next line."""
NAMES = alt.Axis(labelLimit=260, maxExtent=320, ticks=False, domain=False)
"""A column of names; longer ones are cut, and whole in the tooltip."""
LABEL_SIZE = 11
"""Size of the letters of axes, legends and labels, in pixels."""
LINES, MARKS = (
    alt.Legend(symbolOpacity=1, symbolSize=160, symbolType="stroke"),
    alt.Legend(symbolOpacity=1, symbolSize=100),
)
"""Legends of lines, and of everything else."""
TEXT_BESIDE: Mapping[Side, dict[str, Any]] = {
    "right": {"align": "left", "baseline": "middle", "dx": 8},
    "left": {"align": "right", "baseline": "middle", "dx": -8},
    "above": {"align": "center", "baseline": "bottom", "dy": -8},
    "below": {"align": "center", "baseline": "top", "dy": 8},
}


def base_chart(rows: Sequence[Mapping[str, object]]) -> alt.Chart:
    """Return what a chart's layers share: its data, a dictionary a mark."""
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def colour_by_name(
    names: Sequence[str], fixed: Sequence[str], *, legend: alt.Legend, field: str = "name"
) -> alt.Color:
    """Colour by name: the colour follows the place in `fixed`, the legend the order of `names`.

    A single name has no legend.
    """
    colours = [COLOURS[fixed.index(name) % len(COLOURS)] for name in names]
    scale = alt.Scale(domain=list(names), range=colours)
    return alt.Color(
        f"{field}:N", title=None, sort=None, scale=scale, legend=legend if len(names) > 1 else None
    )


def styled_spec(
    layers: Sequence[alt.Chart], *, title: str, width: float, height: float
) -> dict[str, Any]:
    """Return the Vega-Lite of layers on top of each other, in the project's style."""
    lines = textwrap.wrap(title, TITLE_LETTERS)
    whole = (
        alt.LayerChart(
            layer=list(layers),
            title=alt.TitleParams(lines, anchor="start", fontSize=15, offset=14),
            width=width,
            height=height,
        )
        .configure(font="Helvetica, Arial, sans-serif", background="white", padding=14)
        .configure_axis(labelFontSize=LABEL_SIZE, titleFontSize=12, labelLimit=0, gridOpacity=0.6)
        .configure_legend(labelFontSize=LABEL_SIZE, titleFontSize=12, labelLimit=0)
        .configure_view(stroke=None)
    )
    return whole.to_dict()
