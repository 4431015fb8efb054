"""RDN: Zhang et al., "Residual Dense Network for Image Restoration" (2018, arXiv 1812.10477).

Shapes: N images, H x W pixels. D residual dense blocks of C dense layers with G new features each;
the features between blocks are also G wide (the paper's G0 = G = 64).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RDN(nn.Module):
    """Two shallow convolutions, D residual dense blocks, global fusion, added to the image.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped. All
    convolutions are 3x3 with zero padding and bias, fusions 1x1. D 16, C 8, G 64 give 21,973,377
    parameters (section 3 and Fig. 2).

    The paper does not say how weights start. Chosen here: He et al. (2015) for the layers followed
    by a ReLU, variance 1 / fan-in for the others, and zero for the last, so that a fresh network
    returns its input.
    """

    multiple: ClassVar[int] = 1

    def __init__(self, *, blocks: int = 16, layers: int = 8, growth: int = 64) -> None:
        """Create the layers.

        Args:
            blocks: D, residual dense blocks, 1 or more.
            layers: C, dense layers of a block, 1 or more.
            growth: G, new features of a dense layer, and features between blocks, 1 or more.
        """
        super().__init__()
        for name, value in (("blocks", blocks), ("layers", layers), ("growth", growth)):
            if value < 1:
                raise ValueError(f"{name} {value}: choose 1 or more")
        numbered = (f"blocks.{number}" for number in range(blocks))
        self.layer_names = ("shallow1", "shallow2", *numbered, "fusion", "output")
        self.receptive_field = 2 * (blocks * layers + 4) + 1
        self.shallow1 = _linear_conv(1, growth, 3)
        self.shallow2 = _linear_conv(growth, growth, 3)
        self.blocks = nn.ModuleList(ResidualDenseBlock(layers, growth) for _ in range(blocks))
        self.fusion = nn.Sequential(
            _linear_conv(blocks * growth, growth, 1), _linear_conv(growth, growth, 3)
        )
        self.output = _linear_conv(growth, 1, 3)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W)."""
        shallow = self.shallow1(x)
        features = self.shallow2(shallow)
        found = []
        for block in self.blocks:
            features = block(features)
            found.append(features)
        return x + self.output(shallow + self.fusion(torch.cat(found, 1)))


class ResidualDenseBlock(nn.Module):
    """C dense layers, a 1x1 fusion of all they give, and a skip: (N, G, H, W) to the same."""

    def __init__(self, layers: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(
            *(DenseLayer((layer + 1) * growth, growth) for layer in range(layers))
        )
        self.fusion = _linear_conv((layers + 1) * growth, growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features, (N, G, H, W)."""
        return x + self.fusion(self.dense(x))


class DenseLayer(nn.Module):
    """A 3x3 convolution and a ReLU, behind its input: (N, C, H, W) -> (N, C + G, H, W)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with the new features behind it."""
        return torch.cat([x, F.relu(self.conv(x))], 1)


def _linear_conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    """Return a convolution that keeps the shape and, on average, the size of its input."""
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
