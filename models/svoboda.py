"""L4 and L8: Svoboda et al., "Compression Artifacts Removal Using Convolutional Neural Networks".

WSCG 2016. Shapes: N images, H x W pixels. L4 has layers 11x11x48, 3x3x64, 3x3x64, 5x5x1; L8 has
11x11x32, 3x3x64 three times, 1x1x64, 5x5x64, 1x1x128, 5x5x1, both 1x1 layers on their input and
the first layer's output together.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn


class L4(nn.Module):
    """Four convolutions with ReLU between them, added to the image. 72,097 parameters.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped.
    Every layer sees its input with the border pixels repeated (chosen here).
    """

    layer_names: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")
    receptive_field: ClassVar[int] = 19
    multiple: ClassVar[int] = 1

    def __init__(self) -> None:
        """Create the layers; see `_centred` for their weights."""
        super().__init__()
        self.layer1 = _layer(1, 48, 11)
        self.layer2 = _layer(48, 64, 3)
        self.layer3 = _layer(64, 64, 3)
        self.layer4 = _centred(64, 1, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W)."""
        return x + self.layer4(self.layer3(self.layer2(self.layer1(x))))


class L8(nn.Module):
    """Eight convolutions with ReLU between them, added to the image. 220,545 parameters.

    The first layer's output is seen again by the fifth and the seventh layer. Input, output and
    borders as in L4.
    """

    layer_names: ClassVar[tuple[str, ...]] = tuple(f"layer{i}" for i in range(1, 9))
    receptive_field: ClassVar[int] = 25
    multiple: ClassVar[int] = 1

    def __init__(self) -> None:
        """Create the layers; see `_centred` for their weights."""
        super().__init__()
        self.layer1 = _layer(1, 32, 11)
        self.layer2 = _layer(32, 64, 3)
        self.layer3 = _layer(64, 64, 3)
        self.layer4 = _layer(64, 64, 3)
        self.layer5 = _layer(64 + 32, 64, 1)
        self.layer6 = _layer(64, 64, 5)
        self.layer7 = _layer(64 + 32, 128, 1)
        self.layer8 = _centred(128, 1, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W)."""
        first = self.layer1(x)
        features = self.layer4(self.layer3(self.layer2(first)))
        features = self.layer6(self.layer5(torch.cat([features, first], dim=1)))
        return x + self.layer8(self.layer7(torch.cat([features, first], dim=1)))


def _layer(inputs: int, outputs: int, side: int) -> nn.Sequential:
    return nn.Sequential(_centred(inputs, outputs, side), nn.ReLU())


def _centred(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    """Return a convolution whose every filter sums to zero, the paper's symmetric initialisation.

    Chosen here: drawn by Xavier's uniform rule, of variance 1 / inputs a filter as in Caffe, before
    the mean is taken off; biases are zero.
    """
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, padding_mode="replicate")
    bound = (3 / (inputs * side**2)) ** 0.5
    nn.init.uniform_(conv.weight, -bound, bound)
    with torch.no_grad():
        conv.weight -= conv.weight.mean(dim=(1, 2, 3), keepdim=True)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
