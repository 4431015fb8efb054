"""The networks: one file a paper, and the one place that knows them all by name."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from models.arcnn import ARCNN
from models.quickres import QuickRes
from models.transfer import layer_names, transfer_layers

__all__ = ["ARCHITECTURES", "build_model", "layer_names", "transfer_layers"]

ARCHITECTURES: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"arcnn": ARCNN, "quickres": QuickRes}
)
"""Every network maps (N, 1, H, W) float in [0, 1], H and W at least 8, to the same shape,
unclipped, and declares:

- `layer_names`: its child modules from input to output; together they hold every parameter;
- `receptive_field`: the side in pixels of a square around a pixel that holds all it depends on;
- `multiple`: pixels; a tile must start at a multiple of it to be restored as in the whole image.
"""


def build_model(name: str, options: Mapping[str, object] | None = None) -> nn.Module:
    """Return a freshly initialised network, drawn from torch's default generator.

    `options` are the keyword arguments of its constructor. Raises ValueError that lists the known
    names, or the options that the network has.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}: choose one of {sorted(ARCHITECTURES)}")
    options = dict(options or {})
    known = inspect.signature(ARCHITECTURES[name]).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"network {name!r} has no option {unknown}: choose from {sorted(known)}")
    return ARCHITECTURES[name](**options)
