"""From a network to what the registry keeps: a program of any batch, height and width."""

import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models import needs_table
from pipeline.networks.restorer import Pooling
from pipeline.served import model
from pipeline.served.facts import ProgramFacts
from storage.registry.consumer_files import ServedCode

MIN_SIDE = 8
EXAMPLE_SHAPE = (2, 1, 32, 40)  # a batch of 1 or a square would tie dimensions down


class ClippedNetwork(nn.Module):
    """A network whose output is clipped to [0, 1]: (N, 1, H, W) -> (N, 1, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, table: Tensor | None = None) -> Tensor:
        """Restore `x`, (N, 1, H, W) float32 in [0, 1], to the same shape and range.

        `table`, (N, 8, 8) float32 of 1 to 255, is for networks that need it.
        """
        inputs = (x,) if table is None else (x, table)
        return self.network(*inputs).clamp(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class NetworkExport:
    """A trained network as the registry takes it, free of this project's classes."""

    module: nn.Module
    """On the CPU, in eval mode, float32, output clipped to [0, 1]; a copy of the network."""
    input_example: tuple[np.ndarray, ...]
    """(2, 1, 32, 40) float32 in [0, 1] and, for a network that needs them, tables (2, 8, 8)."""
    facts: ProgramFacts
    """What the program no longer says of itself."""

    @cached_property
    def program(self) -> ExportedProgram:
        """The same computation for any batch of 1 or more and sides of 8 or more.

        Raises torch.export's error, which names the line, when the network ties its input to one
        size.
        """
        batch, height = Dim("batch", min=1), Dim("height", min=MIN_SIDE)
        sizes = ({0: batch, 2: height, 3: Dim("width", min=MIN_SIDE)}, {0: batch})
        example = tuple(map(torch.from_numpy, self.input_example))
        with torch.no_grad():
            return torch.export.export(self.module, example, dynamic_shapes=sizes[: len(example)])

    @property
    def served(self) -> ServedCode:
        """The code that travels with the program: see pipeline/served/model.py."""
        package = Path(model.__file__).parent
        loader = model.__name__.rpartition(".")[2]
        return ServedCode(
            package=package, loader=loader, facts_file=model.FACTS, facts=asdict(self.facts)
        )


def export_network(network: nn.Module, default_table: np.ndarray | None = None) -> NetworkExport:
    """Export a network that maps (N, 1, H, W) in [0, 1] to the same shape, any H and W from 8.

    One that needs the quantisation table becomes a program of two inputs, the image and the table;
    `default_table`, (8, 8) with values 1 to 255, is what it is served with where a caller gives
    none, and others ignore it. `network` itself is left as it is: device, mode and weights. Raises
    ValueError for a table of other values.
    """
    facts = _facts_of(network, default_table)
    module = ClippedNetwork(copy.deepcopy(network)).cpu().float().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    example = (np.random.default_rng(0).random(EXAMPLE_SHAPE, dtype=np.float32),)
    if facts.needs_table:
        example = (*example, np.full((len(example[0]), 8, 8), 16, np.float32))
    return NetworkExport(module=module, input_example=example, facts=facts)


def _facts_of(network: nn.Module, table: np.ndarray | None) -> ProgramFacts:
    with_table = needs_table(network)
    if not with_table:
        table = None
    elif table is not None and (table.shape != (8, 8) or table.min() < 1 or table.max() > 255):
        name = type(network).__name__
        raise ValueError(f"{name}: table of shape {table.shape}; give (8, 8), values 1 to 255")
    field, multiple = (getattr(network, name, None) for name in ("receptive_field", "multiple"))
    alone = isinstance(field, int) and not isinstance(network, Pooling)
    return ProgramFacts(
        receptive_field=field if alone else None,
        multiple=multiple if isinstance(multiple, int) else 1,
        needs_table=with_table,
        default_table=None if table is None else table.tolist(),
    )
