"""The charts of a report, by section, made of its data."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import isfinite
from types import MappingProxyType

from models import ARCHITECTURES
from pipeline.drawing.charts import Chart, Point, bar_chart, line_chart, scatter_chart
from pipeline.evaluation.cross_quality import transfer_chart
from pipeline.evaluation.published import comparable_rows
from pipeline.evaluation.rate_distortion import AXES, rate_distortion_chart
from pipeline.evaluation.rate_distortion import JPEG as JPEG_CURVE
from pipeline.evaluation.scores import EvaluationResult, MeanScore
from pipeline.reports.report_data import Cost, Report, ReportedNetwork, cost_of

MOST_BARS = 40
"""Images of one chart of gains; of more, those with the most and the least gain are shown."""
OURS, PAPERS = "measured here", "published"
COSTS: Mapping[str, Callable[[Cost], int]] = MappingProxyType(
    {
        "parameters": lambda cost: cost.parameters,
        "multiply-adds a pixel": lambda cost: cost.multiply_adds_per_pixel,
    }
)


@dataclass(frozen=True, kw_only=True)
class ReportChart:
    """A chart and its place in the report."""

    section: str
    """The key of its Section."""
    chart: Chart
    note: str = ""
    """What stands below it."""


def charts_of(report: Report) -> dict[str, ReportChart]:
    """Return every chart that there is data for, in the order of the page.

    By name, which is also that of the PNG: the section and a number.
    """
    return {
        f"{section.key}-{number}": chart
        for section in SECTIONS
        for number, chart in enumerate(section.charts(report), 1)
    }


def _gains(report: Report) -> Iterator[ReportChart]:
    """Yield a chart for each set and quality factor: the gain of each image, a bar a network."""
    for label, qf in _places(report):
        bars = {
            network.name: {image: gain for image, gain in gains.items() if isfinite(gain)}
            for network, gains in _gains_at(report, label, qf)
        }
        bars = {name: gains for name, gains in bars.items() if gains}
        if not bars:
            continue
        shown, note = _extremes(next(iter(bars.values())))
        chart = bar_chart(
            {
                name: [(image, gain) for image, gain in gains.items() if image in shown]
                for name, gains in bars.items()
            },
            title=f"Gain over JPEG of each image: {label}, QF {qf}",
            x_label="PSNR gain, dB",
            y_label="image",
        )
        yield ReportChart(section="gains", chart=chart, note=note)


def _curves(report: Report) -> Iterator[ReportChart]:
    loss = {network.name: network.loss for network in report.networks if network.loss}
    held_out = {n.name: n.validation_psnr for n in report.networks if n.validation_psnr}
    for curves, title, y_label in (
        (loss, "Training loss", "loss (as the recipe defines it)"),
        (held_out, "PSNR in validation", "PSNR of validation patches, dB"),
    ):
        if curves:
            chart = line_chart(curves, title=title, x_label="optimiser steps", y_label=y_label)
            yield ReportChart(section="curves", chart=chart)


def _costs(report: Report) -> Iterator[ReportChart]:
    """Yield PSNR against three costs, at the set and quality factor that most networks have.

    A lone mark compares nothing and is left out.
    """
    places = _places(report)
    if not places:
        return
    label, qf = max(places, key=lambda place: len(_means_at(report, *place)))  # the first of equals
    means = _means_at(report, label, qf)
    costs = {n.name: n.cost for n in report.networks if n.name in means and n.cost is not None}
    ours = {name: mean.metrics["psnr"] for name, mean in means.items()}
    printed = _printed(next(iter(means.values())))
    papers = {name: psnr for name, (_, psnr) in printed.items()}
    paper_costs = {name: cost for name, (cost, _) in printed.items()}
    drawn = {
        title: [
            *_marks({name: cost_in(cost) for name, cost in costs.items()}, ours, OURS),
            *_marks({name: cost_in(cost) for name, cost in paper_costs.items()}, papers, PAPERS),
        ]
        for title, cost_in in COSTS.items()
    }
    speeds = {name: mean.seconds_per_mpx for name, mean in means.items()}
    drawn["measured seconds per megapixel"] = _marks(speeds, ours, OURS)
    for cost, points in drawn.items():
        if len(points) > 1 and any(point.group == OURS for point in points):
            chart = scatter_chart(
                points,
                title=f"PSNR against {cost}: {label}, QF {qf}",
                x_label=f"{cost} (logarithmic)",
                y_label="PSNR, dB",
                log_x=True,
            )
            yield ReportChart(section="cost", chart=chart)


def _marks(costs: Mapping[str, float], psnr: Mapping[str, float], group: str) -> list[Point]:
    """Return a mark for each network whose cost and PSNR can be drawn."""
    return [
        Point(label=name, x=cost, y=psnr[name], group=group)
        for name, cost in costs.items()
        if cost > 0 and isfinite(psnr[name])
    ]


def _transfers(report: Report) -> Iterator[ReportChart]:
    for architecture, transfer in report.transfers.items():
        if all(isfinite(gain) for gain in transfer.gains().values()):
            chart = transfer_chart(transfer, f"{architecture} networks")
            note = f"{_images(transfer.jpeg, report.analysed)}. As CAS-CNN's Fig. 4."
            yield ReportChart(section="transfer", chart=chart, note=note)


def _rate_distortion(report: Report) -> Iterator[ReportChart]:
    found = report.rate_distortion
    if found is None:
        return
    jpeg = found.results[JPEG_CURVE]
    first, *_, last = (row.qf for row in jpeg.rows)
    note = f"{_images(jpeg, report.analysed)}, QF {first} to {last}. As CAS-CNN's Fig. 3."
    for metric in AXES:
        chart = rate_distortion_chart(found, metric)
        yield ReportChart(section="rate-distortion", chart=chart, note=note)


def _images(result: EvaluationResult, done: str) -> str:
    count = len({score.image for score in result.per_image})
    images = f"Mean over {count} {'image' if count == 1 else 'images'} of {result.label}"
    return f"{images}, {done}" if done else images


def _places(report: Report) -> list[tuple[str, int]]:
    """Return every (set, quality factor) that a network was scored at."""
    return list(
        dict.fromkeys(
            (mean.label, mean.qf)
            for network in report.networks
            for comparison in network.scores
            for mean in comparison.restored.rows
        )
    )


def _means_at(report: Report, label: str, qf: int) -> dict[str, MeanScore]:
    return {
        network.name: mean
        for network in report.networks
        for comparison in network.scores
        for mean in comparison.restored.rows
        if (mean.label, mean.qf) == (label, qf)
    }


def _gains_at(
    report: Report, label: str, qf: int
) -> Iterator[tuple[ReportedNetwork, dict[str, float]]]:
    for network in report.networks:
        for comparison in network.scores:
            if comparison.restored.label == label and (gains := comparison.gains_in_psnr(qf)):
                yield network, gains


def _extremes(gains: Mapping[str, float]) -> tuple[set[str], str]:
    """Return the images to show, and a note if they are not all."""
    names = sorted(gains, key=lambda name: -gains[name])
    if len(names) <= MOST_BARS:
        return set(names), ""
    half = MOST_BARS // 2
    note = f"Of {len(names)} images, the {half} with the most and the {half} with the least gain."
    return {*names[:half], *names[-half:]}, note


def _printed(mean: MeanScore) -> dict[str, tuple[Cost, float]]:
    """Return cost and published PSNR of the networks that are in `models`, by the row's label.

    The cost is that of the network as its paper has it.
    """
    return {
        row.label: (_paper_cost(row.architecture), row.psnr)
        for row in comparable_rows(mean)
        if row.architecture in ARCHITECTURES and row.psnr is not None
    }


@cache
def _paper_cost(architecture: str) -> Cost:
    return cost_of(architecture)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page that shows charts, with an entry in its contents."""

    key: str
    """What links and the charts' files are called."""
    heading: str
    text: str
    """What stands above the charts."""
    charts: Callable[[Report], Iterator[ReportChart]]


SECTIONS = (
    Section(
        key="gains",
        heading="Gain of each image",
        text="What restoration adds to the PSNR of each image.",
        charts=_gains,
    ),
    Section(
        key="cost",
        heading="Quality and cost",
        text="The best networks are at the top left. Where there are published marks, they are the "
        "PSNR that papers print; their cost is counted on the network as it is in this project.",
        charts=_costs,
    ),
    Section(
        key="rate-distortion",
        heading="Rate and distortion",
        text="Quality against the bits that the JPEG takes, over quality factors.",
        charts=_rate_distortion,
    ),
    Section(
        key="transfer",
        heading="Other quality factors",
        text="What a network that was trained for one quality factor does to inputs of another: "
        "PSNR gain over the JPEG.",
        charts=_transfers,
    ),
    Section(
        key="curves",
        heading="Training",
        text="A loss is the mean over the steps since the point before.",
        charts=_curves,
    ),
)
"""In the order of the page; one without charts is left out."""
