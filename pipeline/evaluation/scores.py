"""What an evaluation found: values an image, means a quality factor, as JSON, CSV and text."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from pipeline.images.degrade import STANDARD, Protocol
from pipeline.images.metrics import METRICS
from pipeline.networks.devices import Precision

MEAN = "(mean)"
"""What stands in the `image` column of a mean."""


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """How one image came out at one quality factor."""

    image: str
    qf: int
    pixels: int
    """Height times width."""
    metrics: Mapping[str, float]
    """A value for each name in METRICS."""
    bpp: float
    """Bits that the JPEG takes, a pixel."""
    seconds: float
    """Wall time of the restorer alone; 0 for JPEG itself."""


@dataclass(frozen=True, kw_only=True)
class MeanScore:
    """The mean over a dataset's images at one quality factor."""

    dataset: str
    qf: int
    degradation: Protocol = STANDARD
    images: int
    """How many images the mean is over."""
    metrics: Mapping[str, float]
    """A mean for each name in METRICS."""
    bpp: float
    """Mean over the images of the bits a pixel."""
    seconds_per_mpx: float
    """Wall time of the restorer alone over all images, a million pixels; 0 for JPEG itself."""
    precision: Precision = "float32"
    """What the network computed in."""

    def as_json_row(self) -> dict[str, str | int | float]:
        """Return `dataset, qf, images`, the metrics by name, `bpp` and `seconds_per_mpx`.

        A degradation that is not the standard one comes last, as `degradation`, and a precision
        that is not float32 as `precision`.
        """
        row = {
            "dataset": self.dataset,
            "qf": self.qf,
            "images": self.images,
            **self.metrics,
            "bpp": self.bpp,
            "seconds_per_mpx": self.seconds_per_mpx,
        }
        if self.degradation != STANDARD:
            row["degradation"] = self.degradation
        if self.precision != "float32":
            row["precision"] = self.precision
        return row

    @property
    def label(self) -> str:
        """What was evaluated: the dataset, with its degradation unless it is the standard one."""
        return label_of(self.dataset, self.degradation)

    @property
    def told_images(self) -> str:
        """How many images, in words: `29 images`."""
        return "1 image" if self.images == 1 else f"{self.images} images"


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What one evaluation found, image by image; the means follow from that."""

    dataset: str
    degradation: Protocol = STANDARD
    """How the inputs were made; results of different ones are never compared."""
    per_image: tuple[ImageScore, ...]
    precision: Precision = "float32"
    """What the network computed in."""

    @property
    def label(self) -> str:
        """What was evaluated: the dataset, with its degradation unless it is the standard one."""
        return label_of(self.dataset, self.degradation)

    @property
    def own(self) -> "EvaluationResult":
        """This, as of a `Comparison` it is the network's."""
        return self

    @property
    def rows(self) -> tuple[MeanScore, ...]:
        """The mean over the images at each quality factor, in the order they were asked for."""
        qfs = dict.fromkeys(score.qf for score in self.per_image)
        return tuple(self.row(qf) for qf in qfs)

    def row(self, qf: int) -> MeanScore:
        """Return the mean at one quality factor. Raises ValueError if it was not evaluated."""
        scores = [score for score in self.per_image if score.qf == qf]
        if not scores:
            known = sorted({score.qf for score in self.per_image})
            raise ValueError(f"QF {qf} was not evaluated on {self.label}: choose one of {known}")
        return MeanScore(
            dataset=self.dataset,
            degradation=self.degradation,
            qf=qf,
            images=len(scores),
            metrics={name: fmean(score.metrics[name] for score in scores) for name in METRICS},
            bpp=fmean(score.bpp for score in scores),
            seconds_per_mpx=_seconds_per_mpx(scores),
            precision=self.precision,
        )

    def mean_over(self, qfs: Sequence[int]) -> dict[str, float]:
        """Return the mean of every metric over several quality factors, each of equal weight.

        Raises ValueError if one was not evaluated, or for none.
        """
        if not qfs:
            raise ValueError(f"{self.label}: give one or more QFs to take the mean over")
        rows = [self.row(qf) for qf in qfs]
        return {name: fmean(row.metrics[name] for row in rows) for name in METRICS}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A network beside the JPEG that it was given; `str()` is a table for people."""

    jpeg: EvaluationResult
    restored: EvaluationResult
    """Of the same dataset and degradation."""

    @property
    def own(self) -> EvaluationResult:
        """The network's result."""
        return self.restored

    def gain(self, qf: int, metric: str = "psnr") -> float:
        """Return the mean of a metric after restoration minus that of the JPEG."""
        if metric not in METRICS:
            raise ValueError(f"metric {metric!r}: choose one of {list(METRICS)}")
        return self.restored.row(qf).metrics[metric] - self.jpeg.row(qf).metrics[metric]

    def gains_in_psnr(self, qf: int) -> dict[str, float]:
        """Return what restoration adds to each image at one quality factor, dB by its name."""
        pairs = zip(self.jpeg.per_image, self.restored.per_image, strict=True)
        return {
            after.image: after.metrics["psnr"] - before.metrics["psnr"]
            for before, after in pairs
            if after.qf == qf
        }

    def __str__(self) -> str:
        names = [*METRICS, "bits/px", "s/Mpx"]
        precision = self.restored.precision
        in_other = "" if precision == "float32" else f", restored in {precision}"
        lines = [f"{'':10}" + "".join(f"{name:>{_width(name)}}" for name in names)]
        for row in self.restored.rows:
            before = self.jpeg.row(row.qf)
            gains = {name: self.gain(row.qf, name) for name in METRICS}
            lines += [
                f"{row.label} QF{row.qf}, {row.told_images}{in_other}",
                _line("JPEG", before.metrics) + f"{before.bpp:9.3f}",
                _line("restored", row.metrics) + f"{row.bpp:9.3f}{row.seconds_per_mpx:9.3f}",
                _line("gain", gains, sign="+"),
            ]
        return "\n".join(lines)


