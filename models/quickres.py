"""Quickres: a small residual network that learns within a minute on two CPU cores.

It follows no paper; working at half resolution (Shi et al. 2016, pixel shuffle) makes it quick, a
residual output (Zhang et al. 2017, DnCNN) lets it start from the identity.
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.padding import crop, replicate_to_multiple


class QuickRes(nn.Module):
    """Five 3x3 convolutions on the 2x2 pixel-unshuffled image, added to the image.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped. Odd
    sides get one repeated row or column that is cropped again. A fresh network returns its input.
    With 48 channels it has 65,864 parameters.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4", "layer5")
    receptive_field: ClassVar[int] = 23  # 11 cells of 2x2: at most 11 pixels to either side
    multiple: ClassVar[int] = 2

    def __init__(self, *, channels: int = 48) -> None:
        """Create the layers, each of the first four `channels` wide and followed by a PReLU."""
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels {channels}: choose 1 or more")
        self.layer1 = _layer(4, channels)
        self.layer2 = _layer(channels, channels)
        self.layer3 = _layer(channels, channels)
        self.layer4 = _layer(channels, channels)
        self.layer5 = nn.Conv2d(channels, 4, 3, padding=1)
        for parameter in self.layer5.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W)."""
        height, width = x.shape[-2:]
        cells = F.pixel_unshuffle(replicate_to_multiple(x, 2), 2)
        features = self.layer4(self.layer3(self.layer2(self.layer1(cells))))
        residual = F.pixel_shuffle(self.layer5(features), 2)
        return x + crop(residual, height, width)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=0.25)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.PReLU())
