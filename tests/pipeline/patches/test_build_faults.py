"""Builds that are disturbed: nothing is lost, nothing doubled, the previous version stays whole."""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from pipeline import cluster
from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.patches import one_shard
from pipeline.patches.build_store import build_store
from pipeline.patches.one_shard import ShardTask, build_shard, shard_key
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import open_shard, read_rows
from storage.patches.upkeep import verify
from storage.patches.versions import open_store
from tests.support.forks import FORKS
from tests.support.store_images import SHARD_BYTES, SPEC, build, image_folder, texture

KILLS = 20


def contents(version):
    """Every row of a version, sorted."""
    rows = []
    for shard in version.shards:
        with open_shard(version, shard) as parquet:
            table = parquet.read()
        rows += zip(*(column.to_pylist() for column in table.columns), strict=True)
    return sorted(rows)


def repaint(photos, count, seed):
    for number in range(count):
        Image.fromarray(texture(200, 240, seed=seed + number)).save(photos / f"{number:03}.png")


@pytest.mark.slow
def test_killed_at_20_random_moments_the_previous_version_reads_whole_and_the_next_completes(
    tmp_path,
):
    photos, store = image_folder(tmp_path / "photos", 24, size=(200, 240)), tmp_path / "store"
    previous = build(photos, store).version
    draw = random.Random(0)
    interrupted = 0
    for kill in range(KILLS):
        repaint(photos, count=12, seed=1000 * (kill + 1))
        process = building(photos, store)
        wait_for_first_file(store, process)
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.join()
        interrupted += process.exitcode == -signal.SIGKILL
        current = open_store(str(store))
        assert current.number >= previous.number
        assert all(whole for _, whole in verify(current))
        previous = build(photos, store).version
        assert previous.rows == current.rows
    assert interrupted >= KILLS // 2
    fresh = build(photos, tmp_path / "fresh").version
    assert contents(previous) == contents(fresh)
    assert previous.shards == fresh.shards


def building(photos, store):
    """Start a process that builds a store."""
    process = FORKS.Process(target=build, args=(photos, store))
    process.start()
    return process


def wait_for_first_file(store, process):
    """Wait until the build writes something, or is over."""
    before = set(store.glob("shards/*"))
    while process.is_alive() and set(store.glob("shards/*")) == before:
        time.sleep(0.002)


class KillsOwnWorkerOnce:
    """Builds a shard, but the first worker that takes one dies in the middle of it."""

    def __init__(self, marker):
        self.marker = marker

    def __call__(self, task):
        try:
            handle = os.open(self.marker, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return build_shard(task)
        os.close(handle)
        unfinished = Path(task.store_uri) / "shards" / ".tmp-dead"
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(b"half a shard")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_ray_worker_loses_and_doubles_no_rows(tmp_path, ray_cluster):
    photos = image_folder(tmp_path / "photos", 40)
    expected = build(photos, tmp_path / "undisturbed").version
    scanned = scan_images(list_images(f"folder:{photos}", root=None, purpose="train"))
    deadly = KillsOwnWorkerOnce(str(tmp_path / "killed"))

    def parallel(function, items):
        return cluster.ray_map(deadly if function is build_shard else function, items)

    store = str(tmp_path / "store")
    options = {"parallel": parallel, "shard_bytes": SHARD_BYTES}
    version = build_store(store, SPEC, scanned, f"folder:{photos}", **options).version
    assert (tmp_path / "killed").exists()
    assert version.shards == expected.shards
    assert contents(version) == contents(expected)


@pytest.mark.slow
def test_ray_workers_write_the_same_bytes_as_one_process(tmp_path, ray_cluster):
    photos = image_folder(tmp_path / "photos", 40)
    alone = build(photos, tmp_path / "alone").version
    on_ray = build(photos, tmp_path / "ray", parallel=cluster.ray_map).version
    assert on_ray.shards == alone.shards


@pytest.mark.slow
def test_a_failing_shard_stops_the_build_with_its_own_error(tmp_path, ray_cluster):
    photos = image_folder(tmp_path / "photos", 20)
    scanned = scan_images(list_images(f"folder:{photos}", root=None, purpose="train"))
    Image.fromarray(texture(70, 90, seed=999)).save(photos / "007.png")
    with pytest.raises(StoreError, match=r"007\.png changed"):
        build_store(str(tmp_path / "store"), SPEC, scanned, "folder", parallel=cluster.ray_map)
    assert not (tmp_path / "store" / "CURRENT").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB. Mounting one takes a privilege that not every machine gives."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_build_with_a_clear_error_and_the_previous_version_whole(
    tmp_path, small_disk
):
    photos = image_folder(tmp_path / "photos", 8)
    store = small_disk / "store"
    previous = build(photos, store).version
    image_folder(photos, 40, size=(300, 300))
    with pytest.raises(StoreError, match="the disk is full"):
        build(photos, store)
    assert open_store(str(store)) == previous
    assert all(whole for _, whole in verify(previous))
    assert not list(store.rglob(".tmp-*"))


def test_readers_of_an_old_version_are_not_disturbed_by_a_new_one(tmp_path):
    photos, store = image_folder(tmp_path / "photos"), tmp_path / "store"
    first = build(photos, store).version
    before = contents(first)
    repaint(photos, count=20, seed=5)
    build(photos, store)
    assert contents(first) == before
    read_rows(first, first.shards[0], 0, ["original"])


@pytest.mark.slow
def test_two_builds_at_once_both_publish(tmp_path):
    photos, store = image_folder(tmp_path / "photos", 24, size=(200, 240)), tmp_path / "store"
    rivals = [building(photos, store) for _ in range(2)]
    for rival in rivals:
        rival.join()
    assert [rival.exitcode for rival in rivals] == [0, 0]
    version = open_store(str(store))
    assert all(whole for _, whole in verify(version))
    assert version.shards == build(photos, tmp_path / "alone").version.shards


def test_another_spec_of_the_same_side_is_another_store(tmp_path):
    photos = image_folder(tmp_path / "photos", 4)
    a = build(photos, tmp_path / "a").version
    other = PatchSpec(side=32, stride=16, qfs=(10, 41), degradation="patch")
    b = build(photos, tmp_path / "b", spec=other).version
    assert {s.key for s in a.shards}.isdisjoint(s.key for s in b.shards)


def test_a_machine_with_another_jpeg_library_builds_nothing(tmp_path, monkeypatch):
    photos = image_folder(tmp_path / "photos", 2)
    images = scan_images(list_images(f"folder:{photos}", root=None, purpose="train"))
    task = ShardTask(
        key=shard_key(SPEC, images), spec=SPEC, images=images, store_uri=str(tmp_path / "store")
    )
    monkeypatch.setattr(one_shard, "jpeg_library", lambda: "libjpeg 6b")
    told = rf"{socket.gethostname()} has libjpeg 6b and pillow .*, which give other pixels"
    with pytest.raises(StoreError, match=told):
        build_shard(task)
    assert not (tmp_path / "store").exists()
