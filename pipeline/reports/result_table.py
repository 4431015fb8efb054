"""The table of a report: JPEG, the networks, and what papers print, the SSIM families apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.evaluation.published import JPEG, PublishedRow, comparable_rows, differences
from pipeline.evaluation.scores import MeanScore
from pipeline.reports.report_data import Report, ReportedNetwork

Kind = Literal["jpeg", "network", "published", "other"]
"""`published` rows are of the networks that the report is about, `other` ones are not."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """The means of one network on one set at one quality factor."""

    kind: Kind
    dataset: str
    """With its degradation, unless that is the standard one."""
    qf: int
    network: str
    source: str
    """`measured`, with the number of images, or the paper and its table."""
    metrics: Mapping[str, float]
    """By the names of METRICS; a published SSIM has the name of its own family."""
    gain: float | None = None
    """PSNR less that of JPEG, dB."""
    beyond: Mapping[str, float] = field(default_factory=dict)
    """Of a `published` row: our network's metrics less those printed, its own SSIM family only."""
    bpp: float | None = None
    """Bits that the JPEG takes, a pixel."""
    seconds_per_mpx: float | None = None
    note: str = ""


def table_rows(report: Report) -> list[TableRow]:
    """Return the rows of a report: by set and quality factor, JPEG first, the papers' last."""
    measured = [*_measured(report)]
    rows = []
    for place in dict.fromkeys((mean.label, mean.qf) for _, mean in measured):
        here = [(whose, mean) for whose, mean in measured if (mean.label, mean.qf) == place]
        before = next(mean for whose, mean in here if whose is None)
        networks = [(whose, mean) for whose, mean in here if whose is not None]
        rows.append(_measured_row(None, before, before))
        rows += [_measured_row(network, mean, before) for network, mean in networks]
        rows += _published_rows(before, networks)
    return rows


def _measured(report: Report) -> Iterator[tuple[ReportedNetwork | None, MeanScore]]:
    """Yield every mean and whose it is; None stands for JPEG itself."""
    for result in report.jpeg:
        yield from ((None, mean) for mean in result.rows)
    for network in report.networks:
        for comparison in network.scores:
            yield from ((None, mean) for mean in comparison.jpeg.rows)
            yield from ((network, mean) for mean in comparison.restored.rows)


def _measured_row(network: ReportedNetwork | None, mean: MeanScore, before: MeanScore) -> TableRow:
    """Return the row of a network, or of JPEG itself, which is `before`."""
    row = TableRow(
        kind="jpeg",
        dataset=mean.label,
        qf=mean.qf,
        network="JPEG",
        source=f"measured, {mean.told_images}",
        metrics=mean.metrics,
        bpp=mean.bpp,
    )
    if network is None:
        return row
    gain, speed = mean.metrics["psnr"] - before.metrics["psnr"], mean.seconds_per_mpx
    return replace(row, kind="network", network=network.name, gain=gain, seconds_per_mpx=speed)


def _published_rows(
    before: MeanScore, networks: list[tuple[ReportedNetwork, MeanScore]]
) -> list[TableRow]:
    """Return what papers print for the same images and quality factor.

    The differences are those to the report's network of the same architecture with the most PSNR.
    """
    best: dict[str, MeanScore] = {JPEG: before}
    for network, mean in sorted(networks, key=lambda pair: pair[1].metrics["psnr"]):
        if network.architecture is not None:
            best[network.architecture] = mean
    rows = [(row, best.get(row.architecture)) for row in comparable_rows(before)]
    rows.sort(key=lambda pair: pair[1] is None)
    return [_published_row(row, before, ours) for row, ours in rows]


def _published_row(row: PublishedRow, place: MeanScore, ours: MeanScore | None) -> TableRow:
    return TableRow(
        kind="other" if ours is None else "published",
        dataset=place.label,
        qf=place.qf,
        network=row.network,
        source=row.paper if row.table == "not stated" else f"{row.paper}, {row.table}",
        metrics=row.metrics,
        beyond={} if ours is None else differences(ours, row),
        note=row.note,
    )
