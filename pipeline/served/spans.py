"""How an image is cut into overlapping tiles, one axis at a time."""

from dataclasses import dataclass

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

    @property
    def own(self) -> slice:
        """What it contributes, in the image."""
        return slice(self.start, self.stop)

    @property
    def outer(self) -> slice:
        """What it looks at, in the image."""
        return slice(self.outer_start, self.outer_stop)

    @property
    def inside(self) -> slice:
        """What it contributes, in what it looks at."""
        return slice(self.start - self.outer_start, self.stop - self.outer_start)


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


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
