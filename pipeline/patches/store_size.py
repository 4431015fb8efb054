"""How large a patch store will be, before it is built."""

import io
from collections.abc import Sequence

from PIL import Image

from pipeline.datasets.sources import ScannedImage
from pipeline.patches.cut import grid, shape_to_cut
from storage import files
from storage.patches.schema import PatchSpec, pixel_columns

LOOKED_AT = 8
LARGE_BYTES = 1_000_000_000
MUCH_OVERLAP = 16
"""Patches that a pixel lies in."""


def expected_bytes(spec: PatchSpec, scanned: Sequence[ScannedImage]) -> int:
    """Return about how many bytes of pixels a store of the images has, from some images' sizes."""
    usable = [image for image in scanned if image.sha256]
    looked_at = usable[:: max(1, len(usable) // LOOKED_AT)]
    counts = [_patches(image, spec) for image in looked_at]
    mean = sum(counts) / max(1, len(counts))
    return round(mean * len(usable) * spec.side**2 * len(pixel_columns(spec)))


def overlap_warning(spec: PatchSpec, scanned: Sequence[ScannedImage]) -> str:
    """Return what a stride far below the side costs, and the way out; nothing where it is little.

    That is: nothing below LARGE_BYTES, or where a pixel lies in MUCH_OVERLAP patches or fewer.
    """
    overlap = (spec.side / spec.stride) ** 2
    size = expected_bytes(spec, scanned) if overlap > MUCH_OVERLAP else 0
    if size < LARGE_BYTES:
        return ""
    apart = size / overlap
    return (
        f"about {size / 1e9:.1f} GB: at stride {spec.stride} a pixel lies in {overlap:.0f} patches "
        f"of {spec.side}x{spec.side}; --stride {spec.side} makes about {apart / 1e9:.2f} GB"
    )


def _patches(image: ScannedImage, spec: PatchSpec) -> int:
    try:
        width, height = Image.open(io.BytesIO(files.read_bytes(image.uri))).size
    except (OSError, Image.DecompressionBombError):
        return 0
    return len(grid(*shape_to_cut((height, width), spec), spec)[0])
