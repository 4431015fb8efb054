"""Training losses: functions of a network's output and the original patches."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional as F


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over all pixels, a scalar.

    Both are (N, 1, H, W) in [0, 1]. Raises ValueError when their shapes differ.
    """
    if output.shape != target.shape:
        raise ValueError(
            f"output {tuple(output.shape)} and target {tuple(target.shape)} differ in shape: "
            "use the loss 'centre_mse' for a network that shrinks its input"
        )
    return F.mse_loss(output, target)


def centre_mse(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over the centre of `target` that `output` covers, a scalar.

    `output` is (N, 1, h, w), `target` (N, 1, H, W) with h <= H, w <= W and even differences, both
    in [0, 1]. AR-CNN (Dong et al. 2015) compares the 20x20 centre of 32x32 patches. Raises
    ValueError when the output has no place in the middle of the target.
    """
    top, odd_rows = divmod(target.shape[-2] - output.shape[-2], 2)
    left, odd_columns = divmod(target.shape[-1] - output.shape[-1], 2)
    if top < 0 or left < 0 or odd_rows or odd_columns:
        raise ValueError(
            f"output {tuple(output.shape)} cannot be centred in target {tuple(target.shape)}: "
            "the target must be larger by an even number of pixels"
        )
    rows = slice(top, top + output.shape[-2])
    columns = slice(left, left + output.shape[-1])
    return mse(output, target[..., rows, columns])


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"mse": mse, "centre_mse": centre_mse}
)
