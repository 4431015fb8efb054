"""DCRN: Lee et al., "... Densely Cascading Image Restoration Network" (Applied Sciences 2021).

Shapes: N images, H x W pixels, 64 features, g channels that a dense layer adds. The paper's F0 is
what the input layer gives, F1 to F3 what the DC blocks give, F5 their fusion, F6 what channel
attention makes of it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

FEATURES = 64
NARROW = 32  # channels in front of a block's dense layers

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"prelu": nn.PReLU, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
)
"""The activations that the paper compares; LeakyReLU has torch's slope of 0.01 (chosen here)."""


class DCRN(nn.Module):
    """Densely cascading blocks, their fusion, channel attention, and an output layer.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped, no
    residual on the image. Layers are padded by zeros. Channel attention depends on the whole image
    through one mean a feature; `receptive_field` is that of everything else. 479,996 parameters;
    316,556, 365,852, 770,492 and 1,600,316 with g of 4, 8, 32 and 64.
    """

    multiple: ClassVar[int] = 1

    def __init__(
        self,
        *,
        g: int = 16,
        blocks: int = 3,
        dense_layers: int = 5,
        activation: str = "prelu",
        skip: bool = True,
        attention: bool = True,
    ) -> None:
        """Create the layers; Xavier's uniform rule for the weights, zero biases.

        Args:
            g: channels that each dense layer adds.
            blocks: DC blocks, 1 or more.
            dense_layers: dense layers in a block, 1 or more; the last gives 64 channels and adds
                none.
            activation: a name in ACTIVATIONS, for every layer but the last, whose PReLU stays: a
                ReLU there can start with a black image that never changes (chosen here).
            skip: whether F0 is added to the features in front of the output layer.
            attention: whether channel attention weighs the fused features.
        """
        super().__init__()
        for name, value in (("g", g), ("blocks", blocks), ("dense_layers", dense_layers)):
            if value < 1:
                raise ValueError(f"{name} {value}: choose 1 or more")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r}: choose one of {sorted(ACTIVATIONS)}")
        act = ACTIVATIONS[activation]
        block_names = tuple(f"block{i}" for i in range(1, blocks + 1))
        self.block_names = block_names
        self.skip = skip
        self.receptive_field = 2 * (blocks * (dense_layers + 2) + 2) + 1
        self.input = nn.Sequential(*_layer(1, FEATURES, 3, act))
        for name in block_names:
            self.add_module(name, _DCBlock(g, dense_layers, act))
        self.fusion = nn.Sequential(*_layer(FEATURES * (blocks + 1), FEATURES, 1, act))
        self.attention = _ChannelAttention() if attention else None
        self.output = nn.Sequential(*_layer(FEATURES, 1, 3, nn.PReLU))
        middle = ("fusion", "attention") if attention else ("fusion",)
        self.layer_names = ("input", *block_names, *middle, "output")

    def forward(self, x: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W).

        `pooled`, (N, 64, 1, 1), takes the place of the mean of `pooled_features(x)` over the image.
        """
        first = self.input(x)
        features = self._fused(first)
        if self.attention is not None:
            features = self.attention(features, pooled)
        return self.output(first + features if self.skip else features)

    def pooled_features(self, x: Tensor) -> Tensor:
        """Return the features whose mean channel attention uses, F5: (N, 1, H, W) -> (N, 64, H, W).

        For a large image: average them over all its tiles, then pass the mean as `pooled`.
        """
        return self._fused(self.input(x))

    def _fused(self, first: Tensor) -> Tensor:
        found = [first]
        for name in self.block_names:
            found.append(self.get_submodule(name)(found[-1]))
        return self.fusion(torch.cat(found[::-1], dim=1))


class _DCBlock(nn.Module):
    """(N, 64, H, W) -> (N, 64, H, W): two layers, dense layers, and a 1x1 bottleneck."""

    def __init__(self, g: int, dense_layers: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            *_layer(FEATURES, FEATURES, 3, act), *_layer(FEATURES, NARROW, 3, act)
        )
        growing = [_DenseLayer(NARROW + i * g, g, act) for i in range(dense_layers - 1)]
        self.dense = nn.Sequential(*growing)
        self.last = nn.Sequential(*_layer(NARROW + (dense_layers - 1) * g, FEATURES, 3, act))
        self.bottleneck = nn.Sequential(*_layer(2 * FEATURES, FEATURES, 1, act))

    def forward(self, x: Tensor) -> Tensor:
        last = self.last(self.dense(self.reduce(x)))
        return self.bottleneck(torch.cat([x, last], dim=1))


class _DenseLayer(nn.Module):
    """(N, C, H, W) -> (N, C + g, H, W): its input, and g new channels behind it."""

    def __init__(self, channels: int, g: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.new = nn.Sequential(*_layer(channels, g, 3, act))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


class _ChannelAttention(nn.Module):
    """(N, 64, H, W) -> the same shape, each channel times a weight between 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            *_layer(FEATURES, FEATURES, 1, nn.ReLU), *_layer(FEATURES, FEATURES, 1, nn.Sigmoid)
        )

    def forward(self, x: Tensor, pooled: Tensor | None = None) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True) if pooled is None else pooled
        return x * self.weights(mean)


def _layer(
    inputs: int, outputs: int, side: int, act: Callable[[], nn.Module]
) -> tuple[nn.Conv2d, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv, act()
