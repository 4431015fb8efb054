"""The same store on an object store: a real S3 protocol server on this machine."""

import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from fsspec.config import conf

from pipeline.datasets import folders
from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.health.node_probe import probe
from pipeline.health.places import check_places
from storage import files
from storage.checkpoints import checkpoint_steps, save_checkpoint
from storage.files import StoreError
from storage.leases import held
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import read_rows
from storage.patches.upkeep import gc, verify
from storage.patches.versions import open_store
from storage.retention import checkpoint_garbage, store_garbage
from tests.support.store_images import build, fail_midway, image_folder

pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'qfactory[s3]'")
S3File = pytest.importorskip("s3fs.core").S3File
moto = pytest.importorskip("moto", reason="moto's S3 server is not installed")
pytestmark = pytest.mark.slow  # the server and its clients are seconds of imports


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket on a local S3 server."""
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    address = next(
        line.split("Running on ")[1].strip() for line in server.stderr if "Running on" in line
    )
    saved = dict(conf)
    try:
        yield from bucket_at(address)
    finally:
        conf.clear()
        conf.update(saved)
        server.send_signal(signal.SIGTERM)
        server.wait()


def bucket_at(address):
    """Make a bucket on the S3 server and let fsspec know where it is."""
    wait_until_it_answers(address)
    conf["s3"] = {
        "key": "test",
        "secret": "test",
        "endpoint_url": address,
        "client_kwargs": {"region_name": "us-east-1"},
    }
    urllib.request.urlopen(urllib.request.Request(f"{address}/qfactory", method="PUT"))
    yield "s3://qfactory"


def wait_until_it_answers(address):
    for _ in range(100):
        try:
            urllib.request.urlopen(address, timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the S3 server at {address} does not answer")


def test_a_store_on_s3_has_the_same_shards_as_one_on_the_disk(tmp_path, bucket):
    photos = image_folder(tmp_path / "photos", 20)
    place = f"{bucket}/a store's #1"
    local = build(photos, tmp_path / "store").version
    remote = build(photos, place).version
    assert remote.shards == local.shards
    assert all(whole for _, whole in verify(remote))
    for shard in remote.shards:
        ours = read_rows(remote, shard, 0, ["qf10"])[0]
        assert (ours == read_rows(local, shard, 0, ["qf10"])[0]).all()
    assert not build(photos, place).published
    (photos / "003.png").unlink()
    second = build(photos, place)
    assert second.version.number == 2
    assert gc(place, keep=1, grace_s=0).versions == (1,)
    assert open_store(place) == second.version


def test_what_nothing_needs_is_told_and_removed_on_s3(bucket):
    stores, checkpoints = f"{bucket}/old/stores", f"{bucket}/old/checkpoints"
    weights = f"{checkpoints}/done/weights.safetensors"
    save_checkpoint(f"{checkpoints}/done", 10, {}, {})
    files.write_bytes(weights, b"weights")
    files.write_bytes(f"{stores}/begun/shards/0123.parquet", b"half a store")
    registered = {weights: files.sha256_of(weights)}

    def found(older_than_s):
        yield from store_garbage(stores, older_than_s=older_than_s)
        yield from checkpoint_garbage(checkpoints, registered, older_than_s=older_than_s)

    assert [*found(3600)] == []
    shard, checkpoint = found(-3600)
    assert (shard.place, shard.files, shard.bytes) == (f"{stores}/begun", 1, 12)
    assert (checkpoint.place, checkpoint.files) == (f"{checkpoints}/done", 1)
    with held(f"{checkpoints}/done.lease"):
        checkpoint.remove()
        assert checkpoint_steps(f"{checkpoints}/done") == [10]
        assert [garbage.place for garbage in found(-3600)] == [shard.place]
    for garbage in (shard, checkpoint):
        garbage.remove()
    assert [*found(-3600)] == []
    assert files.list_names(f"{checkpoints}/done") == ["weights.safetensors"]


def test_rows_of_a_shard_on_s3_are_asked_for_and_no_more(tmp_path, bucket, monkeypatch):
    spec = PatchSpec(side=64, stride=8, qfs=(10, 20, 30, 40), degradation="image")
    photos = image_folder(tmp_path / "photos", 3, size=(400, 400))
    store = build(photos, f"{bucket}/asked", spec=spec).version
    shard = store.shards[0]
    asked, fetch = [], S3File._fetch_range

    def counted(file, start, end):
        asked.append(end - start)
        return fetch(file, start, end)

    monkeypatch.setattr(S3File, "_fetch_range", counted)
    (pixels,) = read_rows(store, shard, 0, ["qf10"])
    assert sum(asked) < pixels.nbytes + (128 << 10), "the page and the footer"
    assert sum(asked) < shard.bytes / 4
    assert len(asked) <= 4


def test_an_image_on_s3_is_read_once_until_another_takes_its_place(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(folders, "YOUNG_S", -60.0)
    for photo in image_folder(tmp_path / "photos", 3).iterdir():
        files.write_bytes(f"{bucket}/photos/{photo.name}", photo.read_bytes())

    def scan():
        images = list_images(f"folder:{bucket}/photos", root=None, purpose="train")
        asked.clear()
        return scan_images(images, known_in=f"{bucket}/known.parquet")

    asked, read_bytes = [], files.read_bytes
    monkeypatch.setattr(files, "read_bytes", lambda uri: asked.append(uri) or read_bytes(uri))
    first = scan()
    assert len(asked) == 1 + 3
    assert scan() == first
    assert asked == [f"{bucket}/known.parquet"]
    files.write_bytes(f"{bucket}/photos/001.png", read_bytes(first[2].uri))
    assert [image.sha256 for image in scan()][1:] == [first[2].sha256] * 2
    assert len(asked) == 2


def test_a_missing_store_on_s3_is_refused(bucket):
    with pytest.raises(StoreError, match="there is no patch store"):
        open_store(f"{bucket}/nothing")


def test_of_two_writers_on_s3_exactly_one_creates_a_file(bucket):
    target = f"{bucket}/versions/1.json"
    assert files.create_bytes(target, b"first")
    assert not files.create_bytes(target, b"second")
    assert files.read_bytes(target) == b"first"


def test_a_bucket_that_is_not_there_is_named_with_the_command_that_makes_it(bucket):
    roots = {"stores": "s3://nowhere/stores", "checkpoints": f"{bucket}/checkpoints"}
    stores, checkpoints = check_places(roots, probe(roots, None)["roots"])
    (problem,) = stores.problems
    assert "bucket does not exist" in problem.what
    assert problem.mend == "aws s3 mb s3://nowhere"
    assert checkpoints.problems == ()
    assert files.list_names(roots["checkpoints"]) == [], "nothing is left"


def test_an_upload_that_fails_leaves_nothing_on_s3(bucket):
    target = f"{bucket}/half"
    with pytest.raises(RuntimeError, match="midway"):
        fail_midway(target)
    assert not files.exists(target)


def test_an_unknown_scheme_says_what_is_possible():
    with pytest.raises(StoreError, match="s3://"):
        open_store("nowhere://bucket/store")
