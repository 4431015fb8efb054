"""DDCN: Guo and Chao, "Building Dual-Domain Representations for Compression Artifacts Reduction".

ECCV 2016. Shapes: N images, H x W pixels. 64 one-hot filters turn the 8x8 patch at every pixel into
channels; H restores the patches' DCT, G their pixels, J joins both; 10 layers 3x3x64 each.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.block_dct import BLOCK, by_frequency, dct_matrix

PATCH = BLOCK * BLOCK  # pixels of a patch, and channels of every layer
SPREAD = 255.0  # what a quantisation step of 1 is a fraction of, for pixels in [0, 1]


class DDCN(nn.Module):
    """Restores all overlapping 8x8 patches in both domains; an image is the mean of its patches.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8, and the quantisation tables (N, 8, 8);
    output the first's shape, unclipped. 1,144,796 parameters: 30 convolutions, 28 PReLU slopes, 64
    slopes of the bounds.

    Chosen here, beyond the three networks and their widths: patches at every pixel, the border
    pixels repeated 7 times; branches give a change to their input, which lets bfloat16 layers keep
    the image's precision; beyond half a quantisation step the DCT's change goes on with a slope
    that is learnt for each frequency, from 0.1 (a patch off the JPEG grid may exceed the bounds);
    no PReLU ends H (it is bounded) and J (it is the output); He initialisation, zero biases, and
    zero weights in the last layer of H and J, so that a fresh network returns its input.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("frequency", "bounds", "space", "joint")
    multiple: ClassVar[int] = 1
    needs_table: ClassVar[bool] = True

    def __init__(self, *, layers: int = 10) -> None:
        """Create the networks H, G and J of `layers` convolutions each."""
        super().__init__()
        if layers < 2:
            raise ValueError(f"layers {layers}: choose 2 or more")
        self.receptive_field = 2 * (2 * layers + 7) + 1
        self.frequency = nn.Sequential(*_layers(PATCH, layers)[:-1])
        self.bounds = LeakyBounds()
        self.space = nn.Sequential(*_layers(PATCH, layers))
        self.joint = nn.Sequential(*_layers(2 * PATCH, layers)[:-1])
        for network in (self.frequency, self.joint):
            last = network[-1]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Restore `x`, (N, 1, H, W), that was quantised with `table`, (N, 8, 8)."""
        dct = dct_matrix(x.device).to(x.dtype)[:, :, None, None]
        patches = patches_of(F.pad(x - 0.5, (BLOCK - 1,) * 4, mode="replicate"))
        change = self.bounds(self.frequency(F.conv2d(patches, dct)), table)
        rectified = patches + F.conv2d(change, dct.transpose(0, 1))
        restored = self.joint(torch.cat([self.space(patches), rectified], 1))
        return x + mean_of_patches(restored)


class LeakyBounds(nn.Module):
    """Lets a DCT coefficient change by half a quantisation step, and beyond at a learnt slope."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((PATCH, 1, 1), 0.1))

    def forward(self, change: Tensor, table: Tensor) -> Tensor:
        """Bound (N, 64, H, W), in units of the pixels' range, by (N, 8, 8) of 1 to 255."""
        half = by_frequency(table).to(change.dtype) / (2 * SPREAD)
        inside = torch.clamp(change, -half, half)
        return inside + self.slope * (change - inside)


def patches_of(x: Tensor) -> Tensor:
    """Return the 8x8 patch that starts at every pixel: (N, 1, H, W) -> (N, 64, H - 7, W - 7)."""
    return F.conv2d(x, _one_hot(x).reshape(PATCH, 1, BLOCK, BLOCK))


def mean_of_patches(patches: Tensor) -> Tensor:
    """Put overlapping patches together again: (N, 64, H, W) -> (N, 1, H - 7, W - 7).

    Each pixel is the mean of its places in the 64 patches that hold it.
    """
    places = _one_hot(patches).flip(1).reshape(1, PATCH, BLOCK, BLOCK)
    return F.conv2d(patches, places / PATCH)


def _one_hot(like: Tensor) -> Tensor:
    return torch.eye(PATCH, device=like.device, dtype=like.dtype)


def _layers(inputs: int, count: int) -> list[nn.Module]:
    """Return `count` convolutions to 64 channels, a PReLU after each."""
    layers: list[nn.Module] = []
    for index in range(count):
        conv = nn.Conv2d(PATCH if index else inputs, PATCH, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, a=0.25)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.PReLU()]
    return layers
