"""How large a patch store will be, before it is built."""

from collections.abc import Sequence

from pipeline.datasets.sources import ScannedImage
from pipeline.patches.cut import patch_count, shape_to_cut
from storage.patches.schema import PatchSpec, pixel_columns

LARGE_BYTES = 1_000_000_000
MUCH_OVERLAP = 16
"""Patches that a pixel lies in."""


def expected_bytes(spec: PatchSpec, scanned: Sequence[ScannedImage]) -> int:
    """Return how many bytes of pixels a store of the images has, of equal files one counted.

    Exact but for images whose damage shows only when they are decoded.
    """
    different = {image.sha256: image for image in scanned if image.sha256}
    return sum(patch_bytes(image, spec) for image in different.values())


def patch_bytes(image: ScannedImage, spec: PatchSpec) -> int:
    """Return how many bytes the pixel columns of an image's patches have."""
    return expected_rows(image, spec) * spec.side**2 * len(pixel_columns(spec))


def expected_rows(image: ScannedImage, spec: PatchSpec) -> int:
    """Return how many patches an image gives; 0 if it is too small or its header unusable."""
    if not image.height:
        return 0
    return patch_count(*shape_to_cut((image.height, image.width), spec), spec)


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
        f"{size / 1e9:.1f} GB: at stride {spec.stride} a pixel lies in {overlap:.0f} patches of "
        f"{spec.side}x{spec.side}; --stride {spec.side} makes about {apart / 1e9:.2f} GB"
    )
