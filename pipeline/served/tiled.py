"""Run a network over images part by part, so that memory stays bounded whatever their size."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from .spans import Span, Tiling, spans

TILE = 512
"""Side of the tiles in pixels; memory grows with its square."""


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
