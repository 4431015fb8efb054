"""From a patch store to shuffled batches: uint8 all the way, read ahead in the background."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count, groupby

import numpy as np
import torch

from pipeline.epoch_plan import Window, plan_epoch
from storage.patch_store import ShardEntry, StoreVersion, damaged, open_shard, read_open_rows
from storage.schema import ORIGINAL, StoreError, qf_column

WINDOW_BYTES = 256 << 20  # pixels that are shuffled together; at most two such windows are held
BLOCK_BYTES = 8 << 20  # pixels that are gathered at once from a store held in memory


@dataclass(frozen=True)
class Batch:
    """One rank's part of one step."""

    step: int
    """Counts from 0 over all epochs."""
    epoch: int
    original: torch.Tensor
    """(N, side, side) uint8 luma."""
    degraded: torch.Tensor
    """(N, side, side) uint8 luma of the same patches after JPEG compression."""


@dataclass(frozen=True)
class _Block:
    """Consecutive batches of an epoch in one piece of memory each column, (rows, side, side)."""

    step: int
    epoch: int
    original: torch.Tensor
    degraded: torch.Tensor


class PatchLoader:
    """Endless shuffled batches of one quality factor for one rank.

    A store whose two columns fit into `window_bytes` is read once and held in memory; of a larger
    one, one window is in use while the next is read.
    """

    def __init__(
        self,
        store: StoreVersion,
        qf: int,
        batch: int,
        *,
        seed: tuple[int, ...] = (0,),
        rank: int = 0,
        world: int = 1,
        window_bytes: int = WINDOW_BYTES,
        pin_memory: bool = False,
    ) -> None:
        """Prepare to read; `batch` is the patches a step of this rank alone.

        Raises StoreError if the store does not hold `qf`, or fewer patches than one step takes.
        """
        if qf not in store.spec.qfs:
            raise StoreError(f"{store.uri}: it has no QF {qf}, only {list(store.spec.qfs)}")
        if store.rows < world * batch:
            raise StoreError(
                f"{store.uri} has {store.rows} patches, fewer than a step takes ({world * batch}): "
                "choose a smaller batch, or build the store from more images"
            )
        self._store = store
        self._columns = (ORIGINAL, qf_column(qf))
        self._batch = batch
        self._seed, self._rank, self._world = seed, rank, world
        self._pin_memory = pin_memory
        self._row_groups = _row_groups(store)
        self._starts = np.cumsum([0, *(group.rows for group in self._row_groups)])
        self._row_bytes = 2 * store.spec.side**2
        self._window_rows = window_bytes // self._row_bytes
        self._held: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self._store.rows // (self._world * self._batch)

    @property
    def fits_in_memory(self) -> bool:
        """Whether the store is read once and held."""
        return self._store.rows <= self._window_rows

    def batches(self, first_step: int = 0) -> Generator[Batch, None, None]:
        """Yield batches from global step `first_step` on, epoch after epoch, without end.

        Closing the iterator ends the thread. Raises StoreError, with the command that repairs the
        store, when a page is damaged or a shard is missing.
        """
        with (
            closing(self._blocks(first_step)) as blocks,
            ThreadPoolExecutor(1, thread_name_prefix="patch-loader") as reader,
        ):
            ahead = reader.submit(next, blocks)
            while True:
                block = ahead.result()
                ahead = reader.submit(next, blocks)
                for i in range(len(block.original) // self._batch):
                    rows = slice(i * self._batch, (i + 1) * self._batch)
                    yield Batch(
                        block.step + i, block.epoch, block.original[rows], block.degraded[rows]
                    )

    def _blocks(self, first_step: int) -> Generator[_Block, None, None]:
        first_epoch, skipped = divmod(first_step, self.steps_per_epoch)
        for epoch in count(first_epoch):
            step = epoch * self.steps_per_epoch
            for window in self._plan(epoch):
                steps = window.rows // self._batch
                skip, skipped = min(steps, skipped), max(0, skipped - steps)
                if skip < steps:
                    yield from self._read_window(window, step, epoch, skip)
                step += steps

    def _plan(self, epoch: int) -> tuple[Window, ...]:
        return plan_epoch(
            [group.rows for group in self._row_groups],
            seed=self._seed,
            epoch=epoch,
            world=self._world,
            rank=self._rank,
            batch=self._batch,
            window_rows=self._window_rows,
        )

    def _read_window(self, window: Window, step: int, epoch: int, skip: int) -> Iterator[_Block]:
        order = window.order()[skip * self._batch :]
        if not self.fits_in_memory:
            yield _Block(step + skip, epoch, *self._gather_stored(window, order))
            return
        if self._held is None:
            self._held = self._read_all()
        rows = np.concatenate(
            [np.arange(s.start, s.stop) + self._starts[s.group] for s in window.spans]
        )[order]
        size = max(1, BLOCK_BYTES // (self._row_bytes * self._batch)) * self._batch
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            target = self._buffers(len(chosen))
            for held, buffer in zip(self._held, target, strict=True):
                np.take(held, chosen, axis=0, out=buffer.numpy(), mode="clip")
            yield _Block(step + skip + start // self._batch, epoch, *target)

    def _gather_stored(self, window: Window, order: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Read the window's row groups and put every row straight into its shuffled place."""
        place = np.full(window.rows, -1)
        place[order] = np.arange(len(order))
        starts = np.cumsum([0, *(span.stop - span.start for span in window.spans)])
        target = self._buffers(len(order))
        flat = [_as_items(buffer.numpy()) for buffer in target]
        for number, columns in self._read([span.group for span in window.spans]):
            span = window.spans[number]
            places = place[starts[number] : starts[number + 1]]
            wanted = places >= 0
            for column, buffer in zip(columns, flat, strict=True):
                items = _as_items(column)[span.start : span.stop]
                buffer[places[wanted]] = items[wanted] if not wanted.all() else items
        return target

    def _read_all(self) -> tuple[np.ndarray, np.ndarray]:
        side = self._store.spec.side
        original, degraded = (
            np.empty((self._store.rows, side, side), np.uint8) for _ in self._columns
        )
        for group, columns in self._read(range(len(self._row_groups))):
            rows = slice(self._starts[group], self._starts[group + 1])
            original[rows], degraded[rows] = columns
        return original, degraded

    def _read(self, groups: Sequence[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield (position in `groups`, its two pixel columns), opening every shard once."""

        def shard_of(position: int) -> ShardEntry:
            return self._row_groups[groups[position]].shard

        positions = sorted(range(len(groups)), key=lambda position: groups[position])
        for shard, members in groupby(positions, key=shard_of):
            with open_shard(self._store, shard) as parquet:
                for position in members:
                    group = self._row_groups[groups[position]]
                    columns = read_open_rows(
                        self._store, shard, parquet, group.number, self._columns
                    )
                    if len(columns[0]) != group.rows:
                        raise damaged(self._store, shard, "its row groups have other lengths")
                    yield position, columns

    def _buffers(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (rows, self._store.spec.side, self._store.spec.side)
        original, degraded = (
            torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory) for _ in range(2)
        )
        return original, degraded


@dataclass(frozen=True)
class _RowGroup:
    """Where a row group lies: its number within its shard."""

    shard: ShardEntry
    number: int
    rows: int


def _row_groups(store: StoreVersion) -> list[_RowGroup]:
    size = store.row_group_rows
    return [
        _RowGroup(shard, number, min(size, shard.rows - start))
        for shard in store.shards
        for number, start in enumerate(range(0, shard.rows, size))
    ]


def _as_items(pixels: np.ndarray) -> np.ndarray:
    """View (N, side, side) uint8 as (N,) opaque items, which numpy copies in one piece each."""
    count, side, _ = pixels.shape
    return pixels.reshape(count, side * side).view(np.dtype((np.void, side * side)))[:, 0]
