"""Apply a network to whole images of any size, in overlapping tiles where they are large."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Restorer = Callable[[np.ndarray], np.ndarray]
"""Takes and returns luma, (H, W) uint8 of one shape; H and W are 8 pixels or more."""

MIN_SIDE = 8
"""Networks are promised at least this many pixels in height and width."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut so that the tiles' results join into that of the whole image."""

    side: int
    """Height and width of the part that a tile contributes, in pixels, 1 or more."""
    receptive_field: int
    """Full width, in pixels, of what an output pixel depends on (an upper bound): half of it,
    rounded down, to either side."""
    multiple: int = 1
    """Tiles start at multiples of this many pixels, so that a network which works on cells of
    several pixels sees the same cells."""

    def __post_init__(self) -> None:
        for name in ("side", "receptive_field", "multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: choose 1 or more pixels")


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels: what it contributes, and what it looks at."""

    start: int
    stop: int
    outer_start: int
    outer_stop: int


def spans(length: int, tiling: Tiling) -> list[Span]:
    """Cut an axis of `length` pixels: the contributions follow each other without a gap.

    Every span looks half a receptive field beyond what it contributes, and at least MIN_SIDE
    pixels, but never beyond the image: its ends stay the places where the network pads.
    """
    side = _round_up(tiling.side, tiling.multiple)
    margin = _round_up(max(tiling.receptive_field // 2, MIN_SIDE), tiling.multiple)
    found = []
    for start in range(0, length, side):
        stop = min(start + side, length)
        found.append(Span(start, stop, max(0, start - margin), min(stop + margin, length)))
    return found


def apply_tiled(network: Callable[[Tensor], Tensor], x: Tensor, tiling: Tiling) -> Tensor:
    """Return `network(x)` for (N, 1, H, W), computed tile by tile.

    Equal to the whole image's result up to the rounding of floating point. Raises ValueError when
    the network does not keep the shape of its input.
    """
    output = torch.empty_like(x)
    for row in spans(x.shape[2], tiling):
        for column in spans(x.shape[3], tiling):
            tile = x[:, :, row.outer_start : row.outer_stop, column.outer_start : column.outer_stop]
            restored = _shape_kept(network, tile)
            output[:, :, row.start : row.stop, column.start : column.stop] = restored[
                :,
                :,
                row.start - row.outer_start : row.stop - row.outer_start,
                column.start - column.outer_start : column.stop - column.outer_start,
            ]
    return output


def tiling_of(
    module: nn.Module, side: int, receptive_field: int | None = None, multiple: int | None = None
) -> Tiling | None:
    """Return how a network may be tiled: as stated here, else as it declares itself, else None."""
    field = receptive_field or getattr(module, "receptive_field", None)
    cell = multiple or getattr(module, "multiple", 1)
    if not isinstance(field, int) or not isinstance(cell, int):
        return None
    return Tiling(side=side, receptive_field=field, multiple=cell)


def network_restorer(
    module: nn.Module,
    device: str | None = None,
    *,
    tile: int = 512,
    receptive_field: int | None = None,
    multiple: int | None = None,
) -> Restorer:
    """Return a function that restores luma images with `module`.

    Args:
        module: any network that takes (N, 1, H, W) float32 in [0, 1] and gives the same shape.
            It is used in evaluation mode and left in the mode it was in.
        device: where it computes, such as `cpu` or `cuda`; the module is moved there. None leaves
            it where it is.
        tile: side of the tiles in pixels; memory grows with its square.
        receptive_field: see Tiling; None takes `module.receptive_field`. Where neither says it,
            an image is restored in one piece: nothing else is sure to be right.
        multiple: see Tiling; None takes `module.multiple`, or 1.

    The result is clipped to [0, 1], times 255, and rounded. The function raises ValueError when the
    network changes the shape or gives values that are not finite.
    """
    if device is not None:
        module.to(device)
    tiling = tiling_of(module, tile, receptive_field, multiple)

    def restore(luma: np.ndarray) -> np.ndarray:
        with _evaluation_mode(module), torch.inference_mode(), _full_precision():
            x = torch.from_numpy(np.ascontiguousarray(luma)).to(_device_of(module))
            x = x[None, None].float() / 255
            if tiling is None or max(luma.shape) <= tile:
                restored = _shape_kept(module, x)
            else:
                restored = apply_tiled(module, x, tiling)
            if not restored.isfinite().all():
                raise ValueError(
                    f"{_name(module)} gave values that are not finite for a {luma.shape} image: "
                    "its weights may have diverged, take an earlier checkpoint"
                )
            return restored[0, 0].clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()

    return restore


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _shape_kept(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    restored = network(x)
    if restored.shape != x.shape:
        raise ValueError(
            f"{_name(network)} turned {tuple(x.shape)} into {tuple(restored.shape)}: "
            "a restoration network keeps the shape of its input"
        )
    return restored


def _name(network: Callable[[Tensor], Tensor]) -> str:
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
def _full_precision() -> Iterator[None]:
    """Compute convolutions in float32, not TF32: scores stay the same on every device."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
