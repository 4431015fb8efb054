"""IDCN: Zheng et al., "Implicit Dual-Domain Convolutional Network" (2019), for luma alone.

Shapes: N images, H x W pixels. Features of 64 channels pass eight blocks that correct them in the
pixel domain and, as if the channels were the 64 coefficients of a block, in the DCT domain.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.block_dct import BLOCK, by_frequency, dct_matrix, tile_table
from models.layers.padding import crop, replicate_to_multiple

WIDTH = 64  # one channel a DCT coefficient
DILATIONS = (3, 2, 1, 1, 1, 1)
SCALE = 0.1


class IDCN(nn.Module):
    """Convolutions 5x5 and 3x3, eight dual-domain blocks, convolutions 3x3 and 5x5.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8, and the quantisation tables (N, 8, 8);
    output the first's shape, unclipped. The first layer sees the image and the position map.
    9,784,193 parameters, initialised with Glorot's uniform and zero biases, as the authors' code.

    Chosen here: the position map, for which the authors measured the standard deviation of the
    error at each pixel of a block on DIV2K, follows from the table, so that it is known for every
    table; no ReLU after the last layer (the authors end with one), so that dark pixels learn too.
    """

    multiple: ClassVar[int] = 8
    needs_table: ClassVar[bool] = True

    def __init__(self, *, blocks: int = 8, residual: bool = False) -> None:
        """Create the layers.

        Args:
            blocks: how many dual-domain blocks.
            residual: whether the layers give a change to the input instead of the image; the last
                layer then starts from zero, and a fresh network returns its input.
        """
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks {blocks}: choose 1 or more")
        self.residual = residual
        self.receptive_field = 2 * (6 + 12 * blocks) + 1
        self.layer_names = ("head", *(f"blocks.{index}" for index in range(blocks)), "tail")
        self.head = nn.Sequential(_conv(2, 5), nn.ReLU(), _conv(WIDTH, 3), nn.ReLU())
        self.blocks = nn.ModuleList(DualDomainBlock() for _ in range(blocks))
        last = _conv(WIDTH, 5, outputs=1)
        if residual:
            nn.init.zeros_(last.weight)
        self.tail = nn.Sequential(_conv(WIDTH, 3), nn.ReLU(), last)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Restore `x`, (N, 1, H, W), that was quantised with `table`, (N, 8, 8)."""
        height, width = x.shape[-2:]
        jpeg = replicate_to_multiple(x, BLOCK)
        positions = tile_table(position_deviation(table), jpeg)
        features = self.head(torch.cat([jpeg, positions], 1))
        for block in self.blocks:
            features = block(features, table)
        image = self.tail(features)
        return crop(image + jpeg if self.residual else image, height, width)


class DualDomainBlock(nn.Module):
    """Dilated, densely connected layers, then a correction from the DCT and the pixel domain."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = _conv(WIDTH, 3, outputs=2 * WIDTH)
        self.dense = nn.ModuleList(
            _conv((2 + index) * WIDTH, 3, dilation=gap) for index, gap in enumerate(DILATIONS)
        )
        self.fuse = _conv((2 + len(DILATIONS)) * WIDTH, 1)
        self.frequency = _conv(WIDTH, 3)
        self.after_frequency = _conv(WIDTH, 3)
        self.space = _conv(WIDTH, 3)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Correct features (N, 64, H, W) of images quantised with `table`, (N, 8, 8)."""
        features = F.relu(self.widen(x))
        for layer in self.dense:
            features = torch.cat([features, F.relu(layer(features))], 1)
        features = F.relu(self.fuse(features))
        change = from_quantised(self.frequency(features), table)
        return x + SCALE * (self.after_frequency(change) + self.space(features))


def from_quantised(x: Tensor, table: Tensor) -> Tensor:
    """Read channels as changes of DCT coefficients, in quantisation steps; return their pixels.

    (N, 64, H, W) -> (N, 64, H, W). A change is clamped to half a step, multiplied by its step
    (`table`, (N, 8, 8), over 255, as pixels lie in [0, 1]), and transformed at every place.
    """
    steps = by_frequency(table).to(x.dtype) / 255
    inverse = dct_matrix(x.device).T.to(x.dtype)[:, :, None, None]
    return F.conv2d(x.clamp(-0.5, 0.5) * steps, inverse)


def position_deviation(table: Tensor) -> Tensor:
    """Return the standard deviation of the error at each pixel of a block, in [0, 1] units.

    (N, 8, 8) -> (N, 8, 8): for errors of the coefficients that are uniform over a quantisation
    step Q, of variance Q**2 / 12, and independent.
    """
    squares = dct_matrix(table.device).T ** 2
    variance = squares @ (table.flatten(1).double() ** 2 / 12).T
    return (variance.T.sqrt() / 255).reshape(table.shape)


def _conv(inputs: int, kernel: int, *, outputs: int = WIDTH, dilation: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
