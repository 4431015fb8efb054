"""Plain stacks of convolutions with ReLU between them: what AR-CNN and SRCNN have in common."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

Init = Literal["paper", "he"]
Border = Literal["layers", "image"]
"""Where border pixels are repeated: around the input of every layer, or around the image alone."""


def initialise(convs: Sequence[nn.Conv2d], init: Init) -> None:
    """Draw the weights and set the biases to zero.

    `paper` is a Gaussian of standard deviation 0.001 (Dong et al. 2015), `he` that of He et al.
    (2015), which leaves the first plateau sooner. Raises ValueError for anything else.
    """
    if init not in get_args(Init):
        raise ValueError(f"init {init!r}: choose one of {list(get_args(Init))}")
    for conv in convs:
        if init == "paper":
            nn.init.normal_(conv.weight, std=0.001)
        else:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)


def run_stack(
    x: Tensor,
    convs: Sequence[nn.Conv2d],
    activation: nn.Module,
    *,
    shrink: bool,
    border: Border = "layers",
) -> Tensor:
    """Return the stack's output of the input's size, or its unpadded centre with `shrink`."""
    if shrink:
        return _run_centre(x, convs, activation)
    return _run_same(x, convs, activation, border)


def check_border(border: Border) -> Border:
    """Return what was given. Raises ValueError for anything but a Border."""
    if border not in get_args(Border):
        raise ValueError(f"border {border!r}: choose one of {list(get_args(Border))}")
    return border


def _run_same(
    x: Tensor, convs: Sequence[nn.Conv2d], activation: nn.Module, border: Border
) -> Tensor:
    """Return the stack's output of the input's size, of repeated border pixels.

    (N, C, H, W) -> (N, C', H, W). The activation follows every layer but the last.
    """
    pads = [conv.kernel_size[0] // 2 for conv in convs]
    if border == "image":
        pads = [sum(pads), *[0] * (len(convs) - 1)]
    for conv, pad in zip(convs[:-1], pads[:-1], strict=True):
        x = activation(conv(_replicate(x, pad)))
    return convs[-1](_replicate(x, pads[-1]))


def _run_centre(x: Tensor, convs: Sequence[nn.Conv2d], activation: nn.Module) -> Tensor:
    """Return the stack's output where only the layers between first and last are padded, by zeros.

    9x9 first and 5x5 last give (N, C, H, W) -> (N, C', H - 12, W - 12): 20x20 of 32x32.
    """
    x = activation(convs[0](x))
    for conv in convs[1:-1]:
        x = activation(conv(F.pad(x, (conv.kernel_size[0] // 2,) * 4)))
    return convs[-1](x)


def _replicate(x: Tensor, pixels: int) -> Tensor:
    if not pixels:
        return x
    return F.pad(x, (pixels,) * 4, mode="replicate")
