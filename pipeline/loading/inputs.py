"""From a loader's batch to what a network takes: on the device, in [0, 1], flipped and turned."""

import torch
from torch import Tensor

from pipeline.loading.device_pairs import make_pairs
from pipeline.loading.loader import Batch

Inputs = tuple[Tensor, ...]
"""A network's arguments: the degraded patches and, if it needs them, the quantisation tables."""


def to_network(
    batch: Batch, device: torch.device, *, with_tables: bool, transform: int = 0
) -> tuple[Inputs, Tensor]:
    """Return the network's inputs and the target.

    Patches become (N, 1, side, side) float32 in [0, 1], tables (N, 8, 8) float32 of 1 to 255.
    `transform`, 0 to 7, is applied to all of them; see `dihedral`. Pairs of a batch that has crops
    are made here.
    """
    tables = batch.tables.to(device, non_blocking=True)
    original, degraded = (
        dihedral(patches, transform).unsqueeze(1).float() / 255
        for patches in _pairs(batch, tables, device)
    )
    if not with_tables:
        return (degraded,), original
    return (degraded, turned_tables(tables, transform).float()), original


def _pairs(batch: Batch, tables: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    original = batch.original.to(device, non_blocking=True)
    if batch.crops is None:
        return original, batch.degraded.to(device, non_blocking=True)
    corner, side = (
        torch.from_numpy(numbers).to(device) for numbers in (batch.crops.corner, batch.crops.side)
    )
    return make_pairs(original, corner, side, tables, to=batch.side)


def dihedral(patches: Tensor, transform: int) -> Tensor:
    """Turn (N, side, side) patches by `transform % 4` quarters, and flip them if it is 4 to 7."""
    turned = torch.rot90(patches, transform % 4, (1, 2))
    return (turned.flip(2) if transform >= 4 else turned).contiguous()


def turned_tables(tables: Tensor, transform: int) -> Tensor:
    """Return the (N, 8, 8) tables of patches that were turned and flipped by `dihedral`.

    A quarter turn swaps rows and columns, and with them vertical and horizontal frequencies; a
    flip or a half turn only changes signs of coefficients.
    """
    return tables.transpose(1, 2) if transform % 2 else tables
