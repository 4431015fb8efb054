"""From a patch store to shuffled batches: uint8 all the way, read ahead in the background."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.images.jpeg import quantization_table
from pipeline.loading.epoch_plan import Window, plan_epoch, share_of_batch
from pipeline.loading.fresh_pairs import Crops, draw_crops, fill_pairs
from pipeline.loading.patch_pixels import PatchPixels
from pipeline.loading.row_groups import chosen_groups
from storage.files import StoreError
from storage.patches.shard_reader import damaged, read_quantization_tables
from storage.patches.versions import StoreVersion

HOLD_BYTES = 2 << 30  # pixels of a store that is read once and held in memory
WINDOW_BYTES = 256 << 20  # pixels of a larger one that are shuffled together; two windows are held
BLOCK_BYTES = 8 << 20  # pixels that are gathered at once from a store held in memory
BLOCK_SIDE = 8  # pixels; crops lie on the JPEG grid
QUALITY, CROP = 1, 2  # what a random stream is for, part of its seed


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
    tables: torch.Tensor
    """(N, 8, 8) uint8: the quantisation table of each, rows of rising vertical frequency."""
    rows: np.ndarray
    """(N,) int64: which rows of the store they are, counted over its shards."""
    side: int
    """Pixels: height and width of the pairs."""
    crops: Crops | None = None
    """What is yet to be cut out and compressed: original and degraded are still whole patches."""


@dataclass(frozen=True)
class _Draw:
    """What is taken out of a window, in the order in which it is given."""

    order: np.ndarray
    """(rows,) int64: a row of the window."""
    quality: np.ndarray
    """(rows,) uint8: which of the loader's quality factors."""
    crops: Crops

    def part(self, rows: slice | np.ndarray) -> "_Draw":
        return _Draw(self.order[rows], self.quality[rows], self.crops.part(rows))


@dataclass(frozen=True)
class _Block:
    """Consecutive batches of an epoch in one piece of memory each column, (rows, side, side)."""

    step: int
    epoch: int
    original: torch.Tensor
    degraded: torch.Tensor
    tables: torch.Tensor
    rows: np.ndarray
    crops: Crops | None


