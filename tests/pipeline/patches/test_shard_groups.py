"""Shards are cut by bytes where the images say so: a change stays near, whatever came before."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.sources import ScannedImage
from pipeline.patches import plan_store
from pipeline.patches.build_store import build_store
from pipeline.patches.plan_store import in_numbers, plan_build, told_cuts
from pipeline.patches.shard_groups import (
    MOST_SHARD_BYTES,
    SHARDS_OF_A_SMALL_STORE,
    group_images,
    target_of_new_store,
)
from pipeline.patches.store_size import expected_bytes, patch_bytes
from storage.patches.schema import PatchSpec
from storage.patches.upkeep import verify
from storage.patches.versions import open_store
from tests.support.store_images import SPEC, build, image_folder, scan, texture_file

TARGET = 4 << 20
LARGE = PatchSpec(side=64, stride=32, qfs=(10, 20, 30, 40), degradation="image")


def images(draw, count):
    """So many images of random names and sizes, sorted by name."""
    return sorted((an_image(draw) for _ in range(count)), key=lambda image: image.name)


def an_image(draw):
    name = f"{draw.integers(1 << 40):012x}.png"
    height, width = (int(side) for side in draw.integers(64, 500, 2))
    digest = hashlib.sha256(name.encode()).hexdigest()
    return ScannedImage(name=name, uri=name, sha256=digest, height=height, width=width)


def rewritten(before, after):
    """How many groups are not there already."""
    return len({*group_images(after, LARGE, TARGET)} - {*group_images(before, LARGE, TARGET)})


def group_bytes(group):
    return sum(patch_bytes(image, LARGE) for image in group)


@pytest.mark.parametrize("seed", range(20))
def test_every_image_is_in_one_group_in_order_and_groups_have_about_the_target(seed):
    some = images(np.random.default_rng(seed), 300)
    groups = group_images(some, LARGE, TARGET)
    assert [image for group in groups for image in group] == some
    sizes = [group_bytes(group) for group in groups]
    assert max(sizes) <= 2 * TARGET
    largest = max(patch_bytes(image, LARGE) for image in some)
    assert min(sizes[:-1]) >= min(TARGET / 2, 2 * TARGET - largest)
    assert 0.9 * TARGET < np.mean(sizes[:-1]) < 1.6 * TARGET


def test_one_change_rewrites_about_one_shard():
    draw = np.random.default_rng(0)
    counts = {"added": [], "gone": [], "changed": []}
    for _ in range(150):
        some = images(draw, 300)
        place = int(draw.integers(len(some)))
        new = sorted([*some, an_image(draw)], key=lambda image: image.name)
        counts["added"].append(rewritten(some, new))
        counts["gone"].append(rewritten(some, some[:place] + some[place + 1 :]))
        same_size = replace(some[place], sha256="0" * 64)
        changed = [*some[:place], same_size, *some[place + 1 :]]
        counts["changed"].append(rewritten(some, changed))
    assert set(counts["changed"]) == {1}
    for kind in ("added", "gone"):
        assert np.mean(counts[kind]) < 1.6, kind
        assert np.quantile(counts[kind], 0.95) <= 4, kind


def test_an_image_larger_than_a_shard_has_one_alone():
    some = images(np.random.default_rng(1), 9)
    some[4] = replace(some[4], height=5000, width=5000)
    groups = group_images(some, LARGE, TARGET)
    assert (some[4],) in groups
    assert group_bytes([some[4]]) > 2 * TARGET


def test_images_that_give_no_patches_do_not_pile_up_in_one_shard():
    damaged = [replace(image, height=0, width=0) for image in images(np.random.default_rng(2), 500)]
    assert expected_bytes(LARGE, damaged) == 0
    assert len(group_images(damaged, LARGE, TARGET)) > 1


def test_a_new_store_is_cut_finely_while_it_is_small():
    draw = np.random.default_rng(3)
    few, many = images(draw, 1000), images(draw, 20_000)
    assert target_of_new_store(LARGE, few[:10]) == 5 << 20, "a row group of 1 MiB a column"
    shards = len(group_images(few, LARGE, target_of_new_store(LARGE, few)))
    assert SHARDS_OF_A_SMALL_STORE / 2 < shards <= SHARDS_OF_A_SMALL_STORE
    assert target_of_new_store(LARGE, many) == MOST_SHARD_BYTES == 64 << 20


def test_a_store_of_eight_images_a_shard_stays_as_it_is_until_asked(tmp_path, monkeypatch):
    photos, store = image_folder(tmp_path / "photos", 60), tmp_path / "store"
    monkeypatch.setattr(plan_store, "target_of_new_store", lambda spec, images: None)
    first = build(photos, store, shard_bytes=None).version
    monkeypatch.undo()
    assert json.loads((store / "versions" / "1.json").read_text())["shard_bytes"] is None
    counts = [shard.images for shard in first.shards]
    assert counts == [5, 15, 4, 4, 12, 12, 6, 2], "as before there were shards by bytes"
    assert not build(photos, store, shard_bytes=None).published
    texture_file(photos / "030.png", 70, 90, seed=99)
    second = build(photos, store, shard_bytes=None)
    assert (second.built, second.reused) == (1, 7)
    assert second.version.shard_bytes is None

    plan = plan_build(str(store), SPEC, scan(photos), shard_bytes=1 << 20)
    count = len(plan.tasks)
    assert told_cuts(plan) == (
        f"all {count} shards are written anew, this once: of about 1 MiB of pixels each, where "
        "they were of about 8 images"
    )
    anew = build(photos, store, shard_bytes=1 << 20)
    assert (anew.built, anew.version.rows) == (count, first.rows)
    assert open_store(str(store)).shard_bytes == 1 << 20
    assert all(whole for _, whole in verify(anew.version))
    assert not build(photos, store, shard_bytes=None).published, "and it is kept"


def test_a_store_cut_far_too_finely_is_told_how_to_have_fewer_shards(tmp_path):
    photos, store = image_folder(tmp_path / "photos", 20), tmp_path / "store"
    build(photos, store, shard_bytes=1 << 15)
    plan = plan_build(str(store), SPEC, scan(photos))
    assert told_cuts(plan) == (
        "20 shards of about 0.0312 MiB of pixels each: --shard-mib 3 writes them anew, once, as 1"
    )


def test_a_plan_says_what_the_build_then_does(tmp_path):
    photos, store = image_folder(tmp_path / "photos", 30), tmp_path / "store"
    build(photos, store)
    texture_file(photos / "003.png", 70, 90, seed=99)
    texture_file(photos / "004a.png", 200, 100, seed=98)
    texture_file(photos / "004b.png", 20, 100, seed=97)
    (photos / "020.png").unlink()
    scanned = scan(photos)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    planned = in_numbers(plan_build(str(store), SPEC, scanned), str(store), scanned)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert after == before, "nothing is written"
    assert (planned.images_new, planned.images_changed, planned.images_gone) == (2, 1, 1)
    report = build_store(str(store), SPEC, scanned, f"folder:{photos}")
    assert (planned.shards_to_write, planned.shards_to_reuse) == (report.built, report.reused)
    assert planned.rows == report.version.rows == 29 * 12 + 11 * 5
    assert planned.bytes_to_write == planned.rows_to_write * 32 * 32 * 3
    first = in_numbers(plan_build(f"{store}2", SPEC, scanned), f"{store}2", scanned)
    assert (first.rows_to_write, first.images_new) == (planned.rows, 31)
