"""Which pixels a network's output depends on, measured by the gradient.

Networks map (N, 1, H, W) to the same shape. They are measured as copies in eval mode and left as
they are.
"""

import copy

import torch
from torch import Tensor, nn

from models import needs_table

STRIP = 8
"""Pixels across the strips on which dependence is measured: the least that networks take."""


def receptive_field(network: nn.Module) -> int:
    """Return the side in pixels of the square around a pixel that holds all it depends on.

    Measured: the gradient of output pixels, over all places in a cell of `network.multiple`, on
    strips across and along the image. Weights are redrawn so that none is zero, and behind every
    convolution the gradient is set to 1 where it is not 0, so that it cannot fade on the way. The
    side is 2r + 1 for the farthest pixel r. A mean over the whole image (`pooled_features`) is held
    fixed, so that it does not count.
    """
    reach = max(
        max(unit - first, last - unit)
        for axis in (2, 3)
        for unit, first, last in dependence(network, axis)
    )
    return 2 * reach + 1


def table_for(network: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Return the inputs that a network needs behind the image: (N, 8, 8) of 255s, or nothing.

    255s are the widest intervals: a network that clamps to them shows all that it can depend on.
    """
    return (x.new_full((x.shape[0], 8, 8), 255.0),) if needs_table(network) else ()


def dependence(network: nn.Module, axis: int) -> list[tuple[int, int, int]]:
    """Return (unit, first, last) along an axis of images, for each unit of a cell in the middle.

    `unit` is a place in the output, which may be smaller, the others are the ends of what it
    depends on in the input.
    """
    probe = _redrawn(network)
    cell = getattr(network, "multiple", 1)
    length = _round_up(getattr(network, "receptive_field", 64) + 4 * cell, 2 * cell)
    while True:
        source, output = _run_strip(probe, axis, length)
        step = source.shape[axis] // output.shape[axis]
        units = [output.shape[axis] // 2 + unit for unit in range(max(1, cell // step))]
        found = [(unit, *_ends(output.select(axis, unit), source, axis)) for unit in units]
        if all(start > 0 and stop < source.shape[axis] - 1 for _, start, stop in found):
            return found
        length *= 2


def _run_strip(network: nn.Module, axis: int, length: int) -> tuple[Tensor, Tensor]:
    """Return input and output on a strip `length` pixels long."""
    across = _round_up(STRIP, getattr(network, "multiple", 1))
    shape = (1, 1, length, across) if axis == 2 else (1, 1, across, length)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return x, network(x, *_beside(network, x))


def _beside(network: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Return the inputs behind the image: a table, or the mean that is held fixed."""
    pooled_features = getattr(network, "pooled_features", None)
    if pooled_features is None:
        return table_for(network, x)
    with torch.no_grad():
        return (pooled_features(x).mean((2, 3), keepdim=True),)


def _ends(output: Tensor, source: Tensor, axis: int) -> tuple[int, int]:
    (gradient,) = torch.autograd.grad(output.sum(), source, retain_graph=True)
    others = [dimension for dimension in range(4) if dimension != axis]
    touched = gradient.abs().sum(others).nonzero()
    return int(touched.min()), int(touched.max())


def _redrawn(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode with Gaussian weights, whose gradients are 0 or 1 at every layer.

    They are set so behind each convolution module: backwards, a layer's gradient is what its
    weights make of ones, and with Gaussian weights that is 0 only where no path leads.
    """
    probe = copy.deepcopy(network).float().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in probe.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    for module in probe.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(_marked)
    return probe


def _marked(_: nn.Module, __: object, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: (gradient != 0).to(gradient.dtype))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