class PatchLoader:
    """Endless shuffled batches for one rank; several quality factors are mixed, one a patch.

    Pairs are those of the store, cropped on the JPEG grid; of a store of originals alone they are
    made anew each time (pipeline/loading/fresh_pairs.py).
    A store whose columns fit into `hold_bytes` is read once and held in memory; of a larger one,
    one window is in use while the next is read. The batches are the same either way.
    """

    def __init__(
        self,
        store: StoreVersion,
        qfs: Sequence[int],
        batch: int,
        *,
        seed: tuple[int, ...] = (0,),
        rank: int = 0,
        world: int = 1,
        frequent_qfs: Sequence[int] = (),
        side: int | None = None,
        share: float = 1.0,
        held_out: float = 0.0,
        validation: bool = False,
        hold_bytes: int = HOLD_BYTES,
        window_bytes: int = WINDOW_BYTES,
        pin_memory: bool = False,
        pairs_on_device: bool = False,
    ) -> None:
        """Prepare to read the rank's share of every step.

        Args:
            store: a version of a patch store.
            qfs: quality factors; each patch gets one of them, drawn anew in every epoch.
            batch: patches a step, over all ranks together.
            seed: decides the order, the quality factors and the crops.
            rank: which of `world` loaders this one is; together they give every row once, and in
                each step what one alone gives.
            world: how many loaders share the steps.
            frequent_qfs: of `qfs`, those that half of the patches get one of; () for none.
            side: pixels; patches are cropped to it at random places of the 8x8 grid; None: not.
            share: share of the row groups that is used, the same in every epoch.
            held_out: share of the row groups, the last ones, that is for validation alone.
            validation: whether this loader gives those held out, or the others.
            hold_bytes: a store of so many pixels, in the columns it is read for, is held.
            window_bytes: pixels that are shuffled together; part of what decides the order.
            pin_memory: whether batches lie in page-locked memory, for a GPU.
            pairs_on_device: whether a store of originals alone gives whole patches, to make the
                pairs of where they are used (pipeline/loading/device_pairs.py).

        Raises StoreError if the store lacks a quality factor or its quantisation table, has
        smaller patches than `side`, or fewer patches than one step takes; ValueError for a batch of
        fewer patches than ranks.
        """
        self._fresh = store.spec.degradation == "none"
        stored_qfs = () if self._fresh else qfs
        if missing := sorted(set(stored_qfs) - set(store.spec.qfs)):
            raise StoreError(f"{store.uri}: it has no QF {missing}, only {list(store.spec.qfs)}")
        if side is not None and side > store.spec.side:
            raise StoreError(
                f"{store.uri}: its patches have a side of {store.spec.side}, asked for is {side}"
            )
        self._row_groups = chosen_groups(store, seed, share, held_out, validation)
        self._rows = sum(group.rows for group in self._row_groups)
        if self._rows < batch:
            raise StoreError(
                f"{store.uri} has {self._rows} patches, fewer than a step takes "
                f"({batch}): choose a smaller batch, or build the store from more images"
            )
        tables = read_quantization_tables(store)
        if self._fresh:
            tables = {qf: quantization_table(qf).astype(np.uint8) for qf in qfs}
        if missing := sorted(set(qfs) - set(tables)):
            raise damaged(store, store.shards[0], f"no quantisation table of QF {missing}")
        self._store = store
        self._qfs = np.array(qfs)
        self._tables = np.stack([tables[qf] for qf in qfs])
        self._frequent = np.flatnonzero(np.isin(self._qfs, frequent_qfs)).astype(np.uint8)
        self._seed, self._batch = seed, batch
        self._share = share_of_batch(batch, world, rank)
        self._own = self._share.stop - self._share.start
        self._side = side or store.spec.side
        self._pin_memory = pin_memory
        self._whole = self._fresh and pairs_on_device
        given = self._whole or (not self._fresh and self._side == store.spec.side)
        self._pixels = PatchPixels(store, self._row_groups, stored_qfs, pinned=pin_memory and given)
        self._row_bytes = store.spec.side**2
        self._hold_bytes, self._window_bytes = hold_bytes, window_bytes

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self._rows // self._batch

    @property
    def fits_in_memory(self) -> bool:
        """Whether the store is read once and held."""
        return self._pixels.bytes <= self._hold_bytes

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
                for i in range(len(block.original) // self._own):
                    rows = slice(i * self._own, (i + 1) * self._own)
                    yield Batch(
                        step=block.step + i,
                        epoch=block.epoch,
                        original=block.original[rows],
                        degraded=block.degraded[rows],
                        tables=block.tables[rows],
                        rows=block.rows[rows],
                        side=self._side,
                        crops=block.crops and block.crops.part(rows),
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
            batch=self._batch,
            window_rows=self._window_bytes // (2 * self._row_bytes),
        )

    def _draw(self, window: Window) -> _Draw:
        """Return what a window gives: a pure function of its seed."""
        random = np.random.default_rng((*window.seed, QUALITY))
        quality = random.integers(len(self._tables), size=window.rows, dtype=np.uint8)
        if len(self._frequent):
            frequent = random.choice(self._frequent, size=window.rows)
            quality = np.where(random.random(window.rows) < 0.5, frequent, quality)
        return _Draw(window.order(), quality, self._draw_crops(window))

    def _draw_crops(self, window: Window) -> Crops:
        seed, rows, patch = (*window.seed, CROP), window.rows, self._store.spec.side
        if self._fresh:
            return draw_crops(seed, rows, patch, self._side)
        places = (patch - self._side) // BLOCK_SIDE + 1
        corner = np.random.default_rng(seed).integers(places, size=(rows, 2)) * BLOCK_SIDE
        return Crops(corner, np.full(rows, self._side))

    def _read_window(self, window: Window, step: int, epoch: int, skip: int) -> Iterator[_Block]:
        taken = np.arange(window.rows).reshape(-1, self._batch)[skip:, self._share].ravel()
        draw = self._draw(window).part(taken)
        step += skip
        numbers = np.concatenate(
            [np.arange(s.start, s.stop) + self._row_groups[s.group].first for s in window.spans]
        )
        if not self.fits_in_memory:
            pixels = self._pixels.stored(window, draw.order, draw.quality)
            yield self._block(step, epoch, draw, numbers, *pixels)
            return
        held = self._pixels.rows_of(window)
        size = max(1, BLOCK_BYTES // (2 * self._row_bytes * self._own)) * self._own
        for start in range(0, len(draw.order), size):
            part = draw.part(slice(start, start + size))
            pixels = self._pixels.held(held[part.order], part.quality)
            yield self._block(step + start // self._own, epoch, part, numbers, *pixels)

    def _block(
        self,
        step: int,
        epoch: int,
        draw: _Draw,
        numbers: np.ndarray,
        original: torch.Tensor,
        degraded: torch.Tensor,
    ) -> _Block:
        tables = torch.from_numpy(self._tables[draw.quality])
        if self._whole:
            degraded = original
        elif self._fresh:
            patches, original, degraded = original, *self._empty(len(original))
            fill_pairs(
                patches.numpy(),
                draw.crops,
                self._qfs[draw.quality],
                original.numpy(),
                degraded.numpy(),
            )
        elif self._side != self._store.spec.side:
            original, degraded = (
                self._cropped(pixels, draw.crops.corner, crops)
                for pixels, crops in zip(
                    (original, degraded), self._empty(len(original)), strict=True
                )
            )
        return _Block(
            step=step,
            epoch=epoch,
            original=original,
            degraded=degraded,
            tables=tables.pin_memory() if self._pin_memory else tables,
            rows=numbers[draw.order],
            crops=draw.crops if self._whole else None,
        )

    def _empty(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (rows, self._side, self._side)
        original, degraded = (
            torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory) for _ in range(2)
        )
        return original, degraded

    def _cropped(
        self, patches: torch.Tensor, corner: np.ndarray, crops: torch.Tensor
    ) -> torch.Tensor:
        views = sliding_window_view(patches.numpy(), (self._side, self._side), axis=(1, 2))  # type: ignore[call-overload]
        crops.numpy()[:] = views[np.arange(len(patches)), corner[:, 0], corner[:, 1]]
        return crops
