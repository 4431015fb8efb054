"""CAS-CNN: Cavigelli et al., "CAS-CNN: A Deep Convolutional Neural Network ..." (2016).

Shapes: N images, H x W pixels, both multiples of 8 inside the network. Blocks A, B, C, D work at
full, 1/2, 1/4 and 1/8 size (the paper's table I); d_up, c_up, b_up are its D~, C~, B~, which double
the size, and d_out, c_out, b_out, a_out its D^, C^, B^, A^, which give the image at each size.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.padding import crop, replicate_to_multiple


class CASCNN(nn.Module):
    """Four scales down and up again, with an image at each of them; no residual.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped. Sides
    get their last row or column repeated up to a multiple of 8 (16 at least), and cropped again.
    Layers are padded by zeros; every one is followed by a PReLU with one slope, the
    images too. 5,147,054 parameters: 5,144,987 weights, 2,052 biases, 15 slopes.
    """

    layer_names: ClassVar[tuple[str, ...]] = (
        *("a", "b", "c", "d", "d_out", "d_up"),
        *("c_out", "c_up", "b_out", "b_up", "a_out"),
    )
    receptive_field: ClassVar[int] = 105
    multiple: ClassVar[int] = 8

    def __init__(self) -> None:
        """Create the layers, initialised as in `_initialise`."""
        super().__init__()
        self.a = nn.Sequential(*_conv(1, 128), *_conv(128, 128))
        self.b = nn.Sequential(*_conv(128, 128), *_conv(128, 128))
        self.c = nn.Sequential(*_conv(128, 256), *_conv(256, 256))
        self.d = nn.Sequential(*_conv(256, 256), *_conv(256, 256))
        self.d_out = nn.Sequential(*_conv(256, 1))
        self.d_up = _double(256, 256)
        self.c_out = nn.Sequential(*_conv(513, 1))
        self.c_up = _double(513, 128)
        self.b_out = nn.Sequential(*_conv(257, 1))
        self.b_up = _double(257, 128)
        self.a_out = nn.Sequential(*_conv(257, 1))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor, Tensor]:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W).

        In training mode H and W must be multiples of 8, and the result is four images: of full,
        1/2, 1/4 and 1/8 size.
        """
        height, width = x.shape[-2:]
        if not self.training:
            x = replicate_to_multiple(x, self.multiple, least=2)
        a = self.a(x)
        b = self.b(F.avg_pool2d(a, 2))
        c = self.c(F.avg_pool2d(b, 2))
        d = self.d(F.avg_pool2d(c, 2))
        eighth = self.d_out(d)
        c = _join(self.d_up(d), c, eighth)
        quarter = self.c_out(c)
        b = _join(self.c_up(c), b, quarter)
        half = self.b_out(b)
        full = self.a_out(_join(self.b_up(b), a, half))
        if self.training:
            return full, half, quarter, eighth
        return crop(full, height, width)


def _join(upper: Tensor, skipped: Tensor, image: Tensor) -> Tensor:
    """Stack doubled features, the features of this size, and the smaller image, doubled."""
    doubled = F.interpolate(image, scale_factor=2.0, mode="nearest")
    return torch.cat([upper, skipped, doubled], dim=1)


def _conv(inputs: int, outputs: int) -> tuple[nn.Conv2d, nn.PReLU]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    _initialise(conv)
    return conv, nn.PReLU()


def _double(inputs: int, outputs: int) -> nn.Sequential:
    deconv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    _initialise(deconv)
    return nn.Sequential(deconv, nn.PReLU())


def _initialise(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Draw weights and biases from the paper's (-1/sqrt(n), 1/sqrt(n)), uniformly.

    n is the number of input channels.
    """
    bound = conv.in_channels**-0.5
    nn.init.uniform_(conv.weight, -bound, bound)
    assert conv.bias is not None
    nn.init.uniform_(conv.bias, -bound, bound)
