"""Charts (Vega-Lite): built as data, embedded in reports, or drawn as PNG files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from pipeline.drawing.chart_layout import (
    Label,
    all_finite,
    log_ticks,
    number_format,
    place_labels,
    position,
    roomy_domain,
)
from pipeline.drawing.chart_style import (
    CELL,
    COLOURS,
    DASHES,
    HEIGHT,
    LABEL_SIZE,
    LINES,
    MARKS,
    NAMES,
    ROW,
    SHAPES,
    TEXT_BESIDE,
    WIDTH,
    base_chart,
    colour_by_name,
    styled_spec,
)
from storage import files

WINDOW_NAMES = "window.vegaEmbed = vegaEmbed; window.vega = vega; window.vegaLite = vegaLite;"
"""What the bundle leaves behind in the page."""

Curve = Sequence[tuple[float, float]]
"""Points (x, y), x ascending."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart that can be embedded in a page, or made a PNG."""

    title: str
    spec: dict[str, Any]
    """Vega-Lite, with its data inside; it refers to nothing elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mark of a scatter chart."""

    label: str
    """Stands beside the mark."""
    x: float
    y: float
    group: str
    """Marks of one group have one colour; the legend names them."""


def line_chart(curves: Mapping[str, Curve], *, title: str, x_label: str, y_label: str) -> Chart:
    """Return a line with its points for each name; the legend is in the order of the last values.

    Points that are not finite are left out: the curve of a diverged training ends early. Raises
    ValueError when no point is left.
    """
    kept = {name: [p for p in points if all_finite(*p)] for name, points in curves.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        raise ValueError(f"chart {title!r}: there is no point to draw, give one curve or more")
    names = sorted(kept, key=lambda name: -kept[name][-1][1])
    points = [(x, y) for name in names for x, y in kept[name]]
    rows = [{"name": name, "x": x, "y": y} for name in names for x, y in kept[name]]
    places = [list(kept).index(name) for name in names]
    dashes = [DASHES[place // len(COLOURS) % len(DASHES)] for place in places]
    base = base_chart(rows).encode(
        x=alt.X("x:Q", title=x_label, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=9)),
        y=alt.Y("y:Q", title=y_label, scale=alt.Scale(zero=False)),
        color=colour_by_name(names, list(kept), legend=LINES),
        tooltip=[
            alt.Tooltip("name:N", title="curve"),
            alt.Tooltip("x:Q", title=x_label, format=number_format(x for x, _ in points)),
            alt.Tooltip("y:Q", title=y_label, format=number_format(y for _, y in points)),
        ],
    )
    dash = alt.StrokeDash(
        "name:N",
        title=None,
        sort=None,
        scale=alt.Scale(domain=names, range=dashes),
        legend=LINES if len(names) > 1 else None,
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=dash)
    few = len(points) <= 25 * len(names)
    marks = base.mark_point(size=30 if few else 8, filled=True, opacity=1)
    return _chart(lines, marks, title=title, width=WIDTH, height=HEIGHT)


def scatter_chart(
    points: Sequence[Point], *, title: str, x_label: str, y_label: str, log_x: bool = False
) -> Chart:
    """Return a mark with its label beside it for each point, labels kept apart where possible.

    Raises ValueError for no points, values that are not finite, or x of 0 or less with `log_x`.
    """
    _check_points(points, title, above_zero=log_x)
    x_domain = roomy_domain([p.x for p in points], log_x)
    y_domain = roomy_domain([p.y for p in points])
    labels = [
        Label(
            text=point.label,
            x=position(point.x, x_domain, log_x) * WIDTH,
            y=(1 - position(point.y, y_domain)) * HEIGHT,
        )
        for point in points
    ]
    sides = place_labels(labels, letter=LABEL_SIZE, width=WIDTH, height=HEIGHT)
    rows = [
        {"label": p.label, "x": p.x, "y": p.y, "name": p.group, "side": side}
        for p, side in zip(points, sides, strict=True)
    ]
    names = list(dict.fromkeys(p.group for p in points))
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(names))]
    kind = "log" if log_x else "linear"
    base = base_chart(rows).encode(
        x=alt.X(
            "x:Q",
            title=x_label,
            scale=alt.Scale(type=kind, domain=x_domain, nice=False),
            axis=alt.Axis(values=log_ticks(x_domain), format=",~r") if log_x else alt.Undefined,
        ),
        y=alt.Y("y:Q", title=y_label, scale=alt.Scale(domain=y_domain, nice=False)),
        tooltip=[
            alt.Tooltip("label:N", title="name"),
            alt.Tooltip("name:N", title="group"),
            alt.Tooltip("x:Q", title=x_label, format=number_format(p.x for p in points)),
            alt.Tooltip("y:Q", title=y_label, format=number_format(p.y for p in points)),
        ],
    )
    marks = base.mark_point(size=70, filled=True, opacity=0.9).encode(
        color=colour_by_name(names, names, legend=MARKS),
        shape=alt.Shape(
            "name:N",
            title=None,
            sort=None,
            scale=alt.Scale(domain=names, range=shapes),
            legend=MARKS if len(names) > 1 else None,
        ),
    )
    texts = [
        base.transform_filter(alt.datum.side == side)
        .mark_text(fontSize=LABEL_SIZE, **TEXT_BESIDE[side])
        .encode(text="label:N")
        for side in dict.fromkeys(sides)
    ]
    return _chart(marks, *texts, title=title, width=WIDTH, height=HEIGHT)


