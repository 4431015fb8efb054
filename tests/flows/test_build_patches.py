"""The build-patches flow: what it remembers, what it would do, and its tasks beside Prefect."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from prefect import flow, tags
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import runtime
from flows.build_patches import build_patches
from flows.planning.store_places import known_images
from flows.runtime import retried_task, unwalked
from pipeline.datasets import folders
from pipeline.datasets.sources import ScannedImage
from storage import files
from storage.patches.known_images import read_known
from storage.patches.versions import version_numbers
from tests.support.doors import Door
from tests.support.flow_workspace import flow_workspace
from tests.support.store_images import image_folder, texture_file

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(tmp_path):
    with flow_workspace(tmp_path / "workspace") as folder:
        yield folder


def run(**options):
    return cast(Any, build_patches(**options))


def test_a_dry_run_writes_no_store_and_says_what_the_build_then_does(
    workspace, tmp_path, monkeypatch
):
    monkeypatch.setattr(folders, "YOUNG_S", -60.0)
    dataset, store = f"folder:{image_folder(tmp_path / 'photos', 12)}", str(tmp_path / "store")
    options = {"dataset": dataset, "side": 32, "stride": 16, "qf": [10], "store": store}
    planned = run(**options, dry_run=True)
    assert not files.exists(store)
    assert (planned.images_new, planned.rows, planned.bytes_to_write) == (12, 144, 144 * 2048)
    version = run(**options)
    assert (version.rows, len(version.shards)) == (planned.rows, planned.shards_to_write)
    texture_file(tmp_path / "photos" / "003.png", 70, 90, seed=99)
    again = run(**options, dry_run=True)
    assert (again.images_new, again.images_changed, again.shards_to_write) == (0, 1, 1)
    assert version_numbers(store) == [1]


def test_rehash_mends_what_is_remembered_wrongly(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "YOUNG_S", -60.0)
    photos = image_folder(tmp_path / "photos", 3)
    options = {"dataset": f"folder:{photos}", "side": 32, "stride": 16, "qf": [10]}
    version = run(**options)
    table = known_images(f"folder:{photos}")
    known = read_known(table)
    wanted = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in photos.iterdir()}
    assert {uri: told.sha256 for uri, told in known.items()} == wanted
    files.write_bytes(table, b"damaged")
    assert build_patches(**options, rehash=True) == version
    assert read_known(table) == known


def test_prefect_does_not_walk_through_a_task_s_images(workspace):
    images = tuple(ScannedImage(name=f"{n}.png", uri=f"/photos/{n}.png") for n in range(20_000))

    @retried_task("count images")
    def count(given: tuple[ScannedImage, ...]) -> int:
        assert given is images
        return len(given)

    @flow
    def counted() -> float:
        before = time.process_time()
        assert count(unwalked(images)) == len(images)
        return time.process_time() - before

    counted()
    assert counted() < 0.5, "it takes 2 s where Prefect looks into each"


def test_a_task_that_begins_while_the_server_is_away_waits_for_it(workspace, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "BEGIN_AGAIN_S", (0.5,) * 20)
    url = urlsplit(PREFECT_API_URL.value())
    door = Door((url.hostname, url.port))

    @retried_task("work")
    def work(number: int) -> int:
        return number + 1

    @flow
    def away() -> list[int]:
        before = work(1)
        door.shut()
        with ThreadPoolExecutor(1) as opener:
            opener.submit(lambda: (time.sleep(2), door.open()))
            with tags("never-asked-for"):  # what was, Prefect remembers for 5 seconds
                return [before, work(2)]

    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{door.port}/api"}):
        assert away() == [2, 3]
    assert any("work begins again in" in record.getMessage() for record in caplog.records)
