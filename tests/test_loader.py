"""The order of samples is a pure function, and batches carry exactly the store's pixels."""

import threading
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from pipeline.epoch_plan import plan_epoch
from pipeline.loader import PatchLoader
from storage.patch_store import read_rows, shard_uri
from storage.schema import StoreError
from tests.store_images import build, image_folder

COUNTS = [100, 100, 37, 100, 100, 8, 100, 64]
STREAMING = 40 * 2 * 32**2  # a window of 40 patches, so that the store does not fit


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    return build(image_folder(folder / "photos"), folder / "store").version


def planned_rows(world, batch, epoch=0, window_rows=90, seed=(0,)):
    """Rows of every rank as (group, row), in the order in which they are given."""
    ranks = []
    for rank in range(world):
        rows = []
        windows = plan_epoch(
            COUNTS,
            seed=seed,
            epoch=epoch,
            world=world,
            rank=rank,
            batch=batch,
            window_rows=window_rows,
        )
        for window in windows:
            flat = [(s.group, row) for s in window.spans for row in range(s.start, s.stop)]
            rows += [flat[i] for i in window.order()]
        ranks.append(rows)
    return ranks


def pairs(batches):
    return [
        (o.tobytes(), d.tobytes())
        for batch in batches
        for o, d in zip(batch.original.numpy(), batch.degraded.numpy(), strict=True)
    ]


def take(loader, count, first_step=0):
    batches = loader.batches(first_step)
    try:
        return list(islice(batches, count))
    finally:
        batches.close()


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 16, 50])
def test_every_rank_takes_the_same_number_of_steps_and_no_row_twice(world, batch):
    ranks = planned_rows(world, batch)
    steps = sum(COUNTS) // (world * batch)
    assert [len(rows) for rows in ranks] == [steps * batch] * world
    together = [row for rows in ranks for row in rows]
    assert len(set(together)) == len(together)
    assert all(0 <= row < COUNTS[group] for group, row in together)


def test_an_epoch_without_a_remainder_is_a_permutation_of_all_rows():
    (rows,) = planned_rows(1, 1)
    assert sorted(rows) == [(g, row) for g, rows in enumerate(COUNTS) for row in range(rows)]


def test_rows_that_one_epoch_drops_come_in_another():
    dropped = []
    for epoch in range(6):
        ranks = planned_rows(2, 100, epoch)
        everything = {(g, row) for g, rows in enumerate(COUNTS) for row in range(rows)}
        dropped.append(everything - {row for rows in ranks for row in rows})
    assert all(dropped)
    assert not set.intersection(*dropped)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    assert planned_rows(2, 16) == planned_rows(2, 16)
    assert planned_rows(2, 16) != planned_rows(2, 16, epoch=1)
    assert planned_rows(2, 16) != planned_rows(2, 16, seed=(1,))


def test_a_batch_mixes_rows_of_several_row_groups():
    (rows,) = planned_rows(1, 32, window_rows=10_000)
    mixed = [len({group for group, _ in rows[i : i + 32]}) for i in range(0, len(rows), 32)]
    assert np.mean(mixed) > 4


@pytest.mark.parametrize("window_bytes", [STREAMING, 1 << 28], ids=["streamed", "in memory"])
@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_gives_every_pair_of_the_store_as_it_is_stored(store, window_bytes, world):
    stored = Counter()
    for shard in store.shards:
        originals, degraded = read_rows(store, shard, 0, ["original", "qf10"])
        stored.update((o.tobytes(), d.tobytes()) for o, d in zip(originals, degraded, strict=True))
    given = Counter()
    for rank in range(world):
        loader = PatchLoader(store, 10, 8, rank=rank, world=world, window_bytes=window_bytes)
        assert loader.steps_per_epoch == 240 // (8 * world)
        given.update(pairs(take(loader, loader.steps_per_epoch)))
    assert given == stored


@pytest.mark.parametrize("window_bytes", [STREAMING, 1 << 28], ids=["streamed", "in memory"])
@pytest.mark.parametrize("first", [1, 5, 14, 15, 33])
def test_starting_at_a_step_gives_what_an_undisturbed_reader_gets_there(store, window_bytes, first):
    loader = PatchLoader(store, 10, 16, window_bytes=window_bytes, seed=(3, 0))
    whole = take(loader, 40)
    later = take(loader, 40 - first, first_step=first)
    assert [(b.step, b.epoch) for b in later] == [(b.step, b.epoch) for b in whole[first:]]
    assert [b.step for b in whole] == list(range(40))
    assert pairs(later) == pairs(whole[first:])


def test_closing_the_iterator_ends_its_thread(store):
    batches = PatchLoader(store, 10, 16, window_bytes=STREAMING).batches()
    next(batches)
    assert any(thread.name.startswith("patch-loader") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("patch-loader") for thread in threading.enumerate())


@pytest.mark.parametrize("window_bytes", [STREAMING, 1 << 28], ids=["streamed", "in memory"])
def test_a_flipped_byte_stops_the_reader_with_the_repair_command(tmp_path, window_bytes):
    version = build(image_folder(tmp_path / "photos"), tmp_path / "store").version
    path = shard_uri(version.uri, version.shards[1].key)
    with open(path, "r+b") as file:  # noqa: PTH123 - a URI that is a local path here
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 1]))
    loader = PatchLoader(version, 10, 16, window_bytes=window_bytes)
    with pytest.raises(StoreError, match=r"patches build .* --repair"):
        take(loader, loader.steps_per_epoch)
    assert not any(thread.name.startswith("patch-loader") for thread in threading.enumerate())


def test_a_quality_factor_that_is_not_stored_is_refused(store):
    with pytest.raises(StoreError, match=r"no QF 33, only \[10, 40\]"):
        PatchLoader(store, 33, 16)


def test_a_step_larger_than_the_store_is_refused(store):
    with pytest.raises(StoreError, match="240 patches, fewer than a step takes"):
        PatchLoader(store, 10, 128, world=2)
