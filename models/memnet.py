"""MemNet: Tai et al., "MemNet: A Persistent Memory Network for Image Restoration" (2017).

Shapes: N images, H x W pixels. M memory blocks, each with one residual unit that runs R times.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemNet(nn.Module):
    """M memory blocks whose gates choose from all that came before, added to the image.

    Input (N, 1, H, W) float in [0, 1], H and W at least 8; output the same shape, unclipped. Every
    layer is batch normalisation, ReLU, then a convolution with zero padding and bias; gates are
    1x1, the rest 3x3 (sections 3.1 and 3.2). M 6, R 6, 64 channels: 676,992 convolution weights,
    687,171 parameters. This is the paper's basic network; its multi-supervised one has an output a
    block. Initialised from He et al. (2015), biases zero, as the authors' training file says.

    Chosen here: the R runs of a unit share weights, scale and shift, but each has statistics of its
    own, as in the authors' file: the features grow from run to run, and one average for all would
    make evaluation differ from training.
    """

    multiple: ClassVar[int] = 1

    def __init__(self, *, blocks: int = 6, recursions: int = 6, channels: int = 64) -> None:
        """Create the layers.

        Args:
            blocks: M, memory blocks, 1 or more.
            recursions: R, runs of a block's residual unit, 1 or more.
            channels: features of every layer, 1 or more.
        """
        super().__init__()
        for name, value in (("blocks", blocks), ("recursions", recursions), ("channels", channels)):
            if value < 1:
                raise ValueError(f"{name} {value}: choose 1 or more")
        numbered = (f"memory.{number}" for number in range(blocks))
        self.layer_names = ("features", *numbered, "output")
        self.receptive_field = 2 * (2 * blocks * recursions + 2) + 1
        self.features = NormReluConv(1, channels, 3)
        self.memory = nn.ModuleList(
            MemoryBlock(memories, recursions, channels) for memories in range(1, blocks + 1)
        )
        self.output = NormReluConv(channels, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W)."""
        memories = [self.features(x)]
        for block in self.memory:
            memories.append(block(memories))
        return x + self.output(memories[-1])


class MemoryBlock(nn.Module):
    """A residual unit run R times (short-term memory), and a 1x1 gate over it and long-term memory.

    `memories` outputs of earlier blocks, each (N, C, H, W), go in; (N, C, H, W) comes out.
    """

    def __init__(self, memories: int, recursions: int, channels: int) -> None:
        super().__init__()
        self.recursions = recursions
        self.conv1 = NormReluConv(channels, channels, 3, runs=recursions)
        self.conv2 = NormReluConv(channels, channels, 3, runs=recursions)
        self.gate = NormReluConv((memories + recursions) * channels, channels, 1)

    def forward(self, memories: list[Tensor]) -> Tensor:
        """Return this block's memory, given those of all before it, oldest first."""
        state = memories[-1]
        short_term = []
        for run in range(self.recursions):
            state = state + self.conv2(self.conv1(state, run), run)
            short_term.append(state)
        return self.gate(torch.cat([*memories, *short_term], 1))


class NormReluConv(nn.Module):
    """Batch normalisation, ReLU, convolution: (N, C, H, W) -> (N, outputs, H, W).

    Used up to `runs` times in one pass, with the same weights and statistics of its own each time.
    """

    def __init__(self, inputs: int, outputs: int, side: int, runs: int = 1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(inputs))
        self.shift = nn.Parameter(torch.zeros(inputs))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(runs, inputs))
        self.register_buffer("variance", torch.ones(runs, inputs))
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, run: int = 0) -> Tensor:
        """Return the layer's output; `run` counts its uses in this pass from 0."""
        normalised = F.batch_norm(
            x, self.mean[run], self.variance[run], self.scale, self.shift, training=self.training
        )
        return self.conv(F.relu(normalised))
