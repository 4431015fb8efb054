"""DMCNN: Zhang et al., "DMCNN: Dual-Domain Multi-Scale Convolutional Neural Network" (2018).

Shapes: N images, H x W pixels. A branch on DCT coefficients (9 layers) gives a first image; a
multi-scale branch on pixels (15 layers, dilated at quarter size) restores from both.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.block_dct import block_dct, block_idct, from_levels, rectify, to_levels
from models.layers.padding import crop, replicate_to_multiple

SLOPE = 0.1
LEVELS = 255.0  # coefficients enter and leave the layers in units of the pixels' range

Scales = tuple[Tensor, Tensor, Tensor]


class DMCNN(nn.Module):
    """A DCT branch with the JPEG's bounds, then a pixel branch, then a learnt mean of both.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8, and the quantisation tables (N, 8, 8);
    output the first's shape, unclipped. In training, a tuple of full, half and quarter size and of
    the DCT branch's image, O_D. Output: g(C, O_D) + r O_D + (1 - r) C for the JPEG C.
    4,701,115 parameters: 222,217 on coefficients, 4,478,897 on pixels, r.

    Chosen here, where the paper is silent: He initialisation and zero biases, but zero in each
    branch's last layer and in the heads, so that a fresh network returns its input and its
    coefficients start inside the bounds, where gradients are not zero.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("dct", "pixel", "blend")
    receptive_field: ClassVar[int] = 235  # 86 of the pixel branch + 31 of the DCT branch a side
    multiple: ClassVar[int] = 8
    needs_table: ClassVar[bool] = True

    def __init__(self, *, width: int = 32) -> None:
        """Create the layers; `width` is the channels of each branch's first, 32 in the paper."""
        super().__init__()
        if width < 1:
            raise ValueError(f"width {width}: choose 1 or more channels")
        self.dct = DCTBranch(width)
        self.pixel = PixelBranch(width)
        self.blend = Blend()

    def forward(self, x: Tensor, table: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Restore `x`, (N, 1, H, W), that was quantised with `table`, (N, 8, 8)."""
        height, width = x.shape[-2:]
        jpeg = replicate_to_multiple(x, 8)
        rectified = self.dct(jpeg, table)
        scales = self.pixel(jpeg, rectified)
        image = scales[0] if self.training else scales
        image = crop(self.blend(image, rectified, jpeg), height, width)
        return (image, *scales[1:], rectified) if self.training else image


class DCTBranch(nn.Module):
    """Restores block DCT coefficients, kept within the JPEG's quantisation bounds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, full = width, 2 * width
        plan = ((1, half, 1), (half, full, 1), (full, full, 1), (full, full, 2), (full, full, 4))
        plan += ((full, full, 8), (full, full, 1), (full, half, 1))
        layers = [_layer(inputs, outputs, dilation=gap) for inputs, outputs, gap in plan]
        self.layers = nn.Sequential(*layers, _zeroed(nn.Conv2d(half, 1, 3, padding=1)))

    def coefficients(self, jpeg: Tensor, table: Tensor) -> Tensor:
        """Return the rectified coefficient map of images whose sides are multiples of 8."""
        decoded = block_dct(to_levels(jpeg))
        change = self.layers((decoded / LEVELS).to(jpeg.dtype))
        return rectify(decoded + change * LEVELS, decoded, table)

    def forward(self, jpeg: Tensor, table: Tensor) -> Tensor:
        """Return the image O_D, of the shape and type of `jpeg`."""
        return from_levels(block_idct(self.coefficients(jpeg, table))).to(jpeg.dtype)


class PixelBranch(nn.Module):
    """An auto-encoder over three scales, with skips and dilated convolutions at the smallest."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w1, w2, w4, w8 = width, 2 * width, 4 * width, 8 * width
        self.c0 = _layer(2, w1, kernel=5)
        self.c1 = _layer(w1, w2)
        self.c2 = _layer(w2, w4, stride=2)
        self.c3 = _layer(w4, w4)
        self.c4 = _layer(w4, w8, stride=2)
        self.c5 = _layer(w8, w8)
        self.d2 = _layer(w8, w8, dilation=2)
        self.d4 = _layer(w8, w8, dilation=4)
        self.d8 = _layer(w8, w8, dilation=8)
        self.c8 = _layer(w8, w8)
        self.quarter_head = _zeroed(nn.Conv2d(w8, 1, 3, padding=1))
        self.up1 = SmoothUp(w8, w4)
        self.c9 = _layer(2 * w4, w4)
        self.half_head = _zeroed(nn.Conv2d(w4, 1, 3, padding=1))
        self.up2 = SmoothUp(w4, w2)
        self.c10 = _layer(2 * w2, w1)
        self.out = _zeroed(nn.Conv2d(w1, 1, 5, padding=2))

    def encode(self, jpeg: Tensor, rectified: Tensor) -> Scales:
        """Return the features at full, half and quarter size, the last with the widest view."""
        full = self.c1(self.c0(torch.cat([jpeg, rectified], 1)))
        half = self.c3(self.c2(full))
        quarter = self.d8(self.d4(self.d2(self.c5(self.c4(half)))))
        return full, half, self.c8(quarter)

    def forward(self, jpeg: Tensor, rectified: Tensor) -> Tensor | Scales:
        """Return g(C, O_D); in training also the images of half and quarter size."""
        full, half, quarter = self.encode(jpeg, rectified)
        middle = self.c9(torch.cat([self.up1(quarter), half], 1))
        last = self.c10(torch.cat([self.up2(middle), full], 1))
        if not self.training:
            return self.out(last)
        half_image = self.half_head(middle) + F.avg_pool2d(jpeg, 2)
        quarter_image = self.quarter_head(quarter) + F.avg_pool2d(jpeg, 4)
        return self.out(last), half_image, quarter_image


class SmoothUp(nn.Module):
    """Doubles the size; a mean over 2x2 removes the checkerboard of the deconvolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        nn.init.normal_(self.deconv.weight, std=(2 / (1 + SLOPE**2) / (inputs * 4)) ** 0.5)
        _zero_bias(self.deconv)
        self.activation = nn.PReLU(init=SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', 2H, 2W)."""
        larger = F.pad(self.deconv(x), (1, 0, 1, 0), mode="reflect")
        return self.activation(F.avg_pool2d(larger, 2, stride=1))


class Blend(nn.Module):
    """Adds a mean of the DCT branch's image and the JPEG, whose weight r is learnt from 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.r = nn.Parameter(torch.tensor(0.5))

    def forward(self, change: Tensor, rectified: Tensor, jpeg: Tensor) -> Tensor:
        """Return change + r rectified + (1 - r) jpeg, all (N, 1, H, W)."""
        return change + jpeg + self.r * (rectified - jpeg)


def _layer(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    _zero_bias(conv)
    return nn.Sequential(conv, nn.PReLU(init=SLOPE))


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    _zero_bias(conv)
    return conv


def _zero_bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
