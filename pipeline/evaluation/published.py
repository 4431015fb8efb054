"""The papers' own results, and how far an evaluation of the same network lies from them."""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files as resource_files
from types import MappingProxyType
from typing import Literal, get_args

from pipeline.datasets import references
from pipeline.evaluation.scores import MeanScore
from pipeline.images.degrade import STANDARD
from pipeline.images.metrics import METRICS

JPEG = "jpeg"
"""The architecture of the rows of JPEG itself."""
SsimFamily = Literal["uniform", "gaussian"]
SSIM_METRICS: Mapping[SsimFamily, str] = MappingProxyType(
    {"uniform": "ssim", "gaussian": "ssim_gaussian"}
)
"""The metric of ours that an SSIM of each family may be held against; never the other one."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """What a paper prints of one network on one dataset at one quality factor."""

    network: str
    """As the paper calls it."""
    architecture: str
    """The name in models.ARCHITECTURES, or `jpeg`; empty for networks that are not there."""
    dataset: str
    """A dataset reference."""
    qf: int
    psnr: float | None
    """dB; None where another row has it."""
    ssim: float | None
    """None where the paper prints none."""
    psnr_b: float | None
    """dB; None where the paper prints none."""
    ssim_family: SsimFamily
    """Which SSIM `ssim` is; papers mix the two."""
    paper: str
    table: str
    note: str

    @property
    def label(self) -> str:
        """Network and paper, as `AR-CNN (DnCNN)`; the network alone in its own paper."""
        own = self.network.startswith(self.paper)
        return self.network if own else f"{self.network} ({self.paper})"

    @property
    def metrics(self) -> dict[str, float]:
        """The printed values by the names of the metrics that they may be held against."""
        values = {"psnr": self.psnr, self.ssim_metric: self.ssim, "psnr_b": self.psnr_b}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def ssim_metric(self) -> str:
        """The name in METRICS of this row's SSIM."""
        return SSIM_METRICS[self.ssim_family]


@cache
def all_rows() -> tuple[PublishedRow, ...]:
    """Return every row of published.csv, in its order."""
    text = resource_files("pipeline.evaluation").joinpath("published.csv").read_text("utf-8")
    return tuple(_row_of(fields) for fields in csv.DictReader(text.splitlines()))


def published_rows(architecture: str, dataset: str, qf: int) -> tuple[PublishedRow, ...]:
    """Return what the papers print of a network, of `models.ARCHITECTURES` or `jpeg`.

    `dataset` is any reference to the images, such as `bsds500:test`. Empty where they print
    nothing.
    """
    wanted = (architecture, _same_for_same_images(dataset), qf)
    return tuple(
        row
        for row in all_rows()
        if architecture and (row.architecture, row.dataset, row.qf) == wanted
    )


def differences(ours: MeanScore, published: PublishedRow) -> dict[str, float]:
    """Return our value less the published one, by metric: PSNR, PSNR-B, the row's own SSIM.

    What the paper does not print is left out. Raises ValueError for another dataset, quality
    factor or degradation: such results are not comparable.
    """
    if (_same_for_same_images(ours.dataset), ours.qf) != (published.dataset, published.qf):
        raise ValueError(
            f"{ours.dataset} QF{ours.qf} is not {published.dataset} QF{published.qf} of "
            f"{published.label}: compare results on the same images"
        )
    if ours.degradation != STANDARD:
        raise ValueError(
            f"{ours.label} has the degradation {ours.degradation!r}, published results the "
            f"standard one: evaluate with the degradation {STANDARD!r}"
        )
    return {name: ours.metrics[name] - value for name, value in published.metrics.items()}


def beside(
    architecture: str | None, ours: MeanScore
) -> list[tuple[PublishedRow, dict[str, float]]]:
    """Return the published rows that belong beside a result, each with the `differences`.

    None for an architecture, and a degradation that is not the standard one, have none.
    """
    if architecture is None or ours.degradation != STANDARD:
        return []
    rows = published_rows(architecture, ours.dataset, ours.qf)
    return [(row, differences(ours, row)) for row in rows]


def printed_rows(
    architecture: str | None, ours: MeanScore
) -> list[tuple[str, Mapping[str, float]]]:
    """Return `(published: NETWORK)` and the printed metrics of the rows beside a result."""
    rows = beside(architecture, ours)
    return [(f"(published: {row.label})", row.metrics) for row, _ in rows]


def json_rows(architecture: str | None, ours: MeanScore) -> list[dict[str, object]]:
    """Return `beside` for JSON: a published row's fields and, as `difference`, ours less it."""
    return [
        {**asdict(row), "difference": difference} for row, difference in beside(architecture, ours)
    ]


def table_rows(
    architecture: str | None, ours: MeanScore
) -> list[tuple[str, dict[str, float | str]]]:
    """Return `beside` for people: (label, values by metric), a row and the differences in turn.

    A metric that is not comparable is an empty text.
    """
    rows = []
    for published, difference in beside(architecture, ours):
        for label, values in ((published.label, published.metrics), ("difference", difference)):
            rows.append((label, {name: values.get(name, "") for name in METRICS}))
    return rows


def _row_of(fields: Mapping[str, str]) -> PublishedRow:
    family = fields["ssim_family"]
    assert family in get_args(SsimFamily)
    return PublishedRow(
        network=fields["network"],
        architecture=fields["architecture"],
        dataset=fields["dataset"],
        qf=int(fields["qf"]),
        psnr=_number(fields["psnr"]),
        ssim=_number(fields["ssim"]),
        psnr_b=_number(fields["psnr_b"]),
        ssim_family="uniform" if family == "uniform" else "gaussian",
        paper=fields["paper"],
        table=fields["table"],
        note=fields["note"],
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _same_for_same_images(reference: str) -> str:
    """Return a dataset reference in the one form that published.csv uses."""
    try:
        parsed = references.parse(reference)
    except ValueError:
        return reference
    if parsed.dataset is None:
        return reference
    splits = sorted(parsed.splits or parsed.dataset.evaluate)
    return (
        f"{parsed.dataset.name}:{'+'.join(splits)}"
        if len(parsed.dataset.splits) > 1
        else parsed.dataset.name
    )
