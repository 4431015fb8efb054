"""How close a restored image is to its original: PSNR, two kinds of SSIM, and PSNR-B.

Every metric takes two (H, W) uint8 luma images of one shape, sides of at least 8 pixels, and
returns a float; higher is better. All raise ValueError for anything else.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

PEAK = 255
MIN_SIDE = 8
"""The smallest height and width in pixels: one JPEG block, one window of `ssim`."""
MAX_DB = 100.0
"""What identical images score, and no image scores more: a mean over images stays finite."""
BLOCK = 8
"""Side of a JPEG block in pixels."""
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2
STRIP_ROWS = 16
"""Rows of the SSIM map computed at a time, so that the planes stay in the processor's cache."""


def psnr(original: np.ndarray, restored: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB: 10 log10(255^2 / MSE), at most MAX_DB."""
    _check(original, restored)
    return _decibels(_mean_squared_error(original, restored))


def ssim(original: np.ndarray, restored: np.ndarray) -> float:
    """Return the mean structural similarity over uniform 8x8 windows, -1 to 1.

    SSIM = (2 mx my + C1)(2 cov + C2) / ((mx^2 + my^2 + C1)(vx + vy + C2)), C1 = (.01 255)^2,
    C2 = (.03 255)^2, biased (co)variances, windows that lie wholly inside the image. It is the
    variant in the tables of AR-CNN, CAS-CNN and DMCNN. Source: Wang, Bovik, Sheikh, Simoncelli,
    "Image quality assessment", IEEE TIP 2004, equation 13.
    """
    _check(original, restored)
    return _mean_over_strips(original, restored, BLOCK, _uniform_ssim_map)


def ssim_gaussian(original: np.ndarray, restored: np.ndarray) -> float:
    """Return the mean structural similarity over 11x11 Gaussian windows (sigma 1.5), -1 to 1.

    The formula of `ssim`, weighted as in the authors' `ssim_index.m` (without its
    downsampling), windows wholly inside the image. An image with a side below 11 pixels is first
    mirrored (its border pixels repeated) on the right and at the bottom up to 11.
    """
    _check(original, restored)
    missing = [(0, max(0, len(GAUSSIAN) - side)) for side in original.shape]
    if any(after for _, after in missing):
        original, restored = (
            np.pad(image, missing, mode="symmetric") for image in (original, restored)
        )
    return _mean_over_strips(original, restored, len(GAUSSIAN), _gaussian_ssim_map)


def psnr_b(original: np.ndarray, restored: np.ndarray) -> float:
    """Return PSNR-B in dB: 10 log10(255^2 / (MSE + BEF)), at most MAX_DB.

    BEF is the blocking effect of `restored` alone (`blocking_effect`). Source: Yim & Bovik,
    "Quality assessment of deblocked images", IEEE TIP 2011.
    """
    _check(original, restored)
    return _decibels(_mean_squared_error(original, restored) + blocking_effect(restored))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric, and how its values are shown."""

    measure: Callable[[np.ndarray, np.ndarray], float]
    """Takes original and restored, both (H, W) uint8."""
    title: str
    """Heading of its column, with the unit."""
    digits: int
    """Behind the decimal point."""


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "psnr": Metric(measure=psnr, title="PSNR, dB", digits=2),
        "ssim": Metric(measure=ssim, title="SSIM, uniform 8x8", digits=4),
        "ssim_gaussian": Metric(measure=ssim_gaussian, title="SSIM, Gaussian 11x11", digits=4),
        "psnr_b": Metric(measure=psnr_b, title="PSNR-B, dB", digits=2),
    }
)


def blocking_effect(image: np.ndarray) -> float:
    """Return the blocking effect factor (squared grey levels, 0 or more) of an (H, W) image.

    D_b and D_bc are the mean squared steps between neighbours across and inside the 8x8 grid;
    BEF = log2(8) / log2(min(H, W)) (D_b - D_bc) if D_b > D_bc, else 0. The number of steps
    across the grid is H(W/8 - 1) + W(H/8 - 1), a fraction where a side is no multiple of 8,
    as the paper writes it. An 8x8 image has no grid inside and scores 0.
    """
    height, width = image.shape
    steps_across = _squared_steps(image, axis=1)
    steps_down = _squared_steps(image, axis=0)
    on_grid = int(steps_across[BLOCK - 1 :: BLOCK].sum() + steps_down[BLOCK - 1 :: BLOCK].sum())
    everywhere = int(steps_across.sum() + steps_down.sum())
    count_on_grid = height * (width / BLOCK - 1) + width * (height / BLOCK - 1)
    if count_on_grid == 0:
        return 0.0
    count_inside = height * (width - 1) + width * (height - 1) - count_on_grid
    excess = on_grid / count_on_grid - (everywhere - on_grid) / count_inside
    return max(0.0, excess) * math.log2(BLOCK) / math.log2(min(height, width))


