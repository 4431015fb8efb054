"""Pictures of a report: which images are shown, and their layers as files for a browser."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from pipeline.evaluation.protocol import NamedImage, jpeg_table
from pipeline.evaluation.scores import Comparison
from pipeline.images import jpeg
from pipeline.images.degrade import before_jpeg
from pipeline.networks.restorer import Restorer
from pipeline.reports.report_data import Layer, Picture

LARGEST_SIDE = 1024
"""Of a picture, in pixels; larger images are cut."""
ERROR_FACTOR = 8
"""The error map is so many times brighter than the error is."""


def choose_images(comparison: Comparison, qf: int, count: int) -> list[str]:
    """Return the names of the images with the most and the least PSNR gain, the most first.

    Half of `count` are of each kind, the most gain first; all images if there are no more.
    """
    gains = comparison.gains_in_psnr(qf)
    names = sorted(gains, key=lambda name: -gains[name])
    if len(names) <= count:
        return names
    least = count // 2
    return names[: count - least] + names[len(names) - least :]


def picture_of(
    image: NamedImage, comparison: Comparison, qf: int, restorer: Restorer, network: str
) -> Picture:
    """Compress and restore an image of an evaluation again, and return it as a picture.

    Its scores are those of the evaluation, over the whole image.
    """
    name, luma = image
    restored = comparison.restored
    pair = before_jpeg(luma, restored.degradation)
    compressed, _ = jpeg.compress(pair.source, qf)
    layers: dict[Layer, np.ndarray] = {
        "jpeg": compressed,
        "restored": restorer(compressed, jpeg_table(qf)),
        "original": pair.original,
    }
    shown: dict[Layer, np.ndarray] = {
        layer: middle(pixels, LARGEST_SIDE) for layer, pixels in layers.items()
    }
    files: dict[Layer, bytes] = {layer: webp_of(pixels) for layer, pixels in shown.items()}
    height, width = shown["original"].shape
    return Picture(
        network=network,
        dataset=restored.label,
        image=name,
        qf=qf,
        width=width,
        height=height,
        cut=shown["original"].shape != pair.original.shape,
        jpeg_scores=_scores(comparison.jpeg.per_image, name, qf),
        restored_scores=_scores(restored.per_image, name, qf),
        layers=files,
    )


def error_map(layers: Mapping[Layer, bytes], layer: Layer) -> bytes:
    """Return |layer - original|, times ERROR_FACTOR and at most 255, as a WebP file."""
    original, other = (pixels_of(layers[name]).astype(np.int16) for name in ("original", layer))
    error = np.minimum(np.abs(other - original) * ERROR_FACTOR, 255)
    return webp_of(error.astype(np.uint8))


def webp_of(luma: np.ndarray) -> bytes:
    """Return luma, (H, W) uint8, as a lossless WebP file."""
    content = io.BytesIO()
    Image.fromarray(luma).save(content, "WEBP", lossless=True, quality=0, method=4)
    return content.getvalue()


def pixels_of(webp: bytes) -> np.ndarray:
    """Return the luma that `webp_of` was given, (H, W) uint8."""
    with Image.open(io.BytesIO(webp), formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGB"))[..., 0]


def middle(luma: np.ndarray, largest: int) -> np.ndarray:
    """Return the middle of an image, its sides at most `largest`, on the JPEG's grid of 8."""
    top, left = (max(0, side - largest) // 16 * 8 for side in luma.shape)
    return np.ascontiguousarray(luma[top : top + largest, left : left + largest])


def _scores(per_image: Sequence, name: str, qf: int) -> Mapping[str, float]:
    (found,) = [one.metrics for one in per_image if (one.image, one.qf) == (name, qf)]
    return dict(found)
