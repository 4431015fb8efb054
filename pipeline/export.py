"""From a network to what the registry keeps: a program of any batch, height and width."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

MIN_SIDE = 8
EXAMPLE_SHAPE = (2, 1, 32, 40)  # a batch of 1 or a square would tie dimensions down


class ClippedNetwork(nn.Module):
    """A network whose output is clipped to [0, 1]: (N, 1, H, W) -> (N, 1, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`, (N, 1, H, W) float32 in [0, 1], to the same shape and range."""
        return self.network(x).clamp(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class NetworkExport:
    """A trained network as the registry takes it, free of this project's classes."""

    module: nn.Module
    """On the CPU, in eval mode, float32, output clipped to [0, 1]; a copy of the network."""
    input_example: np.ndarray
    """(2, 1, 32, 40) float32 in [0, 1]."""
    program: ExportedProgram
    """The same computation for any batch of 1 or more and sides of 8 or more."""


def export_network(network: nn.Module) -> NetworkExport:
    """Export a network that maps (N, 1, H, W) in [0, 1] to the same shape, any H and W from 8.

    `network` itself is left as it is: device, mode and weights. Raises torch.export's error, which
    names the line, when the network ties its input to one size.
    """
    module = ClippedNetwork(copy.deepcopy(network)).cpu().float().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    example = np.random.default_rng(0).random(EXAMPLE_SHAPE, dtype=np.float32)
    sizes = {
        0: Dim("batch", min=1),
        2: Dim("height", min=MIN_SIDE),
        3: Dim("width", min=MIN_SIDE),
    }
    with torch.no_grad():
        program = torch.export.export(
            module, (torch.from_numpy(example),), dynamic_shapes={"x": sizes}
        )
    return NetworkExport(module=module, input_example=example, program=program)
