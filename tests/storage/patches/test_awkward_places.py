"""Stores and images under names, and in places, that people do use."""

import shutil
import unicodedata

import duckdb
import pytest
from PIL import Image

from storage.patches.upkeep import gc, record_verification, verify
from storage.patches.versions import open_store, shard_uri
from tests.support.store_images import build, image_folder, texture


@pytest.fixture
def photos(tmp_path):
    return image_folder(tmp_path / "photos", count=6)


@pytest.mark.parametrize("place", ['my "best" store\'s', "[1]*?", "a#b%20c", "naïve"])
def test_a_store_may_lie_where_its_path_has_spaces_quotes_and_patterns(place, photos, tmp_path):
    (tmp_path / "my best store").mkdir()
    store = tmp_path / place / "store"
    first = build(photos, store).version
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "003.png")
    second = build(photos, store).version
    assert open_store(str(store)) == second
    assert open_store(f"{store}/", 1) == first
    assert all(whole for _, whole in verify(second))
    assert gc(str(store)).versions == (1,)
    assert all(whole for _, whole in verify(second))
    if "*" not in place:
        paths = [shard_uri(second.uri, shard.key) for shard in second.shards]
        assert len(duckdb.read_parquet(paths)) == second.rows


def test_names_that_differ_in_case_or_normalisation_are_different_images(photos, tmp_path):
    composed = unicodedata.normalize("NFC", "é.png")
    names = ["A.png", "a.png", "a.PNG", composed, unicodedata.normalize("NFD", composed)]
    for seed, name in enumerate(names, start=100):
        Image.fromarray(texture(70, 90, seed=seed)).save(photos / name, "PNG")
    if len({path.name for path in photos.iterdir()}) < 6 + len(names):
        pytest.skip("this file system takes some of the names for the same")
    version = build(photos, tmp_path / "store").version
    assert version.images == 6 + len(names)
    paths = [shard_uri(version.uri, shard.key) for shard in version.shards]
    found = duckdb.read_parquet(paths).select("image").distinct().fetchall()
    assert {name for (name,) in found} >= set(names)
    shutil.copy(photos / "A.png", photos / "b.png")
    (reject,) = build(photos, tmp_path / "store").version.rejected
    assert (reject.image, reject.reason) == ("b.png", "the same bytes as A.png")


def test_a_store_among_its_images_is_no_image(photos):
    store = photos / "patches"
    first = build(photos, store).version
    record_verification(first, 0)
    (store / "lease").write_text("held")
    again = build(photos, store)
    assert not again.published
    assert again.version == first
    (photos / "CURRENT").write_bytes(b"beside no shards")
    assert [r.image for r in build(photos, store, max_rejected_share=0.5).version.rejected] == [
        "CURRENT"
    ]
