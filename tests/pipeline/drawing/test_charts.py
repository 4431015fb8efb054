"""Charts hold their data, can be told apart, and become PNG files and pages without a network."""

import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from pipeline.drawing.chart_layout import Label, log_ticks, number_format, place_labels
from pipeline.drawing.charts import (
    Point,
    bar_chart,
    heat_map,
    line_chart,
    png_of,
    save_png,
    scatter_chart,
    scripts,
)
from tests.support.browsers import chromium_path

CURVES = {"up": [(0, 20.0), (10, 28.0)], "flat": [(0, 24.0), (10, 24.0)]}


def lines_of(curves):
    return line_chart(curves, title="t", x_label="steps", y_label="dB")


def points_of(*points, log_x=False):
    found = [Point(label=label, x=x, y=y, group=group) for label, x, y, group in points]
    return scatter_chart(found, title="t", x_label="parameters", y_label="dB", log_x=log_x)


def cells_of(values):
    return heat_map(values, title="t", x_label="input", y_label="network", value_label="gain")


def bars_of(bars):
    return bar_chart(bars, title="t", x_label="gain, dB", y_label="image")


def rows_of(chart):
    """The data inside a chart, wherever Altair has put it."""
    (data,) = chart.spec["datasets"].values() if "datasets" in chart.spec else [None]
    return data if data is not None else chart.spec["data"]["values"]


def scale_of(chart, channel, layer=0):
    scale = chart.spec["layer"][layer]["encoding"][channel]["scale"]
    return dict(zip(scale["domain"], map(str, scale["range"]), strict=True))


EVERY_CHART = {
    "lines": lines_of(CURVES),
    "one point": lines_of({"alone": [(1, 2.0)]}),
    "marks": points_of(("a", 8129, 28.3, "ours"), ("b", 5e6, 29.4, "published"), log_x=True),
    "one mark": points_of(("a", 0.0, 0.0, "ours")),
    "cells": cells_of({(10, 10): 1.1, (20, 10): -0.4}),
    "no gain": cells_of({(10, 10): 0.0}),
    "bars": bars_of({"one": [("x", 1.0), ("y", -0.5)], "two": [("x", 0.2)]}),
}


@pytest.mark.parametrize("name", EVERY_CHART)
def test_a_chart_is_drawn_and_a_scale_of_two_doubles_its_sides(name, tmp_path):
    save_png(EVERY_CHART[name], tmp_path / "new" / "chart.png")
    (tmp_path / "small.png").write_bytes(png_of(EVERY_CHART[name], scale=1))
    with (
        Image.open(tmp_path / "new" / "chart.png") as large,
        Image.open(tmp_path / "small.png") as small,
    ):
        assert large.format == "PNG"
        assert large.size == pytest.approx([2 * side for side in small.size], abs=2)
        assert np.asarray(large.convert("L")).std() > 5


@pytest.mark.parametrize("name", EVERY_CHART)
def test_a_chart_carries_its_data_and_loads_nothing(name):
    text = json.dumps(EVERY_CHART[name].spec, allow_nan=False)
    assert '"url"' not in text
    assert rows_of(EVERY_CHART[name])
    assert re.findall(r"https?://[^\"]+", text) == [EVERY_CHART[name].spec["$schema"]]


def test_a_line_chart_holds_every_point_and_names_curves_by_their_last_value():
    chart = lines_of({"low": [(0, 1.0), (5, 2.0)], "high": [(0, 0.0), (5, 9.0)]})
    assert {(row["name"], row["x"], row["y"]) for row in rows_of(chart)} == {
        ("low", 0, 1.0), ("low", 5, 2.0), ("high", 0, 0.0), ("high", 5, 9.0),
    }  # fmt: skip
    assert list(scale_of(chart, "color")) == ["high", "low"]


def test_thirty_curves_are_told_apart_by_colour_and_dashes():
    chart = lines_of({f"network {i}": [(0, 0.0), (1, -i % 7)] for i in range(30)})
    colours, dashes = scale_of(chart, "color"), scale_of(chart, "strokeDash")
    assert len({(colours[name], dashes[name]) for name in colours}) == 30


def test_a_line_chart_shows_every_curve_in_its_own_colour(tmp_path):
    save_png(lines_of(CURVES), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in scale_of(lines_of(CURVES), "color").values():
        drawn = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == drawn).all(axis=1).sum() > 500


