"""AR-CNN: Dong et al., "Compression Artifacts Reduction by a Deep Convolutional Network" (2015).

Shapes: N images, H x W pixels. Layers 9x9x64, 7x7x32, 1x1x16, 5x5x1.
"""

from typing import ClassVar, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

Init = Literal["paper", "he"]


class ARCNN(nn.Module):
    """Four convolutions with ReLU between them that give the image itself, no residual.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped.
    Every layer sees its input with the border pixels repeated, as in the authors' test code.
    106,561 parameters.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3", "conv4")
    receptive_field: ClassVar[int] = 19
    multiple: ClassVar[int] = 1

    def __init__(self, *, shrink_in_training: bool = False, init: Init = "paper") -> None:
        """Create the layers.

        Args:
            shrink_in_training: in training mode only the second layer is padded (by 3 zeros), so
                that 32x32 becomes the 20x20 centre of the paper's loss.
            init: `paper` draws weights from a Gaussian of standard deviation 0.001, `he` from He
                et al. (2015), which leaves the first plateau sooner. Biases are zero in both.
        """
        super().__init__()
        if init not in get_args(Init):
            raise ValueError(f"init {init!r}: choose one of {list(get_args(Init))}")
        self.shrink_in_training = shrink_in_training
        self.conv1 = nn.Conv2d(1, 64, 9)
        self.conv2 = nn.Conv2d(64, 32, 7)
        self.conv3 = nn.Conv2d(32, 16, 1)
        self.conv4 = nn.Conv2d(16, 1, 5)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            if init == "paper":
                nn.init.normal_(conv.weight, std=0.001)
            else:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(_bias(conv))

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W), or 12 less a side when it shrinks."""
        if self.training and self.shrink_in_training:
            x = F.relu(self.conv1(x))
            x = F.relu(self.conv2(F.pad(x, (3, 3, 3, 3))))
            x = F.relu(self.conv3(x))
            return self.conv4(x)
        x = F.relu(self.conv1(_replicate(x, 4)))
        x = F.relu(self.conv2(_replicate(x, 3)))
        x = F.relu(self.conv3(x))
        return self.conv4(_replicate(x, 2))


def _replicate(x: Tensor, pixels: int) -> Tensor:
    return F.pad(x, (pixels,) * 4, mode="replicate")


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
