"""Training losses: functions of what a network gives and the original patches."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional as F

Outputs = Tensor | tuple[Tensor, ...]
"""What a network gives in training: the image (N, 1, H, W), or a tuple that begins with it."""
Loss = Callable[[Outputs, Tensor], Tensor]

LOG_MSE_FLOOR = 1e-6
DMCNN_WEIGHTS = (1.0, 0.618, 0.382, 0.9)  # full, half and quarter size, output of the DCT branch


def mse(outputs: Outputs, target: Tensor) -> Tensor:
    """Return the mean squared error of the image over all pixels, a scalar.

    Image and target are (N, 1, H, W) in [0, 1]. Raises ValueError when their shapes differ.
    """
    return F.mse_loss(_same_shape(image_of(outputs), target), target)


def log_mse(outputs: Outputs, target: Tensor) -> Tensor:
    """Return the mean over the images of log(MSE + 1e-6), a scalar; see `mse`.

    It is the mean PSNR, 10 / log(10) times it, taken the other way round, so that every image
    counts alike whatever its quality factor and its detail; the 1e-6 stands for 60 dB, above which
    nothing is to be gained.
    """
    image = _same_shape(image_of(outputs), target)
    return ((image - target).square().mean((1, 2, 3)) + LOG_MSE_FLOOR).log().mean()


def l1(outputs: Outputs, target: Tensor) -> Tensor:
    """Return the mean absolute error of the image over all pixels, a scalar; see `mse`."""
    return F.l1_loss(_same_shape(image_of(outputs), target), target)


def centre_mse(outputs: Outputs, target: Tensor) -> Tensor:
    """Return the mean squared error over the centre of `target` that the image covers, a scalar.

    The image is (N, 1, h, w), `target` (N, 1, H, W) with h <= H, w <= W and even differences, both
    in [0, 1]. AR-CNN (Dong et al. 2015) compares the 20x20 centre of 32x32 patches. Raises
    ValueError when the image has no place in the middle of the target.
    """
    image = image_of(outputs)
    top, odd_rows = divmod(target.shape[-2] - image.shape[-2], 2)
    left, odd_columns = divmod(target.shape[-1] - image.shape[-1], 2)
    if top < 0 or left < 0 or odd_rows or odd_columns:
        raise ValueError(
            f"output {tuple(image.shape)} cannot be centred in target {tuple(target.shape)}: "
            "the target must be larger by an even number of pixels"
        )
    rows = slice(top, top + image.shape[-2])
    columns = slice(left, left + image.shape[-1])
    return mse(image, target[..., rows, columns])


def multi_scale_mse(outputs: Outputs, target: Tensor) -> Tensor:
    """Return the mean of the mean squared errors at every scale that the network gives, a scalar.

    `outputs` are of full, 1/2, 1/4 ... size; the targets are means of 2x2, 4x4 ... blocks (CAS-CNN,
    Cavigelli et al. 2016). Raises ValueError when a shape is not that of its target.
    """
    scales = outputs if isinstance(outputs, tuple) else (outputs,)
    errors = [mse(output, block_means(target, level)) for level, output in enumerate(scales)]
    return sum(errors[1:], errors[0]) / len(errors)


def dual_domain(outputs: Outputs, target: Tensor) -> Tensor:
    """Return DMCNN's loss (Zhang et al. 2018), a scalar.

    `outputs` are the image, its half and its quarter, and what the DCT branch gives; their mean
    squared errors are weighted by 1, .618, .382 and .9. Raises ValueError for other outputs.
    """
    if not isinstance(outputs, tuple) or len(outputs) != len(DMCNN_WEIGHTS):
        raise ValueError(
            "the loss 'dual_domain' is for networks that give image, half, quarter and DCT branch: "
            "use 'mse' for others"
        )
    targets = (target, block_means(target, 1), block_means(target, 2), target)
    errors = [
        weight * mse(output, wanted)
        for weight, output, wanted in zip(DMCNN_WEIGHTS, outputs, targets, strict=True)
    ]
    return sum(errors[1:], errors[0])


def image_of(outputs: Outputs) -> Tensor:
    """Return the restored image, (N, 1, H, W), among what a network gives in training."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def block_means(images: Tensor, level: int) -> Tensor:
    """Return the means of blocks of `2**level` x `2**level` pixels: (N, 1, H, W) -> smaller."""
    return F.avg_pool2d(images, 2**level) if level else images


def _same_shape(image: Tensor, target: Tensor) -> Tensor:
    if image.shape != target.shape:
        raise ValueError(
            f"output {tuple(image.shape)} and target {tuple(target.shape)} differ in shape: "
            "use the loss 'centre_mse' for a network that shrinks its input"
        )
    return image


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "mse": mse,
        "log_mse": log_mse,
        "centre_mse": centre_mse,
        "l1": l1,
        "multi_scale_mse": multi_scale_mse,
        "dual_domain": dual_domain,
    }
)
