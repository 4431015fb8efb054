"""The networks: one file a paper, and the one place that knows them all by name."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from models.arcnn import ARCNN, DeepARCNN, DeepARCNN1x1
from models.cascnn import CASCNN
from models.dcrn import DCRN
from models.ddcn import DDCN
from models.dmcnn import DMCNN
from models.dncnn import DnCNN
from models.idcn import IDCN
from models.memnet import MemNet
from models.quickres import QuickRes
from models.rdn import RDN
from models.srcnn import SRCNN, DeepSRCNN
from models.svoboda import L4, L8
from models.tnrd import TNRD
from models.transfer import layer_names, transfer_layers
from models.unet import UNet

__all__ = ["ARCHITECTURES", "build_model", "layer_names", "needs_table", "transfer_layers"]

ARCHITECTURES: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "arcnn": ARCNN,
        "arcnn-deep": DeepARCNN,
        "arcnn-deep-1x1": DeepARCNN1x1,
        "cascnn": CASCNN,
        "dcrn": DCRN,
        "ddcn": DDCN,
        "dmcnn": DMCNN,
        "dncnn": DnCNN,
        "idcn": IDCN,
        "l4": L4,
        "l8": L8,
        "memnet": MemNet,
        "quickres": QuickRes,
        "rdn": RDN,
        "srcnn": SRCNN,
        "srcnn-deep": DeepSRCNN,
        "tnrd": TNRD,
        "unet": UNet,
    }
)
"""Every network maps (N, 1, H, W) float in [0, 1], H and W at least 8, to the same shape,
unclipped, and declares:

- `layer_names`: its child modules from input to output; together they hold every parameter;
- `receptive_field`: the side in pixels of a square around a pixel that holds all it depends on;
- `multiple`: pixels; a tile must start at a multiple of it to be restored as in the whole image;
- `needs_table`: True if its second input is the JPEG's quantisation table: (N, 8, 8), one an image,
  rows of rising vertical frequency, 1 to 255 in units of a pixel's 0 to 255;
- `pooled_features(x)`, (N, C, H, W), if it uses the mean of these features over the whole image;
  its second input, `pooled` (N, C, 1, 1), then stands in for that mean.

In training mode it may give a tuple that begins with the image: what its loss needs besides.
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


def needs_table(network: nn.Module) -> bool:
    """Return whether the network's second input is the JPEG's quantisation table."""
    return bool(getattr(network, "needs_table", False))
