"""Networks for tests: every architecture, small where it can be, with every layer awake."""

import torch
from torch import Tensor, nn

from models import build_model, needs_table
from pipeline.images.jpeg import quantization_table

SMALL = {
    "dcrn": {"g": 4, "blocks": 2},
    "ddcn": {"layers": 3},
    "dmcnn": {"width": 8},
    "idcn": {"blocks": 1},
    "memnet": {"blocks": 2, "recursions": 2, "channels": 16},
    "rdn": {"blocks": 2, "layers": 2, "growth": 16},
    "tnrd": {"stages": 2, "gaussians": 15},
    "unet": {"widths": (8, 12, 16), "down": (1, 1, 1), "up": (1, 1)},
}
"""Options under which an architecture keeps its structure and takes a fraction of the time."""


def awake(name: str) -> nn.Module:
    """Return a small network in eval mode; weights that start at or near zero are drawn anew."""
    torch.manual_seed(0)
    network = build_model(name, SMALL.get(name)).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter.std() < 0.005:
            nn.init.kaiming_normal_(parameter)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    return network


def table_of(network: nn.Module, batch: int, qf: int = 10) -> tuple[Tensor, ...]:
    """Return what a network is given behind the image: (batch, 8, 8) tables, or nothing."""
    if not needs_table(network):
        return ()
    return (torch.from_numpy(quantization_table(qf)).float().expand(batch, -1, -1),)
