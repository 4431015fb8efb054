"""DnCNN: Zhang et al., "Beyond a Gaussian Denoiser" (2017); the 20-layer DnCNN-3.

Shapes: N images, H x W pixels. Twenty 3x3 layers of 64 channels, batch normalisation in the middle
eighteen, and the result is taken off the image.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

WIDTH = 64
GAIN_STD = (2 / (9 * WIDTH)) ** 0.5
MIN_GAIN = 0.025


class DnCNN(nn.Module):
    """Twenty convolutions with ReLU between them that predict the error of the image.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped. Layers
    are padded by zeros. 667,008 parameters with batch normalisation and no biases, 665,921 with
    biases alone.
    """

    depth: ClassVar[int] = 20
    layer_names: ClassVar[tuple[str, ...]] = tuple(f"layer{i}" for i in range(1, 21))
    receptive_field: ClassVar[int] = 41
    multiple: ClassVar[int] = 1

    def __init__(self, *, batch_norm: bool = True) -> None:
        """Create the layers.

        Args:
            batch_norm: whether the middle layers normalise their batch, as the paper trains them;
                False gives every layer a bias instead, as `merged` returns it.

        Weights are drawn by the rule of He et al. (2015); the normalisation's gains are drawn from
        the same Gaussian and kept at least 0.025 away from zero, as in the authors' code.
        """
        super().__init__()
        self.batch_norm = batch_norm
        self.add_module("layer1", nn.Sequential(_conv(1, WIDTH, bias=not batch_norm), nn.ReLU()))
        for name in self.layer_names[1:-1]:
            conv = _conv(WIDTH, WIDTH, bias=not batch_norm)
            norm = (_normalisation(),) if batch_norm else ()
            self.add_module(name, nn.Sequential(conv, *norm, nn.ReLU()))
        self.add_module(self.layer_names[-1], _conv(WIDTH, 1, bias=not batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W)."""
        error = x
        for name in self.layer_names:
            error = self.get_submodule(name)(error)
        return x - error

    def merged(self) -> "DnCNN":
        """Return the network without batch normalisation that restores the same in eval mode.

        Each normalisation becomes part of the convolution before it, with the statistics that it
        holds now. The new network is on the same device, of the same type and mode.
        """
        first = next(self.parameters())
        network = DnCNN(batch_norm=False).to(first.device, first.dtype).train(self.training)
        with torch.no_grad():
            for name in self.layer_names:
                source = _convolution(self.get_submodule(name))
                target = _convolution(network.get_submodule(name))
                bias = torch.zeros_like(source.weight[:, 0, 0, 0])
                if source.bias is not None:
                    bias = source.bias
                scale, shift = _normalisation_of(self.get_submodule(name), bias)
                assert target.bias is not None
                target.weight.copy_(source.weight * scale[:, None, None, None])
                target.bias.copy_(bias * scale + shift)
        return network


def _normalisation_of(layer: nn.Module, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor and the addend of each channel, both (C,): y = factor * x + addend."""
    for part in layer.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            scale = part.weight / (part.running_var + part.eps).sqrt()
            return scale, part.bias - part.running_mean * scale
    return torch.ones_like(bias), torch.zeros_like(bias)


def _convolution(layer: nn.Module) -> nn.Conv2d:
    conv = layer[0] if isinstance(layer, nn.Sequential) else layer
    assert isinstance(conv, nn.Conv2d)
    return conv


def _conv(inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _normalisation() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(WIDTH)
    with torch.no_grad():
        gain = norm.weight.normal_(std=GAIN_STD)
        norm.weight.copy_(torch.where(gain < 0, -1.0, 1.0) * gain.abs().clamp(min=MIN_GAIN))
    return norm
