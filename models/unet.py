"""UNet: a residual U-Net for every quality factor, which sees the JPEG's quantisation table.

It follows no paper; its parts do: pixel-unshuffle (Shi et al. 2016), a U-Net of residual blocks
with strided convolutions and added skips (Zhang et al. 2021, DRUNet), the quantisation table as a
second input plane (Ehrlich et al. 2020, QGAC), a residual output (Zhang et al. 2017, DnCNN).

Shapes: N images, H x W pixels, L levels; level i works on cells of `cell * 2**i` pixels a side.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.block_dct import BLOCK, tile_table
from models.layers.padding import crop, replicate_to_multiple

BRANCH_SCALE = 0.1  # of the initial weights that end a residual branch: blocks begin near identity


class UNet(nn.Module):
    """Residual blocks at 1/2, 1/4 and 1/8 of the size, on the way down and up again.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8, and the quantisation table (N, 8, 8);
    output the shape of the image, unclipped. The table's plane repeats every 8 pixels: it tells the
    network the quality and where blocks begin. Sides that are no multiples of `multiple` get
    repeated rows and columns that are cropped again. A fresh network returns its input. With the
    default widths it has 3,463,524 parameters.
    """

    needs_table = True

    def __init__(
        self,
        *,
        cell: int = 2,
        widths: Sequence[int] = (64, 96, 160),
        down: Sequence[int] = (3, 3, 4),
        up: Sequence[int] = (3, 3),
    ) -> None:
        """Create the layers.

        Args:
            cell: side in pixels of the cells that the first level works on.
            widths: channels of each level.
            down: residual blocks of each level on the way down, the last being the bottom.
            up: residual blocks of each level but the last on the way up.

        Raises ValueError when the levels do not fit each other.
        """
        super().__init__()
        levels = len(widths)
        if not levels or len(down) != levels or len(up) != levels - 1:
            raise ValueError(
                f"widths {list(widths)}, down {list(down)}, up {list(up)}: give a width and a "
                "number of blocks down for each level, and one up for each level but the last"
            )
        if cell < 1 or min(*widths, *down) < 1 or min(up, default=1) < 1:
            raise ValueError(
                f"cell {cell}, widths {list(widths)}, down {list(down)}, up {list(up)}: "
                "choose 1 or more"
            )
        self.cell = cell
        self.multiple = math.lcm(BLOCK, cell * 2 ** (levels - 1))
        self.receptive_field = _receptive_field(cell, down, up)
        self.levels = levels
        self.head = nn.Conv2d(2 * cell**2, widths[0], 3, padding=1)
        for level, (channels, count) in enumerate(zip(widths, down, strict=True)):
            self.add_module(f"down{level}", _blocks(channels, count))
        for level, (fine, coarse) in enumerate(pairwise(widths)):
            self.add_module(f"shrink{level}", nn.Conv2d(fine, coarse, 2, stride=2))
            self.add_module(f"grow{level}", nn.ConvTranspose2d(coarse, fine, 2, stride=2))
            self.add_module(f"up{level}", _blocks(fine, up[level]))
        self.tail = nn.Conv2d(widths[0], cell**2, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)
        descent = [f"{name}{level}" for level in range(levels - 1) for name in ("down", "shrink")]
        ascent = [f"{name}{level}" for level in range(levels - 1) for name in ("up", "grow")]
        self.layer_names = ("head", *descent, f"down{levels - 1}", *reversed(ascent), "tail")

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W), `table` (N, 8, 8) of 1 to 255 -> (N, 1, H, W)."""
        height, width = x.shape[-2:]
        padded = replicate_to_multiple(x, self.multiple, least=2)
        plane = tile_table(table.log2() / 8, padded)
        features = self.head(F.pixel_unshuffle(torch.cat([padded, plane], 1), self.cell))
        skips = []
        for level in range(self.levels - 1):
            skips.append(self._layer("down", level)(features))
            features = self._layer("shrink", level)(skips[-1])
        features = self._layer("down", self.levels - 1)(features)
        for level in reversed(range(self.levels - 1)):
            features = self._layer("grow", level)(features) + skips[level]
            features = self._layer("up", level)(features)
        residual = F.pixel_shuffle(self.tail(features), self.cell)
        return x + crop(residual, height, width)

    def _layer(self, name: str, level: int) -> nn.Module:
        return self.get_submodule(f"{name}{level}")


class _Residual(nn.Module):
    """(N, C, H, W) -> the same shape: the input plus two 3x3 convolutions with a ReLU between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in (self.first, self.second):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        with torch.no_grad():
            self.second.weight.mul_(BRANCH_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x), inplace=True))


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(channels) for _ in range(count)))


def _receptive_field(cell: int, down: Sequence[int], up: Sequence[int]) -> int:
    """Return the side in pixels of the square around a pixel that holds all it depends on.

    Followed from the output to the input: every 3x3 convolution adds a cell of its level on both
    sides, every step to a coarser level rounds to its larger cells.
    """
    sides = [cell * 2**level for level in range(len(down))]
    ascent = list(zip(sides, up, strict=False))
    descent = list(zip(sides, down, strict=True))[::-1]
    reach = 0
    for pixel in range(max(sides[-1], BLOCK)):
        first, stop = pixel, pixel + 1
        for side, convolutions in (
            (cell, 1),  # the tail
            *((side, 2 * blocks) for side, blocks in (*ascent, *descent)),
            (cell, 1),  # the head
        ):
            first = (first // side - convolutions) * side
            stop = (-(-stop // side) + convolutions) * side
        reach = max(reach, pixel - first, stop - 1 - pixel)
    return 2 * reach + 1
