"""From one luma image to its patches: the grid, the cut, and many JPEGs in one mosaic."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.images.degrade import before_jpeg, rescaled_shape
from pipeline.images.jpeg import compress
from storage.patches.schema import ORIGINAL, PatchSpec, qf_column

MOSAIC_COLUMNS = 64
BLOCK_PIXELS = 1 << 22  # one block of patches: about 4 MB a pixel column


@dataclass(frozen=True, kw_only=True)
class PatchBlock:
    """Some consecutive patches of one image."""

    y: np.ndarray
    """(N,) int32, top rows in the image, after the reduction if it was rescaled."""
    x: np.ndarray
    """(N,) int32, left columns, likewise."""
    pixels: Mapping[str, np.ndarray]
    """Pixel column name -> (N, side, side) uint8, C-contiguous."""


def grid(height: int, width: int, spec: PatchSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the (y, x) corners of every patch, row by row, each (N,) int32; none if too small."""
    ys = np.arange(0, height - spec.side + 1, spec.stride, dtype=np.int32)
    xs = np.arange(0, width - spec.side + 1, spec.stride, dtype=np.int32)
    return np.repeat(ys, len(xs)), np.tile(xs, len(ys))


def patch_count(height: int, width: int, spec: PatchSpec) -> int:
    """Return how many corners `grid` has."""
    rows, columns = ((length - spec.side) // spec.stride + 1 for length in (height, width))
    return max(0, rows) * max(0, columns)


def shape_to_cut(shape: tuple[int, ...], spec: PatchSpec) -> tuple[int, int]:
    """Return height and width of what the patches of an image of a shape, (H, W), are cut from."""
    height, width = shape
    return rescaled_shape(height, width) if spec.degradation == "rescaled" else (height, width)


def patch_blocks(luma: np.ndarray, spec: PatchSpec) -> Iterator[PatchBlock]:
    """Yield every patch of an image with its compressed versions, a few MB at a time.

    `luma` is (H, W) uint8. With degradation `image` the whole image is compressed and then cut;
    with `patch` each patch is compressed on its own; with `rescaled` the image is reduced first,
    then as with `image`.
    """
    ys, xs = grid(*shape_to_cut(luma.shape, spec), spec)
    if not len(ys):
        return
    pair = before_jpeg(luma, spec.degradation)
    compressed: dict[int, np.ndarray] = {}
    if spec.degradation != "patch":
        compressed = {qf: compress(pair.source, qf)[0] for qf in spec.qfs}
    step = max(1, BLOCK_PIXELS // spec.side**2)
    for start in range(0, len(ys), step):
        y, x = ys[start : start + step], xs[start : start + step]
        original = _gather(pair.original, y, x, spec.side)
        pixels = {ORIGINAL: original}
        for qf in spec.qfs:
            pixels[qf_column(qf)] = (
                _gather(compressed[qf], y, x, spec.side)
                if compressed
                else compress_patches(original, qf)
            )
        yield PatchBlock(y=y, x=x, pixels=pixels)


def compress_patches(patches: np.ndarray, qf: int) -> np.ndarray:
    """Return what each patch is after JPEG compression on its own, (N, side, side) uint8.

    The side must be a multiple of 8. The patches are tiled into one mosaic that is compressed once:
    a grey JPEG's 8x8 blocks do not affect each other, so the result equals one by one bit for bit
    at a fraction of the cost.
    """
    count, side, _ = patches.shape
    decoded, _ = compress(tiled(patches), qf)
    rows, columns = (length // side for length in decoded.shape)
    cut = decoded.reshape(rows, side, columns, side).swapaxes(1, 2)
    return np.ascontiguousarray(cut.reshape(rows * columns, side, side)[:count])


def tiled(patches: np.ndarray) -> np.ndarray:
    """Return patches, (N, side, side) uint8, side by side in one picture, black where it ends.

    Raises ValueError for a side that is no multiple of 8: JPEG's blocks would lie across patches.
    """
    count, side, _ = patches.shape
    if side % 8:
        raise ValueError(f"side {side}: only multiples of 8 can share a mosaic")
    columns = min(MOSAIC_COLUMNS, count)
    rows = -(-count // columns)
    tiles = np.zeros((rows * columns, side, side), np.uint8)
    tiles[:count] = patches
    mosaic = tiles.reshape(rows, columns, side, side).swapaxes(1, 2)
    return mosaic.reshape(rows * side, columns * side)


def _gather(image: np.ndarray, y: np.ndarray, x: np.ndarray, side: int) -> np.ndarray:
    return sliding_window_view(image, (side, side))[y, x]