def test_the_curve_of_a_diverged_training_ends_where_it_diverged():
    chart = lines_of({"a": [(0, 1.0), (1, float("nan")), (2, float("inf"))]})
    assert [(row["x"], row["y"]) for row in rows_of(chart)] == [(0, 1.0)]


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: lines_of({}), "there is no point to draw"),
        (lambda: lines_of({"a": []}), "there is no point to draw"),
        (lambda: lines_of({"a": [(0, float("nan"))]}), "there is no point to draw"),
        (lambda: points_of(), "there is no point to draw"),
        (lambda: points_of(("a", 0, 1, "g"), log_x=True), "'a' lies at .0, 1.*x above 0"),
        (lambda: points_of(("a", 1, float("inf"), "g")), "'a' lies at .1, inf"),
        (lambda: cells_of({}), "one value or more"),
        (lambda: cells_of({(1, 1): float("nan")}), "all finite"),
        (lambda: bars_of({}), "one bar or more"),
        (lambda: bars_of({"a": []}), "one bar or more"),
        (lambda: bars_of({"a": [("x", float("inf"))]}), "of finite length"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_the_charts_title(draw, told):
    with pytest.raises(ValueError, match=f"chart 't': .*{told}"):
        draw()


def test_a_heat_map_colours_zero_in_the_middle_whatever_the_values():
    chart = cells_of({(10, 20): 0.25, (20, 20): 1.5})
    assert chart.spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-1.5, 1.5]
    assert {(row["x"], row["y"]): row["value"] for row in rows_of(chart)} == {
        (10, 20): 0.25, (20, 20): 1.5,
    }  # fmt: skip


def test_bars_stand_in_the_order_of_their_mean_value():
    chart = bars_of({"one": [("x", 0.1), ("y", 0.4)], "two": [("x", 0.2), ("y", -0.3)]})
    assert chart.spec["layer"][0]["encoding"]["y"]["sort"] == ["x", "y"]
    assert len(rows_of(chart)) == 4


def test_a_long_title_goes_on_in_the_next_line():
    chart = line_chart(CURVES, title="word " * 40, x_label="x", y_label="y")
    assert len(chart.spec["title"]["text"]) == 3


def test_labels_avoid_marks_other_labels_and_the_edge():
    labels = [
        Label(text="in the middle", x=100, y=50),
        Label(text="right of it", x=115, y=50),
        Label(text="at the right edge", x=298, y=90),
    ]
    assert place_labels(labels, letter=10, width=300, height=100) == ["left", "right", "left"]


def test_numbers_are_written_as_people_read_them():
    assert number_format([65_864, 8_129]) == ",.0f"
    assert number_format([10, 20]) == ",.0f"
    assert number_format([28.22, 27.1]) == ".2f"
    assert number_format([0.7905]) == ".4f"
    assert log_ticks([8000, 120_000]) == [10_000, 20_000, 50_000, 100_000]
    assert log_ticks([0.5, 2e6]) == [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]


@pytest.mark.slow
def test_the_scripts_cannot_end_the_element_that_they_stand_in():
    text = scripts()
    assert not re.search(r"</?script|<!--", text, re.IGNORECASE)
    assert not re.search(r"\b(src|href)=[\"']https?:", text)


@pytest.mark.slow
def test_a_page_with_the_scripts_draws_a_chart_and_leaves_three_names(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        f"""<!doctype html><body><div id="here"></div>
        <script>const before = new Set(Object.keys(window));</script>
        <script>{scripts()}</script>
        <script>
          const added = Object.keys(window).filter((name) => !before.has(name)).join(" ");
          vegaEmbed("#here", {json.dumps(lines_of(CURVES).spec)}, {{renderer: "svg"}}).then(
            () => {{ document.title = "drawn with " + added; }});
        </script></body>"""
    )
    done = subprocess.run(
        [
            chromium_path(), "--headless", "--no-sandbox", "--disable-gpu",
            "--virtual-time-budget=20000",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "<title>drawn with vegaEmbed vega vegaLite</title>" in done.stdout
    assert "<svg" in done.stdout
    assert ">steps</text>" in done.stdout


@pytest.mark.parametrize(
    "chart",
    [
        lines_of({"alone": [(0, 1.0), (1, 2.0)]}),
        bars_of({"alone": [("x", 1.0), ("y", -0.5)]}),
        points_of(("a", 1, 1, "g"), ("b", 2, 2, "g")),
    ],
)
def test_a_single_name_has_no_legend(chart):
    channels = [layer["encoding"] for layer in chart.spec["layer"]]
    legends = [
        encoding[channel]["legend"]
        for encoding in channels
        for channel in ("color", "shape", "strokeDash")
        if channel in encoding
    ]
    assert legends
    assert set(legends) == {None}