def to_json(comparison: Comparison) -> bytes:
    """Return a comparison as JSON that `from_json` reads again, to the last bit."""
    return json.dumps(asdict(comparison), indent=1).encode()


def from_json(content: bytes) -> Comparison:
    """Return what `to_json` wrote. Raises ValueError for anything else."""
    try:
        told = json.loads(content)
        return Comparison(jpeg=_result(told["jpeg"]), restored=_result(told["restored"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no comparison: {error!r}") from error


def _result(told: dict[str, Any]) -> EvaluationResult:
    images = tuple(ImageScore(**image) for image in told["per_image"])
    return EvaluationResult(**{**told, "per_image": images})


def label_of(dataset: str, degradation: Protocol) -> str:
    """Return a dataset reference, followed by the degradation unless it is the standard one."""
    return dataset if degradation == STANDARD else f"{dataset} {degradation}"


def median_image(gains: Mapping[str, float]) -> str:
    """Return the image whose gain is the median, the upper one of an even number."""
    return sorted(gains, key=lambda name: (gains[name], name))[len(gains) // 2]


def scores_csv(
    results: Sequence[EvaluationResult],
    *,
    beside: Callable[[MeanScore], Sequence[tuple[str, Mapping[str, float]]]] = lambda row: (),
) -> bytes:
    """Return a CSV file: every image of a quality factor, then the mean.

    Columns: `dataset, qf, image, pixels`, the metrics, `bpp, seconds_per_mpx`. `dataset` names the
    degradation and the precision too where they are not the standard one and float32: `live1
    rescaled bfloat16`. `beside` gives rows that follow a mean: what stands in the `image` column,
    and metrics.
    """
    rows: list[dict[str, object]] = []
    for result in results:
        told = [] if result.precision == "float32" else [result.precision]
        place = " ".join([result.label, *told])
        for mean in result.rows:
            scores = [score for score in result.per_image if score.qf == mean.qf]
            lines = [
                (score.image, score.pixels, score.metrics, score.bpp, _seconds_per_mpx([score]))
                for score in scores
            ]
            pixels = sum(score.pixels for score in scores)
            lines.append((MEAN, pixels, mean.metrics, mean.bpp, mean.seconds_per_mpx))
            lines += [(name, "", metrics, "", "") for name, metrics in beside(mean)]
            rows += [
                {
                    **{"dataset": place, "qf": mean.qf, "image": image, "pixels": pixels},
                    **{name: metrics.get(name, "") for name in METRICS},
                    **{"bpp": bpp, "seconds_per_mpx": seconds},
                }
                for image, pixels, metrics, bpp, seconds in lines
            ]
    return csv_of(rows)


def csv_of(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Return rows of one shape, one or more, as a CSV file with a heading."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _seconds_per_mpx(scores: Sequence[ImageScore]) -> float:
    return sum(score.seconds for score in scores) / sum(score.pixels for score in scores) * 1e6


def _width(name: str) -> int:
    return max(7, len(name)) + 2


def _line(label: str, values: Mapping[str, float], sign: str = "") -> str:
    cells = [
        f"{value:{sign}.{METRICS[name].digits}f}".rjust(_width(name))
        for name, value in values.items()
    ]
    return f"{label:10}" + "".join(cells)
