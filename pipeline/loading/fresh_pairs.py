"""Pairs made while they are loaded: crops at any place and scale, compressed at any quality factor.

For stores that hold originals alone (degradation `none`): no two epochs see the same pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.images.jpeg import compress

SMALLEST_SCALE = 0.6
"""Half of the crops are reduced, to between this and 1 of their size: more variety, and freer of
the artifacts that originals out of JPEG files have."""
PLACE, SCALE = 1, 2  # what a random stream is for, part of its seed


@dataclass(frozen=True)
class Crops:
    """Which square is cut out of each patch."""

    corner: np.ndarray
    """(N, 2) int64: top and left, in pixels."""
    side: np.ndarray
    """(N,) int64: height and width in pixels, before it is reduced."""

    def part(self, rows: slice | np.ndarray) -> "Crops":
        """Return those of some of the patches."""
        return Crops(self.corner[rows], self.side[rows])


def draw_crops(seed: Sequence[int], count: int, patch: int, side: int) -> Crops:
    """Return `count` random crops of patches with sides of `patch`, to be reduced to `side`.

    A pure function of its arguments.
    """
    place, scale = (np.random.default_rng((*seed, use)) for use in (PLACE, SCALE))
    scales = scale.uniform(max(SMALLEST_SCALE, side / patch), 1.0, count)
    sides = np.where(scale.random(count) < 0.5, side, np.minimum(patch, np.rint(side / scales)))
    sides = sides.astype(np.int64)
    corner = np.floor(place.random((count, 2)) * (patch - sides + 1)[:, None]).astype(np.int64)
    return Crops(corner=corner, side=sides)


def fill_pairs(
    patches: np.ndarray, crops: Crops, qfs: np.ndarray, original: np.ndarray, degraded: np.ndarray
) -> None:
    """Cut each patch, (N, S, S) uint8, and write the crop and its JPEG at `qfs`, (N,), out.

    `original` and `degraded` are (N, side, side) uint8; larger crops are reduced to them (bicubic,
    Pillow's filter, which is widened to the scale). Each JPEG's blocks begin in its crop's corner.
    """
    side = original.shape[-1]
    for i, (patch, (y, x), size) in enumerate(zip(patches, crops.corner, crops.side, strict=True)):
        crop = patch[y : y + size, x : x + size]
        if size != side:
            crop = np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC))
        original[i] = crop
        degraded[i] = compress(np.ascontiguousarray(crop), int(qfs[i]))[0]
