"""Where things go on a chart, and how its numbers are written: plain arithmetic."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["right", "left", "above", "below"]
"""Where a label stands, seen from its mark."""
SIDES: tuple[Side, ...] = ("right", "left", "above", "below")
MARK = 6
"""Half the side of the square that a mark takes, in pixels."""
LETTER_WIDTH = 0.56
"""Mean width of a letter as a share of its size."""
MOST_TICKS = 9
"""Labels that fit below an axis, such as 5,000,000."""
ROOM = 0.08
"""Share of the values' range that is left free at either end of an axis."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text that is to stand beside the mark at (x, y), pixels from the upper left."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Box:
    """What a label or mark covers, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Return the area in common, square pixels."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)


def place_labels(
    labels: Sequence[Label], *, letter: float, width: float, height: float
) -> list[Side]:
    """Return a side for each label, one after the other where it covers least.

    Each avoids the marks, the labels before it, and what lies outside the plot of `width` x
    `height` pixels; `letter` is the size of the letters in pixels.
    """
    marks = [
        Box(left=a.x - MARK, top=a.y - MARK, right=a.x + MARK, bottom=a.y + MARK) for a in labels
    ]
    taken: list[Box] = []
    sides: list[Side] = []
    plot = Box(left=0, top=0, right=width, bottom=height)

    def covered(box: Box) -> float:
        outside = (box.right - box.left) * (box.bottom - box.top) - box.overlap(plot)
        return outside + sum(box.overlap(other) for other in (*marks, *taken))

    for label in labels:
        boxes: dict[Side, Box] = {side: _box(label, side, letter) for side in SIDES}
        best = min(SIDES, key=lambda side: covered(boxes[side]))
        taken.append(boxes[best])
        sides.append(best)
    return sides


def roomy_domain(values: Sequence[float], log: bool = False) -> list[float]:
    """Return an axis from below the smallest to above the largest value, evenly on its scale."""
    shown = [math.log10(value) for value in values] if log else list(values)
    room = (max(shown) - min(shown)) * ROOM or (0.5 if log else abs(shown[0]) * ROOM or 1.0)
    ends = [min(shown) - room, max(shown) + room]
    return [10**end for end in ends] if log else ends


def log_ticks(domain: Sequence[float]) -> list[float]:
    """Return round numbers within a logarithmic axis, few enough for their labels to fit."""
    powers = range(math.floor(math.log10(domain[0])), math.ceil(math.log10(domain[1])) + 1)
    many = [
        float(f"{digit}e{power}")
        for power in powers
        for digit in (1, 2, 5)
        if domain[0] <= float(f"{digit}e{power}") <= domain[1]
    ]
    decades = [tick for tick in many if math.log10(tick).is_integer()]
    return many if len(many) <= MOST_TICKS else decades


def position(value: float, domain: Sequence[float], log: bool = False) -> float:
    """Return where a value lies on an axis, 0 at its start and 1 at its end."""
    low, high = (math.log10(end) if log else end for end in domain)
    return ((math.log10(value) if log else value) - low) / (high - low)


def all_finite(*values: float) -> bool:
    """Tell whether no value is infinite or not a number."""
    return all(math.isfinite(value) for value in values)


def number_format(values: Iterable[float]) -> str:
    """Return the d3 format in which numbers of this size are read: 65,864 or 28.22 or 0.7905."""
    numbers = [float(value) for value in values]
    largest = max(map(abs, numbers), default=0.0)
    if largest >= 1000 or all(number.is_integer() for number in numbers):
        return ",.0f"
    return ".2f" if largest >= 2 else ".3f" if largest >= 1 else ".4f"


def _box(label: Label, side: Side, letter: float) -> Box:
    width, height = len(label.text) * letter * LETTER_WIDTH, letter * 1.2
    left = {"right": label.x + MARK + 2, "left": label.x - MARK - 2 - width}.get(
        side, label.x - width / 2
    )
    top = {"above": label.y - MARK - 2 - height, "below": label.y + MARK + 2}.get(
        side, label.y - height / 2
    )
    return Box(left=left, top=top, right=left + width, bottom=top + height)
