"""From a network to what the registry keeps: a program of any batch, height and width."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models import needs_table
from pipeline.tiles import Pooling

MIN_SIDE = 8
EXAMPLE_SHAPE = (2, 1, 32, 40)  # a batch of 1 or a square would tie dimensions down


class ClippedNetwork(nn.Module):
    """A network whose output is clipped to [0, 1]: (N, 1, H, W) -> (N, 1, H, W)."""

    table: Tensor

    def __init__(self, network: nn.Module, table: np.ndarray | None) -> None:
        """Take a network and, if it needs one, the (8, 8) table that it is always given."""
        super().__init__()
        self.network = network
        self.has_table = table is not None
        if table is not None:
            self.register_buffer("table", torch.from_numpy(table.astype(np.float32))[None])

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`, (N, 1, H, W) float32 in [0, 1], to the same shape and range."""
        if self.has_table:
            return self.network(x, self.table.expand(x.shape[0], -1, -1)).clamp(0.0, 1.0)
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
    tags: dict[str, str]
    """What the program no longer says of itself, as tags of a registered version: `receptive_field`
    and `multiple`, where the program alone can be tiled (one that pools over the image cannot)."""


def export_network(network: nn.Module, table: np.ndarray | None = None) -> NetworkExport:
    """Export a network that maps (N, 1, H, W) in [0, 1] to the same shape, any H and W from 8.

    `table`, (8, 8) with values 1 to 255, is the quantisation table that becomes a constant of the
    program of a network which needs one; others ignore it. `network` itself is left as it is:
    device, mode and weights. Raises ValueError when a table is missing, and torch.export's error,
    which names the line, when the network ties its input to one size.
    """
    module = ClippedNetwork(copy.deepcopy(network), _table_for(network, table))
    module = module.cpu().float().eval()
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
    return NetworkExport(
        module=module, input_example=example, program=program, tags=_tiling_tags(network)
    )


def _table_for(network: nn.Module, table: np.ndarray | None) -> np.ndarray | None:
    if not needs_table(network):
        return None
    name = type(network).__name__
    if table is None:
        raise ValueError(
            f"{name} needs the JPEG's quantisation table, and a registered model takes an image "
            "alone: export it for one quality factor, with pipeline.jpeg.quantization_table(QF)"
        )
    if table.shape != (8, 8) or table.min() < 1 or table.max() > 255:
        raise ValueError(f"{name}: table of shape {table.shape}; give (8, 8), values 1 to 255")
    return table


def _tiling_tags(network: nn.Module) -> dict[str, str]:
    """Return what `network_restorer` must be told to tile the exported program."""
    if isinstance(network, Pooling):
        return {}
    declared = {name: getattr(network, name, None) for name in ("receptive_field", "multiple")}
    return {name: str(value) for name, value in declared.items() if isinstance(value, int)}
