"""The contract of a patch store, on local folders and on an object store."""

import hashlib
import json
import os
import shlex
import shutil
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.images.jpeg import compress, quantization_table
from pipeline.patches import store_size
from pipeline.patches.store_size import expected_bytes, overlap_warning
from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import open_shard, read_rows
from storage.patches.source_images import source_hashes
from storage.patches.upkeep import gc, record_verification, sample_rows, verify, when_verified
from storage.patches.versions import open_store, shard_uri
from tests.support.store_images import SPEC, build, fail_midway, image_folder, texture

ROWS_AN_IMAGE = 12  # 70x90 at side 32, stride 16


def shard_digests(store):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in store.glob("shards/*")}


def all_rows(version, column):
    """Every row of a version as (image, y, x, pixels), in store order."""
    rows = []
    for shard in version.shards:
        with open_shard(version, shard) as parquet:
            table = parquet.read(columns=["image", "y", "x", column])
        rows += zip(*(table.column(i).to_pylist() for i in range(4)), strict=True)
    return rows


@pytest.fixture
def photos(tmp_path):
    return image_folder(tmp_path / "photos")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_every_patch_of_every_image_is_there_once(photos, store):
    version = build(photos, store).version
    rows = all_rows(version, "original")
    places = {(image, y, x) for image, y, x, _ in rows}
    assert len(places) == len(rows) == version.rows == 20 * ROWS_AN_IMAGE
    assert version.images == 20
    for image, y, x, pixels in rows[::17]:
        luma = np.asarray(Image.open(photos / image))
        assert pixels == luma[y : y + 32, x : x + 32].tobytes()


def test_a_compressed_column_holds_the_patch_compressed_at_its_qf(photos, store):
    version = build(photos, store).version
    for (*_, original), (*_, degraded) in zip(
        all_rows(version, "original")[::31], all_rows(version, "qf10")[::31], strict=True
    ):
        patch = np.frombuffer(original, np.uint8).reshape(32, 32)
        assert compress(patch, 10)[0].tobytes() == degraded


def test_an_unchanged_rebuild_writes_nothing(photos, store):
    first = build(photos, store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    again = build(photos, store)
    assert first.published
    assert not again.published
    assert (again.built, again.version) == (0, first.version)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_one_changed_image_rewrites_one_shard(photos, store):
    first = build(photos, store)
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    second = build(photos, store)
    assert second.built == 1
    assert second.reused == len(first.version.shards) - 1
    assert (first.version.number, second.version.number) == (1, 2)
    assert open_store(str(store), version=1) == first.version


def test_an_added_image_rewrites_few_shards(photos, store):
    image_folder(photos, count=100)
    build(photos, store)
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "050a.png")
    assert build(photos, store).built <= 3


def test_the_same_inputs_give_byte_identical_shards(photos, tmp_path):
    build(photos, tmp_path / "a")
    build(photos, tmp_path / "b")
    assert shard_digests(tmp_path / "a") == shard_digests(tmp_path / "b")


def test_row_groups_are_equal_but_the_last(tmp_path, store):
    photos = image_folder(tmp_path / "large", count=4, size=(400, 500))
    version = build(photos, store, shard_bytes=64 << 20).version
    for shard in version.shards:
        with open_shard(version, shard) as parquet:
            rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        assert len(rows) > 1
        assert set(rows[:-1]) == {version.row_group_rows}
        assert 0 < rows[-1] <= version.row_group_rows
        assert sum(rows) == shard.rows


def test_a_shard_alone_tells_how_to_read_it(photos, store):
    version = build(photos, store).version
    notes = pq.read_schema(shard_uri(str(store), version.shards[0].key)).metadata
    assert json.loads(notes[b"qfactory.qfs"]) == [10, 40]
    assert notes[b"qfactory.side"] == b"32"
    tables = json.loads(notes[b"qfactory.quantization_tables"])
    assert tables["10"] == quantization_table(10).ravel().tolist()
    assert PatchSpec.from_json(notes[b"qfactory.spec"].decode()) == SPEC


def test_a_flipped_byte_is_refused_with_the_command_that_repairs_it(photos, store):
    version = build(photos, store).version
    shard = version.shards[0]
    target = store / "shards" / f"{shard.key}.parquet"
    content = bytearray(target.read_bytes())
    column = pq.read_metadata(target).row_group(0).column(3)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    target.write_bytes(content)
    with pytest.raises(StoreError, match=r"qfactory patches build .*--repair"):
        read_rows(version, shard, 0, ["original"])
    assert [whole for _, whole in verify(version)].count(False) == 1
    repaired = build(photos, store, repair=True)
    assert (repaired.built, repaired.published) == (1, False)
    assert all(whole for _, whole in verify(version))


def test_a_missing_shard_is_built_again(photos, store):
    version = build(photos, store).version
    (store / "shards" / f"{version.shards[0].key}.parquet").unlink()
    with pytest.raises(StoreError, match="missing or damaged"):
        read_rows(version, version.shards[0], 0, ["original"])
    assert build(photos, store).built == 1
    assert all(whole for _, whole in verify(version))


