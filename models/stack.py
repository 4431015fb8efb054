"""Plain stacks of convolutions with ReLU between them: what AR-CNN and SRCNN have in common."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

Init = Literal["paper", "he"]


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
    x: Tensor, convs: Sequence[nn.Conv2d], activation: nn.Module, *, shrink: bool
) -> Tensor:
    """Return the stack's output of the input's size, or its unpadded centre with `shrink`."""
    run = _run_centre if shrink else _run_same
    return run(x, convs, activation)


def _run_same(x: Tensor, convs: Sequence[nn.Conv2d], activation: nn.Module) -> Tensor:
    """Return the stack's output of the input's size: every layer sees the border pixels repeated.

    (N, C, H, W) -> (N, C', H, W). The activation follows every layer but the last.
    """
    for conv in convs[:-1]:
        x = activation(conv(_replicate(x, conv.kernel_size[0] // 2)))
    return convs[-1](_replicate(x, convs[-1].kernel_size[0] // 2))


def _run_centre(x: Tensor, convs: Sequence[nn.Conv2d], activation: nn.Module) -> Tensor:
    """Return the stack's output where only the layers between first and last are padded, by zeros.

    9x9 first and 5x5 last give (N, C, H, W) -> (N, C', H - 12, W - 12): 20x20 of 32x32.
    """
    x = activation(convs[0](x))
    for conv in convs[1:-1]:
        x = activation(conv(F.pad(x, (conv.kernel_size[0] // 2,) * 4)))
    return convs[-1](x)


def _replicate(x: Tensor, pixels: int) -> Tensor:
    return F.pad(x, (pixels,) * 4, mode="replicate")
