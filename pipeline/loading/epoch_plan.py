"""Which rows of a store a step takes, and which of them a rank: pure functions."""

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
    batch: int,
    window_rows: int,
) -> tuple[Window, ...]:
    """Return what one epoch reads: a pure function of its arguments.

    The row groups (`row_counts` rows each, in store order) are shuffled, and their concatenated
    rows cut into windows of about `window_rows` rows, each a whole number of batches; the fewer
    than `batch` rows that are left over are others in each epoch.
    """
    groups = np.random.default_rng((*seed, epoch)).permutation(len(row_counts))
    ends = np.cumsum(np.asarray(row_counts, np.int64)[groups])
    rows = int(sum(row_counts)) // batch * batch
    window = max(1, window_rows // batch) * batch
    return tuple(
        Window(
            spans=_spans(row_counts, groups, ends, start, min(start + window, rows)),
            seed=(*seed, epoch, start + 1),
        )
        for start in range(0, rows, window)
    )


def share_of_batch(batch: int, world: int, rank: int = 0) -> slice:
    """Return which patches of a step are a rank's: as many as the others', or one more or less.

    Together the ranks have each patch once, whatever their number, so that it does not decide what
    a step learns from. Raises ValueError if a rank would have none.
    """
    if batch < world:
        raise ValueError(f"a batch of {batch} is too small for {world} workers: choose fewer")
    return slice(batch * rank // world, batch * (rank + 1) // world)


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
