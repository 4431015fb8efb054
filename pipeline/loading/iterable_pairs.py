"""A patch store as a dataset of PyTorch's own DataLoader, with workers and under DDP."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from torch import Tensor, distributed
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.loading.loader import HOLD_BYTES, PatchLoader
from storage.patches.versions import open_store


class StorePairs(IterableDataset[tuple[Tensor, Tensor]]):
    """Shuffled batches (degraded, original) of one epoch, each (batch, 1, side, side) uint8.

    Give it to a DataLoader with `batch_size=None`, as batches are made here, and call `set_epoch`
    before each epoch, else all have the same order. Together the workers of all DDP ranks give each
    patch once, each rank as many batches; those that are too few for one batch of each are others
    in each epoch. Every worker reads all row groups and keeps its part, so one or two are enough.
    """

    def __init__(
        self,
        store: str,
        qfs: Sequence[int],
        batch: int,
        *,
        version: int | None = None,
        side: int | None = None,
        seed: int = 0,
    ) -> None:
        """Open a store.

        Args:
            store: path or URI of a patch store.
            qfs: quality factors of it, mixed; of a store of originals alone any, made anew.
            batch: patches a batch.
            version: number of a version, by default the current one.
            side: pixels; patches are cropped to it at random places; None: not.
            seed: decides the order, the quality factors and the crops.

        Raises StoreError when the store is missing or damaged.
        """
        self._store = open_store(store, version)
        self._qfs, self._batch, self._side, self._seed = tuple(qfs), batch, side, seed
        self._epoch = 0
        self._place = (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Hand a worker that is no fork the rank and number of ranks, which it cannot ask for."""
        return {**vars(self), "_place": self._rank_and_world()}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next iteration gives."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of this process; StoreError tells what it lacks, or what is damaged."""
        rank, world = self._rank_and_world()
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        loader = PatchLoader(
            self._store,
            self._qfs,
            self._batch * world * workers,
            seed=(self._seed,),
            rank=rank * workers + number,
            world=world * workers,
            side=self._side,
            hold_bytes=HOLD_BYTES // workers,
        )
        steps = loader.steps_per_epoch
        with closing(loader.batches(self._epoch * steps)) as batches:
            for batch in islice(batches, steps):
                yield batch.degraded.unsqueeze(1), batch.original.unsqueeze(1)

    def _rank_and_world(self) -> tuple[int, int]:
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return self._place
