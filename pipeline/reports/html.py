"""A report as one HTML page that needs nothing else: scripts, charts and pictures inside it."""

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resource_files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pipeline.drawing.charts import png_of, scripts
from pipeline.images.metrics import METRICS
from pipeline.reports.picture_sections import ERROR_FACTOR, error_map
from pipeline.reports.report_data import Picture, Report, ReportedNetwork
from pipeline.reports.result_table import table_rows
from pipeline.reports.sections import SECTIONS, ReportChart, charts_of
from storage import files

LAYER_TITLES = {
    "jpeg": "JPEG",
    "restored": "restored",
    "original": "original",
    "jpeg-error": f"error map of the JPEG (x{ERROR_FACTOR})",
    "restored-error": f"error map of restored (x{ERROR_FACTOR})",
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report for people."""

    html: str
    """Self-contained: opens without a network, asks for nothing."""
    charts: Mapping[str, bytes]
    """The same charts as PNG files, by name."""


def render(report: Report) -> Page:
    """Return the page of a report. The same report gives the same page."""
    charts = charts_of(report)
    pngs = {name: small_png(png_of(chart.chart)) for name, chart in charts.items()}
    script = _resource("page.js")
    html = _template().render(
        report=report,
        sections=[s for s in SECTIONS if any(c.section == s.key for c in charts.values())],
        charts={name: _chart_of(chart, pngs[name]) for name, chart in charts.items()},
        specs=_json({name: chart.chart.spec for name, chart in charts.items()}),
        rows=table_rows(report),
        metrics=dict(sorted(METRICS.items(), key=lambda one: one[1].digits)),  # decibels first
        pictures=[(picture, _layers_of(picture)) for picture in report.pictures],
        layer_titles=LAYER_TITLES,
        made={network.name: _made(network) for network in report.networks},
        policy=_policy(scripts() if charts else "", script),
        style=Markup(_resource("page.css")),
        script=Markup(script),
        chart_script=Markup(scripts()) if charts else "",
    )
    return Page(html=html, charts=pngs)


def save_page(report: Report, path: str | Path) -> Page:
    """Write the HTML of a report to a path or URI, its folder made if need be."""
    page = render(report)
    files.write_bytes(str(path), page.html.encode())
    return page


def small_png(png: bytes) -> bytes:
    """Return a chart's PNG with 256 colours, at a fraction of the bytes."""
    content = io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(content, "PNG")
    return content.getvalue()


def _chart_of(chart: ReportChart, png: bytes) -> dict[str, str]:
    return {
        "section": chart.section,
        "title": chart.chart.title,
        "note": chart.note,
        "png": _data_uri("image/png", png),
    }


def _made(network: ReportedNetwork) -> dict[str, str]:
    """Return how a network was made, and what it costs."""
    if network.cost is None:
        return dict(network.made)
    return {
        **network.made,
        "parameters": f"{network.cost.parameters:,}",
        "multiply-adds a pixel": f"{network.cost.multiply_adds_per_pixel:,}",
    }


def _layers_of(picture: Picture) -> dict[str, str]:
    """Return what can be looked at, as data URIs."""
    layers = {
        **picture.layers,
        "jpeg-error": error_map(picture.layers, "jpeg"),
        "restored-error": error_map(picture.layers, "restored"),
    }
    return {name: _data_uri("image/webp", layers[name]) for name in LAYER_TITLES}


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _json(value: object) -> Markup:
    """Return JSON that can stand inside a script element."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _policy(*allowed: str) -> str:
    """Return a Content-Security-Policy that allows these scripts, and no request to anywhere."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in allowed if s]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _template():  # noqa: ANN202 - jinja2.Template
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["signed"] = lambda value, digits: f"{value + 0.0:+.{digits}f}"
    return environment.from_string(_resource("page.html"))


@cache
def _resource(name: str) -> str:
    return resource_files("pipeline.reports").joinpath("page", name).read_text("utf-8")
