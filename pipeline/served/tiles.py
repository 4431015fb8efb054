"""Run a network over images tile by tile, so that memory stays bounded whatever their size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

TILE = 512
"""Side of the tiles in pixels; memory grows with its square."""
MIN_SIDE = 8
"""Networks are promised at least this many pixels in height and width."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut so that the tiles' results join into that of the whole image."""

    side: int
    """Height and width of the part that a tile contributes, in pixels, 1 or more."""
    receptive_field: int
    """Full width, in pixels, of what an output pixel depends on (an upper bound): half of it,
    rounded down, to either side."""
    multiple: int = 1
    """Tiles start at multiples of this many pixels, so that a network which works on cells of
    several pixels sees the same cells."""

    def __post_init__(self) -> None:
        for name in ("side", "receptive_field", "multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: choose 1 or more pixels")


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels: what it contributes, and what it looks at."""

    start: int
    stop: int
    outer_start: int
    outer_stop: int

    @property
    def own(self) -> slice:
        """What it contributes, in the image."""
        return slice(self.start, self.stop)

    @property
    def outer(self) -> slice:
        """What it looks at, in the image."""
        return slice(self.outer_start, self.outer_stop)

    @property
    def inside(self) -> slice:
        """What it contributes, in what it looks at."""
        return slice(self.start - self.outer_start, self.stop - self.outer_start)


def spans(length: int, tiling: Tiling) -> list[Span]:
    """Cut an axis of `length` pixels: the contributions follow each other without a gap.

    Every span looks half a receptive field beyond what it contributes, and at least MIN_SIDE
    pixels, but never beyond the image: its ends stay the places where the network pads.
    """
    side = _round_up(tiling.side, tiling.multiple)
    margin = _round_up(max(tiling.receptive_field // 2, MIN_SIDE), tiling.multiple)
    found = []
    for start in range(0, length, side):
        stop = min(start + side, length)
        found.append(Span(start, stop, max(0, start - margin), min(stop + margin, length)))
    return found


def run(restore: Callable[[Tensor], Tensor], x: Tensor, tiling: Tiling | None) -> Tensor:
    """Return `restore(x)` for (N, 1, H, W): in one piece where it is no larger than a tile.

    Without a tiling it is always in one piece.
    """
    if tiling is None or max(x.shape[-2:]) <= tiling.side:
        return restore(x)
    return run_tiled(restore, x, tiling)


def run_tiled(restore: Callable[[Tensor], Tensor], x: Tensor, tiling: Tiling) -> Tensor:
    """Return `restore(x)` for (N, 1, H, W), computed tile by tile.

    `restore` keeps the shape of what it is given. Equal to the whole image's result up to the
    rounding of floating point.
    """
    output = torch.empty_like(x)
    for row, column in tiles(x, tiling):
        restored = restore(x[..., row.outer, column.outer])
        output[..., row.own, column.own] = restored[..., row.inside, column.inside]
    return output


def tiles(x: Tensor, tiling: Tiling) -> Iterator[tuple[Span, Span]]:
    """Yield rows and columns of every tile of (N, C, H, W)."""
    return product(spans(x.shape[2], tiling), spans(x.shape[3], tiling))


def to_unit(luma: np.ndarray) -> Tensor:
    """Return (H, W) uint8 as (1, 1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(luma))[None, None].float() / 255


def to_luma(restored: Tensor) -> np.ndarray:
    """Return (1, 1, H, W) as (H, W) uint8: clipped to [0, 1], times 255, rounded."""
    return restored[0, 0].clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