def test_a_store_of_another_spec_is_refused(photos, store):
    build(photos, store)
    other = PatchSpec(side=40, stride=16, qfs=(10,), degradation="patch")
    with pytest.raises(StoreError, match="another spec"):
        build(photos, store, spec=other)
    with pytest.raises(StoreError, match="qfactory patches build"):
        open_store(str(store), spec=other)


def test_a_missing_and_an_unfinished_store_say_what_to_do(photos, store):
    with pytest.raises(StoreError, match="there is no patch store"):
        open_store(str(store))
    build(photos, store)
    (store / "CURRENT").unlink()
    with pytest.raises(StoreError, match="unfinished"):
        open_store(str(store))
    assert build(photos, store).built == 0


def test_a_damaged_version_file_is_refused_and_rebuilt(photos, store):
    build(photos, store)
    target = store / "versions" / "1.json"
    damaged = target.read_text().replace('"images": ', '"images": 1', 1)
    target.write_text(damaged)
    with pytest.raises(StoreError, match="digest"):
        open_store(str(store))
    assert build(photos, store).version.number == 2
    assert open_store(str(store)).rows == 20 * ROWS_AN_IMAGE


def test_a_damaged_shard_without_a_version_file_is_not_taken_for_whole(photos, store):
    version = build(photos, store).version
    target = store / "shards" / f"{version.shards[0].key}.parquet"
    content = bytearray(target.read_bytes())
    column = pq.read_metadata(target).row_group(0).column(3)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    target.write_bytes(content)
    (store / "versions" / "1.json").write_text("{")
    again = build(photos, store)
    assert again.built == 1
    assert again.version.shards == version.shards
    assert all(whole for _, whole in verify(again.version))


def test_the_build_command_can_be_pasted_whatever_the_names(photos, tmp_path):
    version = build(photos, tmp_path / "my stores").version
    words = shlex.split(version.repair_command)
    assert words[:3] == ["qfactory", "patches", "build"]
    assert version.uri in words
    assert version.dataset in words


def test_an_unknown_version_lists_those_that_are_there(photos, store):
    build(photos, store)
    with pytest.raises(StoreError, match=r"no version 7; there are \[1\]"):
        open_store(str(store), version=7)


def test_unusable_images_are_listed_with_their_reasons_and_the_build_goes_on(photos, store):
    (photos / "empty.png").write_bytes(b"")
    (photos / "cut.png").write_bytes((photos / "003.png").read_bytes()[:200])
    shutil.copy(photos / "004.png", photos / "twin of 004.png")
    Image.fromarray(texture(20, 200, seed=1)).save(photos / "flat.png")
    version = build(photos, store, max_rejected_share=0.5).version
    reasons = {reject.image: reject.reason for reject in version.rejected}
    assert set(reasons) == {"empty.png", "cut.png", "twin of 004.png", "flat.png"}
    assert "004.png" in reasons["twin of 004.png"]
    assert "smaller than a patch" in reasons["flat.png"]
    assert version.rows == 20 * ROWS_AN_IMAGE


def test_a_photo_too_small_when_rescaled_is_listed_with_both_sizes(photos, store):
    Image.fromarray(texture(200, 300, seed=1)).save(photos / "large.png")
    spec = PatchSpec(side=64, stride=8, qfs=(10,), degradation="rescaled")
    version = build(photos, store, spec=spec, max_rejected_share=1.0).version
    assert version.images == 1
    assert {reject.reason for reject in version.rejected} == {
        "smaller than a patch: 90x70, rescaled to 45x35 < 64x64"
    }
    assert {image for image, *_ in all_rows(version, "qf10")} == {"large.png"}
    ys = [y for _, y, *_ in all_rows(version, "qf10")]
    assert max(ys) <= 100 - 64


def test_too_many_rejects_fail_the_build_and_the_previous_version_stays(photos, store):
    first = build(photos, store).version
    for number in range(10):
        (photos / f"bad{number}.png").write_bytes(b"no image")
    with pytest.raises(StoreError, match="10 of 30 images were rejected"):
        build(photos, store)
    assert open_store(str(store)) == first


def test_rejects_are_told_by_name_up_to_ten_and_a_file_has_the_rest(photos, store):
    for number in range(12):
        (photos / f"bad{number:02}.png").write_bytes(b"no image" * number)
    with pytest.raises(StoreError) as caught:
        build(photos, store)
    _, *told = str(caught.value).splitlines()
    assert told[0] == "  bad00.png: empty: the file has no bytes"
    assert told[9].startswith("  bad09.png: ")
    assert told[10:] == [f"  and 2 more; the rest is in {store}/rejected.txt"]
    assert (store / "rejected.txt").read_text().splitlines()[11].startswith("bad11.png: ")
    build(photos, store, max_rejected_share=0.5)
    assert not (store / "rejected.txt").exists()