def _check(original: np.ndarray, restored: np.ndarray) -> None:
    for name, image in (("original", original), ("restored", restored)):
        if image.dtype != np.uint8 or image.ndim != 2 or min(image.shape) < MIN_SIDE:
            raise ValueError(
                f"{name}: {image.dtype} of shape {image.shape}; give (H, W) uint8, "
                f"sides of at least {MIN_SIDE} pixels"
            )
    if original.shape != restored.shape:
        raise ValueError(f"original {original.shape} and restored {restored.shape} differ in shape")


def _mean_squared_error(original: np.ndarray, restored: np.ndarray) -> float:
    difference = np.subtract(original, restored, dtype=np.int32)
    return int(np.square(difference, out=difference).sum(dtype=np.int64)) / original.size


def _decibels(error: float) -> float:
    return min(MAX_DB, 10 * math.log10(PEAK**2 / error)) if error > 0 else MAX_DB


def _squared_steps(image: np.ndarray, axis: int) -> np.ndarray:
    """Sum the squared steps to the next pixel along `axis`, one sum a position on that axis."""
    steps = np.diff(image.astype(np.int32), axis=axis)
    return np.square(steps, out=steps).sum(axis=1 - axis, dtype=np.int64)


def _mean_over_strips(
    original: np.ndarray,
    restored: np.ndarray,
    window: int,
    ssim_map: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> float:
    rows, columns = (side - window + 1 for side in original.shape)
    total = 0.0
    for top in range(0, rows, STRIP_ROWS):
        strip = slice(top, min(top + STRIP_ROWS, rows) + window - 1)
        total += float(ssim_map(original[strip], restored[strip]).sum(dtype=np.float64))
    return total / (rows * columns)


def _uniform_ssim_map(original: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Compute the float32 SSIM map of 8x8 windows from exact integer sums (all below 2^31)."""
    pixels = BLOCK * BLOCK
    x, y, squares, product = _sum_windows(_moments(original, restored, np.int32))
    mean_product, mean_squares = x * y, x * x + y * y
    return _similarity(
        mean_product,
        mean_squares,
        pixels * product - mean_product,
        pixels * squares - mean_squares,
        scale=pixels * pixels,
    )


def _gaussian_ssim_map(original: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Compute the float32 SSIM map of Gaussian windows; centred pixels keep the rounding small."""
    centre = np.float32(128)
    moments = _moments(original - centre, restored - centre, np.float32)
    x, y, squares, product = _filter(_filter(moments, axis=1), axis=2)
    covariance, variances = product - x * y, squares - x * x - y * y
    x, y = x + centre, y + centre
    return _similarity(x * y, x * x + y * y, covariance, variances, scale=1)


def _moments(x: np.ndarray, y: np.ndarray, dtype: type) -> np.ndarray:
    """Stack x, y, x^2 + y^2 and xy as (4, H, W) of `dtype`."""
    planes = np.empty((4, *x.shape), dtype)
    planes[0], planes[1] = x, y
    np.multiply(planes[0], planes[1], out=planes[3])
    np.square(planes[0], out=planes[2])
    planes[2] += np.square(planes[1])
    return planes


def _similarity(
    mean_product: np.ndarray,
    mean_squares: np.ndarray,
    covariance: np.ndarray,
    variances: np.ndarray,
    scale: int,
) -> np.ndarray:
    c1, c2 = np.float32(C1 * scale), np.float32(C2 * scale)
    doubled_means, doubled_covariance, mean_squares, variances = (
        term.astype(np.float32, copy=False)
        for term in (2 * mean_product, 2 * covariance, mean_squares, variances)
    )
    return ((doubled_means + c1) * (doubled_covariance + c2)) / (
        (mean_squares + c1) * (variances + c2)
    )


def _sum_windows(planes: np.ndarray) -> np.ndarray:
    """Sum (C, H, W) over every 8x8 window: sums of 2, then 4, then 8 neighbours on each axis."""
    for shift in (1, 2, 4):
        planes = planes[:, :-shift] + planes[:, shift:]
    for shift in (1, 2, 4):
        planes = planes[:, :, :-shift] + planes[:, :, shift:]
    return planes


def _gaussian_window() -> np.ndarray:
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    return (weights / weights.sum()).astype(np.float32)


GAUSSIAN = _gaussian_window()
"""The 11 weights of the Gaussian window along one axis, float32."""


def _filter(planes: np.ndarray, axis: int) -> np.ndarray:
    """Filter (C, H, W) float32 with GAUSSIAN along `axis`, valid positions only."""
    planes = np.moveaxis(planes, axis, 0)
    last = len(GAUSSIAN) - 1
    length = len(planes) - last
    filtered = planes[last // 2 : last // 2 + length] * GAUSSIAN[last // 2]
    pair = np.empty_like(filtered)
    for near in range(last // 2):
        far = last - near
        np.add(planes[near : near + length], planes[far : far + length], out=pair)
        pair *= GAUSSIAN[near]
        filtered += pair
    return np.moveaxis(filtered, 0, axis)
