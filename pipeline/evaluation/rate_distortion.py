"""Quality against bits: JPEG and networks at many quality factors, and the bits that they save.

The curves are CAS-CNN's Fig. 3 (Cavigelli et al. 2016): mean PSNR, or uniform SSIM, over mean bits
a pixel. A restored image takes the bits of the JPEG that it was made from.

Bjontegaard's differences compare two curves by one number each. Sources: G. Bjontegaard,
"Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33 (2001); the piecewise
cubic interpolation (monotone, Fritsch and Carlson) in place of one polynomial is that of G.
Bjontegaard, "Improvements of the BD-PSNR model", VCEG-AI11 (2008), and of JCT-VC's evaluations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from pipeline.drawing.charts import Chart, line_chart
from pipeline.evaluation.protocol import NamedImage, evaluate_each
from pipeline.evaluation.scores import EvaluationResult
from pipeline.images.metrics import METRICS
from pipeline.networks.restorer import Restorer

AXES = ("psnr", "ssim", "ssim_gaussian")
"""The metrics of the paper's figure, SSIM in both kinds."""
JPEG = "JPEG"
"""Name of the curve that the others are compared with."""
QFS = tuple(range(10, 91, 10))
"""Quality factors of the curves, as in the paper."""

Curve = Sequence[tuple[float, float]]
"""(bits a pixel, quality) of each quality factor; the bits above 0."""


@dataclass(frozen=True, kw_only=True)
class RateDistortion:
    """JPEG and networks on the same images at several quality factors."""

    results: Mapping[str, EvaluationResult]
    """Name to what it reached; the first is JPEG itself, `JPEG`."""

    @property
    def dataset(self) -> str:
        """What the curves were measured on."""
        return self.results[JPEG].dataset

    def curve(self, name: str, metric: str = "psnr") -> list[tuple[float, float]]:
        """Return (mean bits a pixel, mean of the metric), the bits ascending.

        Raises ValueError that lists what there is for another name or metric.
        """
        if name not in self.results or metric not in METRICS:
            raise ValueError(
                f"{metric!r} of {name!r}: choose a metric of {list(METRICS)} "
                f"and a curve of {list(self.results)}"
            )
        return sorted((row.bpp, row.metrics[metric]) for row in self.results[name].rows)

    def curves(self, metric: str = "psnr") -> dict[str, list[tuple[float, float]]]:
        """Return every curve by name, that of JPEG first."""
        return {name: self.curve(name, metric) for name in self.results}

    def bits_saved(self, name: str, qf: int) -> float | None:
        """Return the share of bits that a network saves at `qf` over a JPEG of equal PSNR.

        1 - its bits / those of that JPEG, interpolated on JPEG's curve: 0.2 is a fifth saved.
        None where the PSNR lies outside what JPEG reached, or JPEG's curve does not rise.
        """
        self.curve(name)  # says what there is
        row = self.results[name].row(qf)
        rates, values = _columns(self.curve(JPEG), JPEG)
        psnr = row.metrics["psnr"]
        if not _rises(values) or not values[0] <= psnr <= values[-1]:
            return None
        equal = 10 ** float(PchipInterpolator(values, np.log10(rates))(psnr))
        return 1 - row.bpp / equal

    def bd_rate(self, name: str) -> float:
        """Return `bd_rate` of a network's PSNR against that of JPEG."""
        return bd_rate(self.curve(JPEG), self.curve(name))

    def bd_psnr(self, name: str) -> float:
        """Return `bd_quality` of a network's PSNR against that of JPEG."""
        return bd_quality(self.curve(JPEG), self.curve(name))


