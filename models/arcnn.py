"""AR-CNN: Dong et al., "Compression Artifacts Reduction by a Deep Convolutional Network" (2015).

Shapes: N images, H x W pixels. Layers 9x9x64, 7x7x32, 1x1x16, 5x5x1; the deeper networks of its
section 4.2.1 have a 3x3x16 or a 1x1x16 layer between the second and the third.
"""

from typing import ClassVar

from torch import Tensor, nn

from models.layers.stack import Border, Init, check_border, initialise, run_stack


class ARCNN(nn.Module):
    """Four convolutions with ReLU between them that give the image itself, no residual.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped.
    Every layer sees its input with the border pixels repeated, as in the authors' test code, unless
    `border` says otherwise.
    106,561 parameters.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3", "conv4")
    receptive_field: ClassVar[int] = 19
    multiple: ClassVar[int] = 1

    def __init__(
        self,
        *,
        shrink_in_training: bool = False,
        init: Init = "paper",
        border: Border = "layers",
    ) -> None:
        """Create the layers.

        Args:
            shrink_in_training: in training mode only the second layer is padded (by 3 zeros), so
                that 32x32 becomes the 20x20 centre of the paper's loss.
            init: `paper` draws weights from a Gaussian of standard deviation 0.001, `he` from He
                et al. (2015), which leaves the first plateau sooner. Biases are zero in both.
            border: `image` repeats the border pixels of the image alone, by as much as all layers
                take: no layer then sees anything that a network trained by shrinking has not.
        """
        super().__init__()
        self.shrink_in_training = shrink_in_training
        self.border: Border = check_border(border)
        self.conv1 = nn.Conv2d(1, 64, 9)
        self.conv2 = nn.Conv2d(64, 32, 7)
        self.conv3 = nn.Conv2d(32, 16, 1)
        self.conv4 = nn.Conv2d(16, 1, 5)
        self.activation = nn.ReLU()
        initialise((self.conv1, self.conv2, self.conv3, self.conv4), init)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W), or 12 less a side when it shrinks."""
        shrink = self.training and self.shrink_in_training
        convs = (self.conv1, self.conv2, self.conv3, self.conv4)
        return run_stack(x, convs, self.activation, shrink=shrink, border=self.border)


class DeepARCNN(nn.Module):
    """AR-CNN with a fifth layer: the target of the paper's transfer from shallow to deep.

    As ARCNN in everything else; its first two layers are ARCNN's. 110,929 parameters.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3", "conv4", "conv5")
    receptive_field: ClassVar[int] = 21
    multiple: ClassVar[int] = 1

    def __init__(
        self,
        *,
        shrink_in_training: bool = False,
        init: Init = "paper",
        border: Border = "layers",
    ) -> None:
        """Create the layers.

        Args:
            shrink_in_training: in training mode only the second and third layers are padded (by 3
                zeros and 1), so that 32x32 becomes the 20x20 centre of the paper's loss.
            init: see ARCNN.
            border: see ARCNN.
        """
        super().__init__()
        self.shrink_in_training = shrink_in_training
        self.border: Border = check_border(border)
        self.conv1 = nn.Conv2d(1, 64, 9)
        self.conv2 = nn.Conv2d(64, 32, 7)
        self.conv3 = nn.Conv2d(32, 16, 3)
        self.conv4 = nn.Conv2d(16, 16, 1)
        self.conv5 = nn.Conv2d(16, 1, 5)
        self.activation = nn.ReLU()
        initialise((self.conv1, self.conv2, self.conv3, self.conv4, self.conv5), init)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W), or 12 less a side when it shrinks."""
        convs = (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5)
        shrink = self.training and self.shrink_in_training
        return run_stack(x, convs, self.activation, shrink=shrink, border=self.border)


class DeepARCNN1x1(nn.Module):
    """DeepARCNN with 1x1 for its 3x3 layer: the paper's 9-7-1-1-5, of "the same trend".

    As ARCNN in everything else. 106,833 parameters.
    """

    layer_names: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "conv3", "conv4", "conv5")
    receptive_field: ClassVar[int] = 19
    multiple: ClassVar[int] = 1

    def __init__(
        self,
        *,
        shrink_in_training: bool = False,
        init: Init = "paper",
        border: Border = "layers",
    ) -> None:
        """Create the layers; the options are those of ARCNN."""
        super().__init__()
        self.shrink_in_training = shrink_in_training
        self.border: Border = check_border(border)
        self.conv1 = nn.Conv2d(1, 64, 9)
        self.conv2 = nn.Conv2d(64, 32, 7)
        self.conv3 = nn.Conv2d(32, 16, 1)
        self.conv4 = nn.Conv2d(16, 16, 1)
        self.conv5 = nn.Conv2d(16, 1, 5)
        self.activation = nn.ReLU()
        initialise((self.conv1, self.conv2, self.conv3, self.conv4, self.conv5), init)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W), or 12 less a side when it shrinks."""
        convs = (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5)
        shrink = self.training and self.shrink_in_training
        return run_stack(x, convs, self.activation, shrink=shrink, border=self.border)
