"""The papers' own results, and how far an evaluation of the same network lies from them."""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files as resource_files
from types import MappingProxyType
from typing import Any, Literal

from pipeline.datasets import references
from pipeline.evaluation.scores import MeanScore
from pipeline.images.degrade import STANDARD

JPEG = "jpeg"
"""The architecture of the rows of JPEG itself."""
SsimFamily = Literal["uniform", "gaussian"]
SSIM_METRICS: Mapping[SsimFamily, str] = MappingProxyType(
    {"uniform": "ssim", "gaussian": "ssim_gaussian"}
)
"""The metric of ours that an SSIM of each family may be held against; never the other one."""
PRINTED = ("psnr", "ssim", "psnr_b")


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


def comparable_rows(ours: MeanScore) -> list[PublishedRow]:
    """Return what papers print of any network on the same images at the same quality factor.

    Nothing stands beside results of a degradation that is not the standard one.
    """
    place = (_same_for_same_images(ours.dataset), ours.qf)
    rows = all_rows() if ours.degradation == STANDARD else ()
    return [row for row in rows if (row.dataset, row.qf) == place]


def differences(ours: MeanScore, published: PublishedRow) -> dict[str, float]:
    """Return our value less that of a comparable row: PSNR, PSNR-B, the row's own SSIM.

    What the paper does not print is left out.
    """
    return {name: ours.metrics[name] - value for name, value in published.metrics.items()}


def beside(
    architecture: str | None, ours: MeanScore
) -> list[tuple[PublishedRow, dict[str, float]]]:
    """Return the comparable rows of a result's own network, each with the `differences`.

    `architecture` is a name in `models.ARCHITECTURES` or `jpeg`; None has no rows.
    """
    rows = [row for row in comparable_rows(ours) if row.architecture == architecture]
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


def _row_of(fields: Mapping[str, Any]) -> PublishedRow:
    printed = {name: float(fields[name]) if fields[name] else None for name in PRINTED}
    return PublishedRow(**{**fields, **printed, "qf": int(fields["qf"])})


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