def heat_map(
    values: Mapping[tuple[int, int], float],
    *,
    title: str,
    x_label: str,
    y_label: str,
    value_label: str,
) -> Chart:
    """Return a grid with a coloured, numbered cell for each (x, y): blue above 0, orange below.

    Raises ValueError for no values or one that is not finite.
    """
    if not values or not all_finite(*values.values()):
        raise ValueError(f"chart {title!r}: give one value or more, all finite, not {dict(values)}")
    xs, ys = sorted({x for x, _ in values}), sorted({y for _, y in values})
    largest = max(abs(value) for value in values.values()) or 1.0
    rows = [{"x": x, "y": y, "value": value} for (x, y), value in values.items()]
    form = "+.2f" if largest >= 0.5 else "+.4f"
    base = base_chart(rows).encode(
        x=alt.X("x:O", title=x_label, sort=xs, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("y:O", title=y_label, sort=ys),
        tooltip=[
            alt.Tooltip("x:O", title=x_label),
            alt.Tooltip("y:O", title=y_label),
            alt.Tooltip("value:Q", title=value_label, format=form),
        ],
    )
    cells = base.mark_rect(stroke="white").encode(
        color=alt.Color(
            "value:Q",
            title=value_label,
            scale=alt.Scale(scheme="blueorange", reverse=True, domain=[-largest, largest]),
            legend=alt.Legend(format=form, gradientLength=min(200, CELL * max(2, len(ys)))),
        )
    )
    dark = abs(alt.datum.value) > 0.75 * largest
    numbers = base.mark_text(fontSize=13).encode(
        text=alt.Text("value:Q", format=form),
        color=alt.when(dark).then(alt.value("white")).otherwise(alt.value("#1a1d21")),
    )
    return _chart(cells, numbers, title=title, width=CELL * len(xs), height=CELL * len(ys))


def bar_chart(
    bars: Mapping[str, Sequence[tuple[str, float]]], *, title: str, x_label: str, y_label: str
) -> Chart:
    """Return lying bars, one for each series and name, names with the largest mean value on top.

    Args:
        bars: series to (name, value), such as network to (image, gain).
        title: one line or more.
        x_label: what the values are, such as `PSNR gain, dB`.
        y_label: what the names are, such as `image`.

    Raises ValueError for no bars or values that are not finite.
    """
    found: dict[str, list[float]] = {}
    for series in bars.values():
        for name, value in series:
            found.setdefault(name, []).append(value)
    values = [value for several in found.values() for value in several]
    if not values or not all_finite(*values):
        raise ValueError(f"chart {title!r}: give one bar or more, of finite length, not {bars}")
    order = sorted(found, key=lambda name: -math.fsum(found[name]) / len(found[name]))
    drawn = [series for series, pairs in bars.items() if pairs]
    rows = [
        {"series": series, "name": name, "value": value}
        for series in drawn
        for name, value in bars[series]
    ]
    base = base_chart(rows).encode(
        x=alt.X("value:Q", title=x_label, axis=alt.Axis(tickCount=8)),
        y=alt.Y("name:N", title=y_label, sort=order, axis=NAMES),
        yOffset=alt.YOffset("series:N", sort=drawn),
        color=colour_by_name(drawn, drawn, field="series", legend=MARKS),
        tooltip=[
            alt.Tooltip("name:N", title=y_label),
            alt.Tooltip("series:N", title="series"),
            alt.Tooltip("value:Q", title=x_label, format="+" + number_format(values)),
        ],
    )
    height = len(order) * (ROW if len(drawn) == 1 else 10 * len(drawn) + 8)
    return _chart(base.mark_bar(), title=title, width=WIDTH, height=height)


def png_of(chart: Chart, *, scale: float = 2.0) -> bytes:
    """Return a chart as a PNG file, drawn without a network; `scale` device pixels a pixel."""
    return vl_convert.vegalite_to_png(chart.spec, scale=scale, allowed_base_urls=[])


def save_png(chart: Chart, path: str | Path) -> None:
    """Write a chart as a PNG to a path or URI, its folder made if need be."""
    files.write_bytes(str(path), png_of(chart))


@cache
def scripts() -> str:
    """Return the JavaScript that shows charts in a page, for the inside of one <script> element.

    It holds Vega, Vega-Lite and Vega-Embed, and sets `vegaEmbed`, `vega` and `vegaLite` of the
    window and no other name. It loads nothing.
    """
    bundle = vl_convert.javascript_bundle(WINDOW_NAMES)
    for ends_script in ("</script", "</SCRIPT", "<!--", "<script"):  # inside text or a pattern
        bundle = bundle.replace(ends_script, ends_script.replace("<", "\\x3c"))
    return f'(() => {{"use strict";{bundle}\n}})();'


def _check_points(points: Sequence[Point], title: str, *, above_zero: bool) -> None:
    if not points:
        raise ValueError(f"chart {title!r}: there is no point to draw, give one or more")
    for point in points:
        if not all_finite(point.x, point.y) or (above_zero and point.x <= 0):
            allowed = "finite numbers, x above 0" if above_zero else "finite numbers"
            raise ValueError(
                f"chart {title!r}: {point.label!r} lies at ({point.x}, {point.y}): give {allowed}"
            )


def _chart(*layers: alt.Chart, title: str, width: float, height: float) -> Chart:
    return Chart(title=title, spec=styled_spec(layers, title=title, width=width, height=height))
