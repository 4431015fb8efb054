"""What `patches diff` tells, held against what was done to the images between two builds."""

import dataclasses
import shutil

import pytest
from PIL import Image

from storage.files import StoreError
from storage.patches.differences import difference, two_versions
from storage.patches.schema import PatchSpec
from storage.patches.versions import open_store
from tests.support.store_images import build, image_folder, texture

ROWS_AN_IMAGE = 12  # 70x90 at side 32, stride 16


@pytest.fixture
def photos(tmp_path):
    return image_folder(tmp_path / "photos")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_added_removed_changed_and_rejected_images_are_told_with_their_patches(photos, store):
    build(photos, store)
    (photos / "002.png").unlink()
    Image.fromarray(texture(70, 90, seed=998)).save(photos / "new.png")
    Image.fromarray(texture(32, 90, seed=997)).save(photos / "007.png")
    (photos / "cut.png").write_bytes((photos / "003.png").read_bytes()[:200])
    shutil.copy(photos / "005.png", photos / "twin.png")
    build(photos, store, max_rejected_share=0.5)
    found = difference(*two_versions(str(store)))
    assert found.images_added == ("cut.png", "new.png", "twin.png")
    assert found.images_removed == ("002.png",)
    assert found.images_changed == ("007.png",)
    assert (found.rows_added, found.rows_removed) == (ROWS_AN_IMAGE, ROWS_AN_IMAGE)
    assert found.rows_changed == (ROWS_AN_IMAGE, 4)
    assert found.rows == (240, 232)
    assert found.rejected_added == ("cut.png", "twin.png")
    assert found.rejected_removed == ()
    older, newer = (
        {s.key for s in v.shards} for v in (open_store(str(store), 1), open_store(str(store)))
    )
    kept = len(older & newer)
    assert found.shards == {
        "kept": kept, "added": len(newer) - kept, "removed": len(older) - kept,
    }  # fmt: skip
    assert not found.settings
    assert not found.is_empty
    backwards = difference(*two_versions(str(store), 2, 1))
    assert backwards.images_added == found.images_removed
    assert backwards.rows_removed == found.rows_added


def test_other_settings_and_packages_are_told_and_a_version_is_no_different_from_itself(
    photos, store, tmp_path
):
    version = build(photos, store).version
    assert difference(version, version).is_empty
    spec = PatchSpec(side=32, stride=32, qfs=(10,), degradation="patch")
    other = build(photos, tmp_path / "other", spec=spec, shard_bytes=1 << 20).version
    other = dataclasses.replace(other, packages={**other.packages, "jpeg": "libjpeg 6b"})
    found = difference(version, other)
    assert found.settings == {
        "qfs": ([10, 40], [10]), "shard_bytes": (version.shard_bytes, 1 << 20), "stride": (16, 32),
    }  # fmt: skip
    assert found.packages == {"jpeg": (version.packages["jpeg"], "libjpeg 6b")}
    assert found.shards["kept"] == 0
    assert (found.images_added, found.images_changed) == ((), ())


def test_a_store_of_one_version_says_where_another_comes_from(photos, store):
    build(photos, store)
    with pytest.raises(StoreError, match=r"has one version, 1, .*a build that finds changed"):
        two_versions(str(store))
    with pytest.raises(StoreError, match=r"no version 7; there are \[1\]"):
        two_versions(str(store), 7)


def test_a_damaged_shard_is_named_with_its_repair(photos, store):
    build(photos, store)
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    older, newer = two_versions(build(photos, store).version.uri)
    (gone,) = {s.key for s in older.shards} - {s.key for s in newer.shards}
    (store / "shards" / f"{gone}.parquet").unlink()
    with pytest.raises(StoreError, match=f"{gone}.* is missing or damaged .*--repair"):
        difference(older, newer)
