"""The order of samples is a pure function, and batches carry exactly the store's pixels."""

import threading
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.images.jpeg import compress, quantization_table
from pipeline.loading.device_pairs import make_pairs
from pipeline.loading.epoch_plan import plan_epoch, share_of_batch
from pipeline.loading.fresh_pairs import Crops, draw_crops, fill_pairs
from pipeline.loading.inputs import to_network
from pipeline.loading.loader import PatchLoader
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import locate_rows, read_rows
from storage.patches.versions import shard_uri
from tests.support.store_images import build, image_folder

COUNTS = [100, 100, 37, 100, 100, 8, 100, 64]
STREAMING = 40 * 2 * 32**2  # a window of 40 patches, so that the store does not fit


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    return build(image_folder(folder / "photos"), folder / "store").version


def memory(pixels) -> dict[str, Any]:
    """Loader options: a store of more pixels is streamed, in windows of so many."""
    return {"window_bytes": pixels, "hold_bytes": pixels}


def planned_rows(batch, epoch=0, window_rows=90, seed=(0,)):
    """Rows as (group, row), in the order in which they are given."""
    rows = []
    for window in plan_epoch(COUNTS, seed=seed, epoch=epoch, batch=batch, window_rows=window_rows):
        flat = [(s.group, row) for s in window.spans for row in range(s.start, s.stop)]
        rows += [flat[i] for i in window.order()]
    return rows


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


@pytest.mark.parametrize("batch", [1, 16, 50, 350])
def test_an_epoch_is_whole_batches_and_no_row_twice(batch):
    rows = planned_rows(batch)
    assert len(rows) == sum(COUNTS) // batch * batch
    assert len(set(rows)) == len(rows)
    assert all(0 <= row < COUNTS[group] for group, row in rows)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [7, 16, 50])