def test_a_version_tells_when_its_bytes_were_last_compared(photos, store):
    first = build(photos, store).version
    assert when_verified(first) == f"not compared byte by byte since it was built, {first.created}"
    record_verification(first, damaged=1)
    assert when_verified(first).startswith("1 of 2 shards were damaged at 20")
    record_verification(first, damaged=0)
    assert when_verified(first).startswith("every byte was as published at 20")
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    assert "not compared" in when_verified(build(photos, store).version)


def test_a_dataset_without_a_usable_image_is_refused(tmp_path, store):
    photos = image_folder(tmp_path / "small", count=3, size=(16, 16))
    with pytest.raises(StoreError, match="none of 3 images"):
        build(photos, store, max_rejected_share=1.0)
    assert not (store / "CURRENT").exists()


def test_an_image_that_changes_during_the_build_stops_it(photos, store):
    def scan_then_change(function, items):
        Image.fromarray(texture(70, 90, seed=77)).save(photos / "005.png")
        return map(function, items)

    with pytest.raises(StoreError, match=r"005\.png changed"):
        build(photos, store, parallel=scan_then_change)
    assert not (store / "CURRENT").exists()


def test_a_stride_far_below_the_side_is_warned_about_with_the_size(photos, monkeypatch):
    spec = PatchSpec(side=64, stride=1, qfs=(10,), degradation="image")
    scanned = scan_images(list_images(f"folder:{photos}", root=None, purpose="train"))
    patches = 20 * (70 - 64 + 1) * (90 - 64 + 1)
    assert expected_bytes(spec, scanned) == patches * 64 * 64 * 2
    assert overlap_warning(spec, scanned) == ""
    monkeypatch.setattr(store_size, "LARGE_BYTES", 1_000_000)
    assert overlap_warning(spec, scanned).startswith(
        "0.0 GB: at stride 1 a pixel lies in 4096 patches of 64x64; --stride 64 makes"
    )
    assert overlap_warning(replace(spec, stride=16), scanned) == ""


def test_gc_removes_what_no_kept_version_names(photos, store):
    build(photos, store)
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    second = build(photos, store).version
    orphan = store / "shards" / "0123.parquet"
    orphan.write_bytes(b"left behind")
    assert gc(str(store), keep=2).files == 0
    removed = gc(str(store), keep=1)
    assert removed.versions == (1,)
    assert removed.files == 4, "its head, its list of shards, a shard, its list of images"
    assert orphan.exists()
    assert gc(str(store), grace_s=0).files == 1
    assert not orphan.exists()
    assert all(whole for _, whole in verify(second))


def test_a_version_tells_the_hashes_of_its_images_without_its_shards(photos, store):
    (photos / "broken.png").write_bytes(b"no image")
    version = build(photos, store).version
    wanted = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in photos.iterdir()}
    (sources,) = (store / "sources").iterdir()
    assert set(pq.read_table(sources).column("image").to_pylist()) == set(wanted)
    (store / "shards").rename(store / "away")
    assert source_hashes(version) == wanted
    (store / "away").rename(store / "shards")

    content = bytearray(sources.read_bytes())
    content[content.index(b"000.png")] ^= 1
    sources.write_bytes(content)
    with pytest.raises(StoreError, match="delete it, and run the same `qfactory patches build`"):
        source_hashes(version)
    sources.unlink()
    assert source_hashes(version) == wanted, "as in stores of before, out of the shards"
    assert not build(photos, store).published
    assert source_hashes(version) == wanted


def test_a_build_removes_what_killed_ones_left_behind_an_hour_ago(photos, store):
    build(photos, store)
    old, new = store / "shards" / ".tmp-old", store / "versions" / ".tmp-new"
    for path, seconds in ((old, 3700), (new, 60)):
        path.write_bytes(b"half")
        then = time.time() - seconds
        os.utime(path, (then, then))
    build(photos, store)
    assert not old.exists()
    assert new.exists()


def test_sampled_pairs_are_rows_of_the_store(photos, store):
    version = build(photos, store).version
    known = {pixels for *_, pixels in all_rows(version, "original")}
    for row in sample_rows(version, count=5):
        assert list(row) == ["original", "qf10", "qf40"]
        assert row["original"].tobytes() in known
        np.testing.assert_array_equal(row["qf10"], compress(row["original"], 10)[0])


def test_of_two_writers_of_one_file_exactly_one_creates_it(tmp_path):
    target = str(tmp_path / "versions" / "1.json")
    assert files.create_bytes(target, b"first")
    assert not files.create_bytes(target, b"second")
    assert files.read_bytes(target) == b"first"


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    target = str(tmp_path / "a.bin")
    files.write_bytes(target, b"before")
    with pytest.raises(RuntimeError, match="midway"):
        fail_midway(target)
    assert files.read_bytes(target) == b"before"
    assert files.list_names(str(tmp_path)) == ["a.bin"]
