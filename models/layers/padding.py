"""Padding and cropping for any height and width that survive torch.export unchanged.

`F.pad` with a size that depends on H and W, and cropping by slices, export with a guard on the
shape and then fail at other sizes. Selecting rows and columns by index does not.
"""

import torch
from torch import Tensor


def replicate_to_multiple(x: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Repeat the last row and column until both sides are multiples of `multiple`.

    (N, C, H, W) -> (N, C, ceil(H / multiple) * multiple, ceil(W / multiple) * multiple); each side
    gets `least` multiples at least. With 2, a network that works on the multiples never has a
    single one, which torch.export would take for a special case.
    """
    for axis in (-2, -1):
        size = x.shape[axis]
        padded = multiple * torch.sym_max((size + multiple - 1) // multiple, least)
        index = torch.arange(padded, device=x.device).clamp(max=size - 1)
        x = x.index_select(axis, index)
    return x


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Return the top left part: (N, C, H, W) -> (N, C, height, width)."""
    x = x.index_select(-2, torch.arange(height, device=x.device))
    return x.index_select(-1, torch.arange(width, device=x.device))