def rate_distortion(
    restorers: Mapping[str, Restorer],
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int] = QFS,
) -> RateDistortion:
    """Score JPEG and every network at every quality factor, by the papers' protocol.

    Args:
        restorers: networks by name; none measures JPEG alone.
        images: name and luma, read once; each JPEG is made and decoded once for all networks.
        dataset: the name that stands in the results.
        qfs: quality factors, 1 to 100.

    Raises ValueError for a network that is called `JPEG`, and as `evaluate` does.
    """
    if JPEG in restorers:
        raise ValueError(f"a network is called {JPEG!r}, the name of JPEG's own curve: rename it")
    found = evaluate_each([None, *restorers.values()], images, dataset, qfs)
    return RateDistortion(results=dict(zip((JPEG, *restorers), found, strict=True)))


def bd_rate(reference: Curve, other: Curve) -> float:
    """Return the mean difference of rate at equal quality, in percent; below 0 `other` saves bits.

    The logarithm of the rate is interpolated as a function of the quality, and the difference is
    averaged over the range of quality that both curves have.

    Args:
        reference: (rate, quality) of two or more points, in any order; four or more are usual.
        other: the curve that is compared with it.

    Raises ValueError for fewer than two points, a rate of 0 or less, values that are not finite,
    a quality that does not rise with the rate, or ranges of quality that do not overlap.
    """
    curves: list[np.ndarray] = []
    for name, curve in (("reference", reference), ("other", other)):
        rates, qualities = _columns(curve, name)
        if not _rises(qualities):
            raise ValueError(
                f"the {name} curve's quality does not rise with its rate ({list(curve)}): "
                "bits at equal quality are not defined, take BD-PSNR or fewer points"
            )
        curves += [qualities, np.log10(rates)]
    x, y, other_x, other_y = curves
    return 100 * (10 ** _mean_difference(x, y, other_x, other_y, "quality") - 1)


def bd_quality(reference: Curve, other: Curve) -> float:
    """Return the mean difference of quality at equal rate (BD-PSNR in dB); above 0 is better.

    The quality is interpolated as a function of the rate's logarithm, and the difference is
    averaged over the range of rate that both curves have. Arguments and errors are those of
    `bd_rate`, but that the quality need not rise.
    """
    (rates, qualities), (others, other_qualities) = (
        _columns(curve, name) for name, curve in (("reference", reference), ("other", other))
    )
    return _mean_difference(
        np.log10(rates), qualities, np.log10(others), other_qualities, "logarithm of the rate"
    )


def rate_distortion_chart(found: RateDistortion, metric: str = "psnr") -> Chart:
    """Return the curves of a metric, a name in METRICS, over the bits a pixel."""
    return line_chart(
        found.curves(metric),
        title=f"{METRICS[metric].title}, against bits a pixel: {found.dataset}",
        x_label="bits a pixel of the JPEG",
        y_label=METRICS[metric].title,
    )


def _columns(curve: Curve, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rates, ascending, and qualities. Raises ValueError for what is no curve."""
    rates, qualities = np.array(sorted(curve), np.float64).reshape(-1, 2).T
    if len(rates) < 2:
        raise ValueError(f"the {name} curve has {len(rates)} points: give two or more")
    if not np.isfinite([rates, qualities]).all() or rates[0] <= 0 or not _rises(rates):
        raise ValueError(
            f"the {name} curve {list(curve)}: give finite numbers, rates above 0 that differ"
        )
    return rates, qualities


def _rises(values: np.ndarray) -> bool:
    return bool((np.diff(values) > 0).all())


def _mean_difference(
    x: np.ndarray, y: np.ndarray, other_x: np.ndarray, other_y: np.ndarray, what: str
) -> float:
    """Return the mean over the common range of x of the other curve less the first one."""
    low, high = max(x[0], other_x[0]), min(x[-1], other_x[-1])
    if not low < high:
        raise ValueError(
            f"the curves have no range of {what} in common: {x[0]:.4g} to {x[-1]:.4g} and "
            f"{other_x[0]:.4g} to {other_x[-1]:.4g}, give more quality factors"
        )
    first, second = PchipInterpolator(x, y), PchipInterpolator(other_x, other_y)
    difference = float(second.integrate(low, high) - first.integrate(low, high))
    assert math.isfinite(difference)
    return difference / (high - low)
