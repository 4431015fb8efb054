"""Which rank reads which rows of a store, and in which order: one pure function."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """The rows `start` to `stop` (exclusive) of one row group, counted over the whole store."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Window:
    """Rows that are read, shuffled and cut into batches together."""

    spans: tuple[Span, ...]
    seed: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many rows all spans have."""
        return sum(span.stop - span.start for span in self.spans)

    def order(self) -> np.ndarray:
        """Return the shuffle, (rows,) int64: the i-th row given is row `order[i]` of the spans."""
        return np.random.default_rng(self.seed).permutation(self.rows)


def plan_epoch(
    row_counts: Sequence[int],
    *,
    seed: tuple[int, ...],
    epoch: int,
    world: int,
    rank: int,
    batch: int,
    window_rows: int,
) -> tuple[Window, ...]:
    """Return what one rank reads in one epoch: a pure function of its arguments.

    The row groups (`row_counts` rows each, in store order) are shuffled, their concatenated rows
    cut into `world` equal spans, and each span into windows of about `window_rows` rows. Every
    rank gets the same whole number of batches; the fewer than `world * batch` rows that are left
    over are others in each epoch.
    """
    groups = np.random.default_rng((*seed, epoch)).permutation(len(row_counts))
    ends = np.cumsum(np.asarray(row_counts, np.int64)[groups])
    rows = int(sum(row_counts)) // (world * batch) * batch
    window = max(1, window_rows // batch) * batch
    first, last = rank * rows, (rank + 1) * rows
    return tuple(
        Window(
            spans=_spans(row_counts, groups, ends, start, min(start + window, last)),
            seed=(*seed, epoch, start + 1),
        )
        for start in range(first, last, window)
    )


def _spans(
    row_counts: Sequence[int], groups: np.ndarray, ends: np.ndarray, start: int, stop: int
) -> tuple[Span, ...]:
    """Return the rows `start` to `stop` of the row groups laid end to end in the order `groups`."""
    spans = []
    while start < stop:
        at = int(np.searchsorted(ends, start, side="right"))
        group, end = int(groups[at]), int(ends[at])
        begin = end - row_counts[group]
        spans.append(Span(group, start - begin, min(stop, end) - begin))
        start = min(stop, end)
    return tuple(spans)
