"""Pairs a second: PatchLoader beside a torch DataLoader and a gather from a numpy memmap.

Usage: python -m tests.benchmarks.loader [PAIRS]. All three run one after the other on the same
pixels in the page cache, three rounds; the medians and their ratios go to results/loader.json.
"""

import json
import logging
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.loading.loader import PatchLoader
from storage.files import join
from storage.patches.schema import ORIGINAL, PatchSpec, qf_column
from storage.patches.shard_reader import read_rows
from storage.patches.shard_writer import open_shard_writer
from storage.patches.versions import StoreVersion, open_store, publish, row_group_rows
from tests.benchmarks.machine import processor

SPEC = PatchSpec(side=40, stride=40, qfs=(10,), degradation="patch")
COLUMNS = [ORIGINAL, qf_column(10)]
BATCH = 128
SHARDS = 8
ROUNDS = 3

logger = logging.getLogger(__name__)


class Pairs(Dataset):
    """The usual way: one sample a call, converted on its own."""

    def __init__(self, original: np.ndarray, degraded: np.ndarray) -> None:
        self._columns = original, degraded

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        original, degraded = (torch.from_numpy(column[index].copy()) for column in self._columns)
        return original, degraded


def make_store(folder: Path, pairs: int) -> StoreVersion:
    """Write a store of smooth random patches (they compress about as photographs do)."""
    rng = np.random.default_rng(0)
    shards = []
    for number in range(SHARDS):
        rows = pairs // SHARDS
        coarse = rng.integers(0, 256, (rows, 5, 5), dtype=np.uint8)
        smooth = coarse.repeat(8, 1).repeat(8, 2)
        noisy = smooth ^ rng.integers(0, 4, smooth.shape, dtype=np.uint8)
        corners = np.zeros(rows, np.int32)
        with open_shard_writer(str(folder), f"{number:032}", SPEC, {10: [1] * 64}) as writer:
            pixels = {ORIGINAL: noisy, qf_column(10): smooth}
            writer.add(f"{number}.png", corners, corners, pixels)
            shards.append(writer.finish(f"{number:032}"))
    return publish(
        StoreVersion(
            uri=str(folder),
            number=0,
            spec=SPEC,
            dataset="random",
            dataset_fingerprint="",
            row_group_rows=row_group_rows(SPEC),
            shards=tuple(shards),
            rejected=(),
            packages={},
            created="",
        )
    )


def make_memmaps(store: StoreVersion, folder: Path) -> list[np.ndarray]:
    """Copy the two columns of a store into plain files, and map them."""
    shape = (store.rows, SPEC.side, SPEC.side)
    for index, column in enumerate(COLUMNS):
        mapped = np.memmap(folder / column, np.uint8, "w+", shape=shape)
        start = 0
        for shard in store.shards:
            for group in range(-(-shard.rows // store.row_group_rows)):
                rows = read_rows(store, shard, group, COLUMNS)[index]
                mapped[start : start + len(rows)] = rows
                start += len(rows)
        mapped.flush()
    return [np.memmap(folder / column, np.uint8, "r", shape=shape) for column in COLUMNS]


def gather(columns: list[np.ndarray]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield shuffled batches by fancy indexing into memory maps: the bound."""
    order = np.random.default_rng(0).permutation(len(columns[0]))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        rows = order[start : start + BATCH]
        yield tuple(torch.from_numpy(column[rows]) for column in columns)


def pairs_per_second(make: Callable[[], Iterator], batches: int) -> float:
    """Time `batches` batches of a fresh iterator, its start included."""
    start = time.perf_counter()
    taken = sum(1 for _ in islice(make(), batches))
    return taken * BATCH / (time.perf_counter() - start)


def loader_batches(loader: PatchLoader) -> Iterator[object]:
    """Yield one epoch of a PatchLoader."""
    with closing(loader.batches()) as batches:
        yield from islice(batches, loader.steps_per_epoch)


def measure(pairs: int, folder: Path) -> dict[str, float]:
    """Return the median pairs a second of every way."""
    make_store(folder / "store", pairs)
    store = open_store(join(str(folder), "store"))
    columns = make_memmaps(store, folder)
    samples = DataLoader(Pairs(columns[0], columns[1]), BATCH, shuffle=True, drop_last=True)
    held = PatchLoader(store, [10], BATCH, hold_bytes=1 << 34)
    next(held.batches())
    streaming = PatchLoader(store, [10], BATCH, window_bytes=64 << 20, hold_bytes=0)
    ways: dict[str, tuple[Callable[[], Iterator], int]] = {
        "memmap_gather": (lambda: gather(columns), pairs // BATCH),
        "patch_loader_streamed": (
            lambda: loader_batches(streaming),
            pairs // BATCH,
        ),
        "patch_loader_in_memory": (lambda: loader_batches(held), pairs // BATCH),
        "torch_dataloader_by_sample": (lambda: iter(samples), min(pairs, 50_000) // BATCH),
    }
    rounds = [
        {name: pairs_per_second(make, count) for name, (make, count) in ways.items()}
        for _ in range(ROUNDS)
    ]
    return {name: statistics.median(round_[name] for round_ in rounds) for name in ways}


def main() -> None:
    """Measure and write the result file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        speeds = measure(pairs, Path(folder))
    loaders = {name: speed for name, speed in speeds.items() if name.startswith("patch_loader")}
    baselines = [name for name in speeds if name not in loaders]
    result = {
        "command": shlex.join(["python", "-m", "tests.benchmarks.loader", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": processor(), "cores": os.cpu_count()},
        "side": SPEC.side,
        "batch": BATCH,
        "pairs": pairs,
        "pairs_per_second": {name: round(speed) for name, speed in speeds.items()},
        "ratios": {
            f"{name} / {base}": round(speed / speeds[base], 2)
            for name, speed in loaders.items()
            for base in baselines
        },
    }
    text = json.dumps(result, indent=1)
    target = Path(__file__).parent / "results" / "loader.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text + "\n")
    logger.info(text)


if __name__ == "__main__":
    main()
