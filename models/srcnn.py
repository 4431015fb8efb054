"""SRCNN: Dong et al., "Learning a Deep Convolutional Network for Image Super-Resolution" (2014).

Trained on JPEG images it is what AR-CNN's paper (2015, sections 3.1 and 4.1.2) starts from and
compares with. Shapes: N images, H x W pixels. Layers 9x9x64, 1x1x32, 5x5x1; the deeper one
9x9x64, 1x1x32, 1x1x16, 5x5x1.
"""

from typing import ClassVar

from torch import Tensor, nn

from models.layers.stack import Init, initialise, run_stack


class SRCNN(nn.Module):
    """Three convolutions with ReLU between them that give the image itself, no residual.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped.
    Every layer sees its input with the border pixels repeated. 8,129 parameters.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3")
    receptive_field: ClassVar[int] = 13
    multiple: ClassVar[int] = 1

    def __init__(self, *, shrink_in_training: bool = False, init: Init = "paper") -> None:
        """Create the layers.

        Args:
            shrink_in_training: in training mode nothing is padded, so that 32x32 becomes the 20x20
                centre of the paper's loss.
            init: `paper` draws weights from a Gaussian of standard deviation 0.001, `he` from He
                et al. (2015). Biases are zero in both.
        """
        super().__init__()
        self.shrink_in_training = shrink_in_training
        self.conv1 = nn.Conv2d(1, 64, 9)
        self.conv2 = nn.Conv2d(64, 32, 1)
        self.conv3 = nn.Conv2d(32, 1, 5)
        self.activation = nn.ReLU()
        initialise((self.conv1, self.conv2, self.conv3), init)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W), or 12 less a side when it shrinks."""
        shrink = self.training and self.shrink_in_training
        return run_stack(x, (self.conv1, self.conv2, self.conv3), self.activation, shrink=shrink)


class DeepSRCNN(nn.Module):
    """SRCNN with a fourth layer, a second 1x1; as SRCNN in everything else. 8,257 parameters."""

    layer_names: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3", "conv4")
    receptive_field: ClassVar[int] = 13
    multiple: ClassVar[int] = 1

    def __init__(self, *, shrink_in_training: bool = False, init: Init = "paper") -> None:
        """Create the layers; the options are those of SRCNN."""
        super().__init__()
        self.shrink_in_training = shrink_in_training
        self.conv1 = nn.Conv2d(1, 64, 9)
        self.conv2 = nn.Conv2d(64, 32, 1)
        self.conv3 = nn.Conv2d(32, 16, 1)
        self.conv4 = nn.Conv2d(16, 1, 5)
        self.activation = nn.ReLU()
        initialise((self.conv1, self.conv2, self.conv3, self.conv4), init)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W), or 12 less a side when it shrinks."""
        shrink = self.training and self.shrink_in_training
        return run_stack(
            x, (self.conv1, self.conv2, self.conv3, self.conv4), self.activation, shrink=shrink
        )
