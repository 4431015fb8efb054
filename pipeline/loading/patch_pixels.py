"""Pixels of a patch store in any order: held in memory, or read anew and put into their places."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch

from pipeline.loading.epoch_plan import Window
from pipeline.loading.row_groups import RowGroup
from storage.patches.schema import ORIGINAL, qf_column
from storage.patches.shard_reader import damaged, open_shard, read_open_rows
from storage.patches.versions import ShardEntry, StoreVersion


class PatchPixels:
    """Patches of chosen row groups: the originals, and each at one of some quality factors."""

    def __init__(
        self, store: StoreVersion, groups: Sequence[RowGroup], qfs: Sequence[int], *, pinned: bool
    ) -> None:
        """Prepare to read; `pinned` pixels lie in page-locked memory."""
        self._store = store
        self._groups = groups
        self._columns = (ORIGINAL, *(qf_column(qf) for qf in qfs))
        self._pinned = pinned
        self._starts = np.cumsum([0, *(group.rows for group in groups)])
        self._held: list[np.ndarray] | None = None

    @property
    def bytes(self) -> int:
        """What they take when all are held."""
        return int(self._starts[-1]) * self._store.spec.side**2 * len(self._columns)

    def rows_of(self, window: Window) -> np.ndarray:
        """Return which rows a window is made of, (rows,) int64, counted over the groups."""
        return np.concatenate(
            [np.arange(s.start, s.stop) + self._starts[s.group] for s in window.spans]
        )

    def held(self, rows: np.ndarray, quality: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (original, degraded) of rows, (N, side, side) uint8; all are held from now on.

        Without quality factors degraded is empty. `rows` (N,) int64 count over the groups,
        `quality` (N,) uint8 says which quality factor.
        """
        if self._held is None:
            self._held = self._read_all()
        held = self._held
        original, degraded = self._buffers(len(rows))
        np.take(held[0], rows, axis=0, out=original.numpy(), mode="clip")
        if len(held) == 2:
            np.take(held[1], rows, axis=0, out=degraded.numpy(), mode="clip")
            return original, degraded
        for number, column in enumerate(held[1:]):
            chosen = np.flatnonzero(quality == number)
            degraded.numpy()[chosen] = column[rows[chosen]]
        return original, degraded

    def stored(
        self, window: Window, order: np.ndarray, quality: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (original, degraded) of a window's rows in an order, (N, side, side) uint8.

        Its row groups are read now, and every row is put straight into its place. `order` (N,)
        int64 are rows of the window, `quality` (N,) uint8 says which quality factor.
        """
        place = np.full(window.rows, -1)
        place[order] = np.arange(len(order))
        starts = np.cumsum([0, *(span.stop - span.start for span in window.spans)])
        target = self._buffers(len(order))
        original, degraded = (_as_items(buffer.numpy()) for buffer in target)
        for position, columns in self._read([span.group for span in window.spans]):
            span = window.spans[position]
            places = place[starts[position] : starts[position + 1]]
            items = [_as_items(column)[span.start : span.stop] for column in columns]
            wanted = np.flatnonzero(places >= 0)
            _scatter(items[0], wanted, original, places)
            for number, compressed in enumerate(items[1:]):
                rows = wanted[quality[places[wanted]] == number]
                _scatter(compressed, rows, degraded, places)
        return target

    def _read_all(self) -> list[np.ndarray]:
        side = self._store.spec.side
        held = [np.empty((self._starts[-1], side, side), np.uint8) for _ in self._columns]
        for group, columns in self._read(range(len(self._groups))):
            rows = slice(self._starts[group], self._starts[group + 1])
            for array, column in zip(held, columns, strict=True):
                array[rows] = column
        return held

    def _read(self, groups: Sequence[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield (position in `groups`, its pixel columns), opening every shard once."""

        def shard_of(position: int) -> ShardEntry:
            return self._groups[groups[position]].shard

        positions = sorted(range(len(groups)), key=lambda position: groups[position])
        for shard, members in groupby(positions, key=shard_of):
            with open_shard(self._store, shard) as parquet:
                for position in members:
                    group = self._groups[groups[position]]
                    columns = read_open_rows(
                        self._store, shard, parquet, group.number, self._columns
                    )
                    if len(columns[0]) != group.rows:
                        raise damaged(self._store, shard, "its row groups have other lengths")
                    yield position, columns

    def _buffers(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        side = self._store.spec.side
        compressed = rows if len(self._columns) > 1 else 0
        original, degraded = (
            torch.empty((count, side, side), dtype=torch.uint8, pin_memory=self._pinned)
            for count in (rows, compressed)
        )
        return original, degraded


def _scatter(items: np.ndarray, rows: np.ndarray, target: np.ndarray, places: np.ndarray) -> None:
    """Put `rows` of the items into their places."""
    target[places[rows]] = items if len(rows) == len(items) else items[rows]


def _as_items(pixels: np.ndarray) -> np.ndarray:
    """View (N, side, side) uint8 as (N,) opaque items, which numpy copies in one piece each."""
    count, side, _ = pixels.shape
    return pixels.reshape(count, side * side).view(np.dtype((np.void, side * side)))[:, 0]
