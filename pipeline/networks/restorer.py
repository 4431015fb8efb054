"""Apply a network to whole images of any size, in overlapping tiles where they are large.

A network that uses the mean of some features over the whole image (`pooled_features`) is given
that mean in a second pass over the tiles.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from models import needs_table
from pipeline.networks.devices import Precision, autocast, checked, lay_out
from pipeline.served.facts import ProgramFacts
from pipeline.served.tiles import TILE, Tiling, run_tiled, tiles, to_luma, to_unit

Restorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes luma, (H, W) uint8, and the quantisation table of the JPEG that it comes from, (8, 8) uint8
with rows of rising vertical frequency; returns luma of the same shape. H and W are 8 or more."""

_cudnn_settings = Lock()  # they are those of the whole process, and flows evaluate in threads


@runtime_checkable
class Pooling(Protocol):
    """A network that uses the mean of some of its features over the whole image."""

    def pooled_features(self, x: Tensor) -> Tensor:
        """Return these features, (N, 1, H, W) -> (N, C, H, W)."""
        ...

    def __call__(self, x: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Restore `x`, with `pooled`, (N, C, 1, 1), in place of their mean over `x`."""
        ...


def apply_tiled(
    network: Callable[..., Tensor], x: Tensor, tiling: Tiling, table: Tensor | None = None
) -> Tensor:
    """Return `network(x)`, or `network(x, table)`, for (N, 1, H, W), computed tile by tile.

    `table` is (N, 8, 8), for networks that need it. Equal to the whole image's result up to the
    rounding of floating point. Raises ValueError when the network does not keep the shape of its
    input.
    """
    beside = () if table is None else (table,)
    if isinstance(network, Pooling):
        beside = (*beside, _pooled_mean(network, x, tiling))
    return run_tiled(lambda part: _shape_kept(network, part, beside), x, tiling)


def tiling_of(module: nn.Module, side: int, facts: ProgramFacts | None = None) -> Tiling | None:
    """Return how a network may be tiled, as its facts or it itself declare it; None if not."""
    stated = module if facts is None else facts
    field, cell = getattr(stated, "receptive_field", None), getattr(stated, "multiple", 1)
    if not isinstance(field, int) or not isinstance(cell, int):
        return None
    return Tiling(side=side, receptive_field=field, multiple=cell)


def network_restorer(
    module: nn.Module,
    device: str | torch.device | None = None,
    *,
    precision: Precision = "float32",
    tile: int = TILE,
    facts: ProgramFacts | None = None,
) -> Restorer:
    """Return a function that restores luma images with `module`.

    Args:
        module: any network that takes (N, 1, H, W) float32 in [0, 1] and gives the same shape;
            one that declares `needs_table` takes the JPEG's quantisation table, (N, 8, 8) float32,
            behind it. It is used in evaluation mode and left in the mode it was in.
        device: where it computes, such as `cpu` or `cuda`; the module is moved there. None leaves
            it where it is.
        precision: what it computes in there, see `pipeline.networks.devices`; its weights stay
            float32.
        tile: side of the tiles in pixels; memory grows with its square.
        facts: of an exported program, which says nothing of itself; None asks the module for its
            `receptive_field`, `multiple` and `needs_table`. Where no receptive field is known, an
            image is restored in one piece: nothing else is sure to be right.

    The result is clipped to [0, 1], times 255, and rounded, all in float32. The function raises
    ValueError when the network changes the shape, gives values that are not finite, or cannot
    compute in bfloat16.
    """
    if device is not None:
        module.to(device)
    if _device_of(module).type == "cpu" or precision == "bfloat16":
        lay_out(module)
    tiling = tiling_of(module, tile, facts)
    with_table = needs_table(module) if facts is None else facts.needs_table

    def restored(x: Tensor, beside: tuple[Tensor, ...]) -> Tensor:
        if tiling is None or max(x.shape[-2:]) <= tile:
            return _shape_kept(module, x, beside)
        return apply_tiled(module, x, tiling, *beside)

    def restore(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
        device = _device_of(module)
        x = to_unit(luma).to(device)
        beside = (_table_tensor(table).to(device),) if with_table else ()
        with (
            _evaluation_mode(module),
            torch.inference_mode(),
            _full_precision(device),
            autocast(precision, device),
        ):
            found = checked(lambda: restored(x, beside), precision, _name(module))
        return to_luma(found)

    return restore


def _pooled_mean(network: Pooling, x: Tensor, tiling: Tiling) -> Tensor:
    """Return the mean over the whole image of the features that a network pools, (N, C, 1, 1)."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    features = x
    for row, column in tiles(x, tiling):
        features = network.pooled_features(x[..., row.outer, column.outer])
        own = features[..., row.inside, column.inside]
        total = total + own.sum((2, 3), keepdim=True, dtype=torch.float64)
    return (total / (x.shape[2] * x.shape[3])).to(features.dtype)


def _table_tensor(table: np.ndarray) -> Tensor:
    if table.shape != (8, 8):
        raise ValueError(f"quantisation table of shape {table.shape}: give (8, 8)")
    return torch.from_numpy(table.astype(np.float32))[None]


def _shape_kept(network: Callable[..., Tensor], x: Tensor, beside: tuple[Tensor, ...]) -> Tensor:
    restored = network(x, *beside)  # by position: exported programs know no names
    if restored.shape != x.shape:
        raise ValueError(
            f"{_name(network)} turned {tuple(x.shape)} into {tuple(restored.shape)}: "
            "a restoration network keeps the shape of its input"
        )
    return restored


def _name(network: Callable[..., Tensor]) -> str:
    return type(network).__name__ if isinstance(network, nn.Module) else repr(network)


def _device_of(module: nn.Module) -> torch.device:
    tensor = next(module.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put every part of a network into evaluation mode, and back into its own afterwards."""
    modes = {part: part.training for part in module.modules()}
    with suppress(NotImplementedError):  # an exported program has one mode, and says so this way
        module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Compute convolutions in float32, not TF32: scores stay the same on every device."""
    if device.type != "cuda":
        yield
        return
    with _cudnn_settings, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
