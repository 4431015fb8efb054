"""How versions are written down: heads, lists, what was written before, what is written later."""

import hashlib
import json
import random
import shutil
from dataclasses import asdict, replace

import duckdb
import pytest
from PIL import Image

from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.upkeep import gc, verify
from storage.patches.version_parts import NewerStoreError
from storage.patches.versions import open_head, open_store, version_numbers
from tests.support.store_images import build, image_folder, texture


@pytest.fixture
def photos(tmp_path):
    folder = image_folder(tmp_path / "photos")
    (folder / "broken.png").write_bytes(b"no image")
    shutil.copy(folder / "004.png", folder / "twin.png")
    Image.fromarray(texture(20, 200, seed=1)).save(folder / "flat.png")
    return folder


@pytest.fixture
def store(tmp_path, photos):
    """A store of two versions with rejects of every kind: unread, doubled, cut and too small."""
    build(photos, tmp_path / "store", max_rejected_share=0.5)
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    build(photos, tmp_path / "store", max_rejected_share=0.5)
    return tmp_path / "store"


def rewrite(store, number, change, without=()):
    """Change what a head says and give it the digest that belongs to it."""
    target = store / "versions" / f"{number}.json"
    values = json.loads(target.read_text()) | change
    values = {name: value for name, value in values.items() if name not in ("digest", *without)}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    target.write_text(json.dumps({**values, "digest": digest}))


def as_before(store):
    """Write every version as it was once: one JSON with everything."""
    for number in version_numbers(str(store)):
        version = open_store(str(store), number)
        values = {**asdict(version), "spec": json.loads(version.spec.to_json())}
        del values["uri"]
        values = json.loads(json.dumps(values))
        (store / "versions" / f"{number}.json").write_text(json.dumps({**values, "digest": ""}))
        rewrite(store, number, {})
        for beside in store.glob(f"versions/{number}-*"):
            beside.unlink()


def test_any_parquet_tool_reads_which_shard_an_image_is_in(store):
    version, head = open_store(str(store)), open_head(str(store))
    listed = str(store / "versions" / head.lists["shards"].file)
    found = duckdb.execute(
        "select key, rows, bytes, sha256, images from read_parquet(?) "
        "where list_contains(sources, '007.png')",
        [listed],
    ).fetchall()
    (shard,) = [s for s in version.shards if s.key == found[0][0]]
    assert found == [(shard.key, shard.rows, shard.bytes, shard.sha256, shard.images)]
    rejected = str(store / "versions" / head.lists["rejected"].file)
    reasons = duckdb.execute("select image, reason from read_parquet(?)", [rejected]).fetchall()
    assert reasons == [(r.image, r.reason) for r in version.rejected]
    assert {image for image, _ in reasons} == {"broken.png", "flat.png", "twin.png"}
    in_shards = {r.image for s in version.shards for r in s.rejected}
    assert in_shards == {"broken.png", "flat.png"}, "what was found when it was cut"


def test_the_history_is_told_by_heads_alone(store):
    versions = [open_store(str(store), number) for number in (1, 2)]
    for listed in store.glob("versions/*.parquet"):
        listed.unlink()
    for version in versions:
        head = open_head(str(store), version.number)
        assert head.shards == len(version.shards)
        for name in ("rows", "bytes", "images", "content", "spec", "packages", "created"):
            assert getattr(head, name) == getattr(version, name)
        assert head.rejected == len(version.rejected) == 3
    with pytest.raises(StoreError, match=r"2\.json is missing or damaged \(.*2-(shards|rejected)-"):
        open_store(str(store))


def test_a_flipped_bit_in_a_head_or_a_list_is_found(store):
    draw = random.Random(0)
    beside = list(store.glob("versions/2*"))
    assert len(beside) == 3
    for path in beside:
        whole = path.read_bytes()
        for _ in range(40):
            flipped = bytearray(whole)
            flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
            with pytest.raises(StoreError, match="damaged"):
                open_store(str(store))
        path.write_bytes(whole)
    assert open_store(str(store)).number == 2


def test_a_version_of_before_is_read_verified_rebuilt_and_cleaned_up(photos, store):
    wanted = [open_store(str(store), number) for number in (1, 2)]
    heads = [open_head(str(store), number) for number in (1, 2)]
    as_before(store)
    assert [open_store(str(store), number) for number in (1, 2)] == wanted
    for number, head in enumerate(heads, start=1):
        assert {**vars(open_head(str(store), number)), "lists": head.lists} == vars(head)
    assert all(whole for _, whole in verify(open_store(str(store))))
    assert not build(photos, store, max_rejected_share=0.5).published
    (photos / "003.png").unlink()
    third = build(photos, store, max_rejected_share=0.5).version
    assert gc(str(store), keep=2).versions == (1,)
    assert gc(str(store), keep=1).versions == (2,)
    assert open_store(str(store)) == third
    names = {p.name.partition("-")[0] for p in store.glob("versions/*")}
    assert names == {"3.json", "3"}
    as_before(store)
    rewrite(store, 3, {}, without=["shard_bytes"])
    assert open_store(str(store)) == replace(third, shard_bytes=None), "of 8 images a shard"


def test_a_store_of_a_later_format_is_left_alone_and_says_what_reads_it(photos, store):
    rewrite(store, 2, {"format": 3, "written_by": "qfactory 9.1", "shards": "elsewhere"})
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    for use in (open_store, open_head, gc):
        with pytest.raises(NewerStoreError, match=r"format 3, written by qfactory 9\.1; this is"):
            use(str(store))
    with pytest.raises(NewerStoreError, match="Install the version that wrote it"):
        build(photos, store, max_rejected_share=0.5)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    assert open_store(str(store), 1).number == 1


def test_lists_whose_head_was_never_written_go_and_what_is_not_ours_stays(photos, store):
    version = open_store(str(store))
    (store / "versions" / "3-shards-0123.parquet").write_bytes(b"of a killed build")
    (store / "versions" / "notes.txt").write_text("not ours")
    assert gc(str(store), keep=2).files == 0
    assert gc(str(store), keep=2, grace_s=0).files == 1
    assert (store / "versions" / "notes.txt").exists()
    assert open_store(str(store)) == version


def test_of_two_stores_in_one_folder_nothing_is_removed(photos, store, tmp_path):
    other = PatchSpec(side=40, stride=16, qfs=(10,), degradation="patch")
    build(photos, tmp_path / "other", spec=other, max_rejected_share=0.5)
    shutil.copytree(tmp_path / "other", store, dirs_exist_ok=True)
    assert open_store(str(store)).spec == other, "what CURRENT names, whole"
    assert all(whole for _, whole in verify(open_store(str(store))))
    with pytest.raises(StoreError, match="two stores were mixed in one folder: versions"):
        gc(str(store))
    assert all(whole for _, whole in verify(open_store(str(store), 2)))


def test_a_store_that_was_copied_by_half_tells_what_is_missing(store, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(store / "CURRENT", half)
    with pytest.raises(StoreError, match=r"2\.json is missing"):
        open_store(str(half))
    shutil.copytree(store / "versions", half / "versions")
    version = open_store(str(half))
    assert not any(whole for _, whole in verify(version))
    shutil.copytree(store / "shards", half / "shards")
    assert all(whole for _, whole in verify(version))
    assert files.exists(version.uri)