def test_ranks_share_a_batch_as_evenly_as_it_goes(world, batch):
    shares = [range(batch)[share_of_batch(batch, world, rank)] for rank in range(world)]
    assert [patch for share in shares for patch in share] == [*range(batch)]
    assert {len(share) for share in shares} <= {batch // world, -(-batch // world)}


def test_an_epoch_without_a_remainder_is_a_permutation_of_all_rows():
    rows = planned_rows(1)
    assert sorted(rows) == [(g, row) for g, rows in enumerate(COUNTS) for row in range(rows)]


def test_rows_that_one_epoch_drops_come_in_another():
    dropped = []
    for epoch in range(6):
        everything = {(g, row) for g, rows in enumerate(COUNTS) for row in range(rows)}
        dropped.append(everything - {*planned_rows(200, epoch)})
    assert all(dropped)
    assert not set.intersection(*dropped)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    assert planned_rows(16) == planned_rows(16)
    assert planned_rows(16) != planned_rows(16, epoch=1)
    assert planned_rows(16) != planned_rows(16, seed=(1,))


def test_a_batch_mixes_rows_of_several_row_groups():
    rows = planned_rows(32, window_rows=10_000)
    mixed = [len({group for group, _ in rows[i : i + 32]}) for i in range(0, len(rows), 32)]
    assert np.mean(mixed) > 4


@pytest.mark.parametrize("window_bytes", [STREAMING, 1 << 28], ids=["streamed", "in memory"])
def test_an_epoch_gives_every_pair_of_the_store_as_it_is_stored(store, window_bytes):
    stored = Counter()
    for shard in store.shards:
        originals, degraded = read_rows(store, shard, 0, ["original", "qf10"])
        stored.update((o.tobytes(), d.tobytes()) for o, d in zip(originals, degraded, strict=True))
    loader = PatchLoader(store, [10], 8, **memory(window_bytes))
    assert loader.steps_per_epoch == 240 // 8
    assert Counter(pairs(take(loader, loader.steps_per_epoch))) == stored


@pytest.mark.parametrize("window_bytes", [STREAMING, 1 << 28], ids=["streamed", "in memory"])
@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_of_a_step_have_together_what_one_alone_has(store, window_bytes, world):
    options = {"side": 16, "seed": (3, 0), **memory(window_bytes)}
    alone = take(PatchLoader(store, [10, 40], 16, **options), 20, first_step=5)
    ranks = [
        take(PatchLoader(store, [10, 40], 16, rank=rank, world=world, **options), 20, first_step=5)
        for rank in range(world)
    ]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert [(part.step, part.epoch) for part in parts] == [(whole.step, whole.epoch)] * world
        assert pairs(parts) == pairs([whole])
        assert np.array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
        assert torch.equal(torch.cat([part.tables for part in parts]), whole.tables)


@pytest.mark.parametrize("window_bytes", [STREAMING, 1 << 28], ids=["streamed", "in memory"])
@pytest.mark.parametrize("first", [1, 5, 14, 15, 33])
def test_starting_at_a_step_gives_what_an_undisturbed_reader_gets_there(store, window_bytes, first):
    loader = PatchLoader(store, [10], 16, **memory(window_bytes), seed=(3, 0))
    whole = take(loader, 40)
    later = take(loader, 40 - first, first_step=first)
    assert [(b.step, b.epoch) for b in later] == [(b.step, b.epoch) for b in whole[first:]]
    assert [b.step for b in whole] == list(range(40))
    assert pairs(later) == pairs(whole[first:])


def test_closing_the_iterator_ends_its_thread(store):
    batches = PatchLoader(store, [10], 16, **memory(STREAMING)).batches()
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
    loader = PatchLoader(version, [10], 16, **memory(window_bytes))
    with pytest.raises(StoreError, match=r"patches build .* --repair"):
        take(loader, loader.steps_per_epoch)
    assert not any(thread.name.startswith("patch-loader") for thread in threading.enumerate())


def test_a_quality_factor_that_is_not_stored_is_refused(store):
    with pytest.raises(StoreError, match=r"no QF \[33\], only \[10, 40\]"):
        PatchLoader(store, [33], 16)


def test_a_step_larger_than_the_store_is_refused(store):
    with pytest.raises(StoreError, match="240 patches, fewer than a step takes"):
        PatchLoader(store, [10], 256)


def stored(store, columns):
    """Every row of pixel columns, in store order."""
    groups = [
        read_rows(store, shard, number, columns)
        for shard in store.shards
        for number in range(-(-shard.rows // store.row_group_rows))
    ]
    return [np.concatenate(column) for column in zip(*groups, strict=True)]


@pytest.mark.parametrize("window_bytes", [1 << 28, STREAMING])
def test_a_batch_mixes_quality_factors_and_tells_each_ones_table(store, window_bytes):
    original, *compressed = stored(store, ["original", "qf10", "qf40"])
    tables = [quantization_table(qf) for qf in (10, 40)]
    loader = PatchLoader(store, [10, 40], 16, **memory(window_bytes))
    seen = Counter()
    for batch in take(loader, loader.steps_per_epoch):
        assert np.array_equal(batch.original.numpy(), original[batch.rows])
        for row, degraded, table in zip(batch.rows, batch.degraded, batch.tables, strict=True):
            quality = next(i for i in (0, 1) if np.array_equal(table.numpy(), tables[i]))
            assert np.array_equal(degraded.numpy(), compressed[quality][row])
            seen[quality] += 1
    assert sum(seen.values()) == 240
    assert min(seen.values()) > 80


def test_crops_lie_on_the_jpeg_grid_and_reach_every_place(tmp_path):
    spec = PatchSpec(side=48, stride=48, qfs=(10,), degradation="image")
    store = build(image_folder(tmp_path / "photos"), tmp_path / "store", spec).version
    (original,) = stored(store, ["original"])
    corners = Counter()
    loader = PatchLoader(store, [10], 8, side=32)
    for batch in take(loader, 4 * loader.steps_per_epoch):
        for row, crop in zip(batch.rows, batch.original.numpy(), strict=True):
            places = [(y, x) for y in (0, 8, 16) for x in (0, 8, 16)]
            corners[
                next(p for p in places if np.array_equal(_crop(original[row], *p, 32), crop))
            ] += 1
    assert len(corners) == 9


def _crop(patch, y, x, side):
    return patch[y : y + side, x : x + side]


def test_crops_are_the_same_after_a_resume(store):
    loader = PatchLoader(store, [10, 40], 16, side=16, **memory(STREAMING))
    assert pairs(take(loader, 10)[4:]) == pairs(take(loader, 6, first_step=4))


def small_groups(folder):
    """A store of 240 patches in row groups of 20."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.patches.build_store.row_group_rows", lambda spec: 20)
        patch.setattr("storage.patches.shard_writer.row_group_rows", lambda spec: 20)
        return build(image_folder(folder / "photos"), folder / "store").version


def test_what_is_held_out_is_given_for_validation_alone(tmp_path):
    store = small_groups(tmp_path)
    rows = {}
    for validation in (False, True):
        loader = PatchLoader(store, [10], 10, held_out=0.25, validation=validation)
        batches = take(loader, loader.steps_per_epoch)
        rows[validation] = {int(row) for batch in batches for row in batch.rows}
    assert len(rows[True]) == 60
    assert rows[True].isdisjoint(rows[False])
    assert rows[True] | rows[False] == set(range(240))


def test_a_share_of_the_store_is_the_same_in_every_epoch(tmp_path):
    store = small_groups(tmp_path)
    loader = PatchLoader(store, [10], 10, share=1 / 3)
    epochs = [take(loader, 8, first_step=first) for first in (0, 8, 16)]
    rows = [{int(row) for batch in epoch for row in batch.rows} for epoch in epochs]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 80


def test_rows_are_located_in_their_shards(store):
    first, rest = store.shards[0], store.shards[1:]
    last = store.shards[-1]
    assert rest, "this needs a store of several shards"
    assert locate_rows(store, [0, 2, store.rows - 1]) == {
        first.key: [0, 2],
        last.key: [last.rows - 1],
    }


def test_a_side_above_the_stores_is_refused(store):
    with pytest.raises(StoreError, match="side of 32, asked for is 40"):
        PatchLoader(store, [10], 16, side=40)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    spec = PatchSpec(side=64, stride=32, qfs=(), degradation="none")
    photos = image_folder(folder / "photos", count=6, size=(200, 160))
    return build(photos, folder / "store", spec).version


def fresh(originals, **options):
    return PatchLoader(originals, range(5, 96), 8, side=40, seed=(3,), **options)


@pytest.mark.parametrize("hold", [STREAMING, 1 << 30], ids=["streamed", "held"])
def test_pairs_of_originals_are_made_anew_and_compressed_at_the_quality_of_their_table(
    originals, hold
):
    loader = fresh(originals, hold_bytes=hold)
    first, second = (set(), set())
    for batch in take(loader, 2 * loader.steps_per_epoch):
        for original, degraded, qf in zip(
            batch.original.numpy(), batch.degraded.numpy(), qfs_of(batch), strict=True
        ):
            assert np.array_equal(degraded, compress(original, qf)[0])
        seen = first if batch.epoch == 0 else second
        seen.update(original.tobytes() for original in batch.original.numpy())
    assert len(first) == loader.steps_per_epoch * 8
    assert not first & second


def test_crops_of_originals_lie_anywhere_and_half_of_them_are_reduced(originals):
    crops = draw_crops((0,), 4_000, patch=64, side=40)
    assert (crops.side == 40).mean() == pytest.approx(0.5, abs=0.05)
    assert (crops.side.min(), crops.side.max()) == (40, 64)
    assert ((crops.corner >= 0) & (crops.corner + crops.side[:, None] <= 64)).all()
    assert set(crops.corner[crops.side == 40].ravel().tolist()) == set(range(25))
    patch = read_rows(originals, originals.shards[0], 0, ["original"])[0][0]
    uncut = Crops(np.array([[3, 5]]), np.array([40]))
    original, degraded = (np.empty((1, 40, 40), np.uint8) for _ in range(2))
    fill_pairs(patch[None], uncut, np.array([30]), original, degraded)
    assert np.array_equal(original[0], patch[3:43, 5:45])


def test_fresh_pairs_are_a_function_of_the_seed_and_resume_where_they_were(originals):
    whole = pairs(take(fresh(originals), 40))
    assert pairs(take(fresh(originals), 40)) == whole
    assert pairs(take(fresh(originals), 25, first_step=15)) == whole[15 * 8 :]
    assert pairs(take(fresh(originals, hold_bytes=STREAMING), 40)) == whole


def test_pairs_made_on_the_device_are_those_of_pillow_and_libjpeg(originals):
    whole = fresh(originals, pairs_on_device=True)
    for made, given in zip(take(fresh(originals), 40), take(whole, 40), strict=True):
        (degraded, tables), original = to_network(given, torch.device("cpu"), with_tables=True)
        pixels = (original * 255).round()[:, 0].to(torch.int16)
        off = (pixels - made.original.to(torch.int16)).abs()
        assert off.max() <= 1
        assert off.float().mean() < 0.01
        assert torch.equal(tables, made.tables.float())
        for one, jpeg, qf in zip(pixels, degraded, qfs_of(made), strict=True):
            compressed = compress(one.numpy().astype(np.uint8), qf)[0]
            assert np.array_equal((jpeg[0] * 255).round().numpy(), compressed)


def qfs_of(batch):
    qf_of = {quantization_table(qf).tobytes(): qf for qf in range(5, 96)}
    return [qf_of[table.numpy().astype(np.uint16).tobytes()] for table in batch.tables]


def test_libjpegs_pixels_also_at_extremes_and_at_every_quality():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (100, 16, 16), dtype=np.uint8)
    noise[50:] = np.where(noise[50:] < 128, 0, 255)
    tables = np.stack([quantization_table(qf) for qf in range(1, 101)]).astype(np.uint8)
    corner, side = torch.zeros(100, 2, dtype=torch.int64), torch.full((100,), 16)
    pixels = torch.from_numpy(noise)
    original, degraded = make_pairs(pixels, corner, side, torch.from_numpy(tables), to=16)
    assert torch.equal(original, pixels)
    for qf, one in enumerate(degraded.numpy(), 1):
        assert np.array_equal(one, compress(noise[qf - 1], qf)[0]), qf


def test_half_of_the_patches_get_one_of_the_frequent_quality_factors(store):
    loader = PatchLoader(store, [10, 40], 8, frequent_qfs=[40])
    forty = quantization_table(40)
    tables = [t for batch in take(loader, 250) for t in batch.tables.numpy()]
    assert np.mean([np.array_equal(t, forty) for t in tables]) == pytest.approx(0.75, abs=0.04)
