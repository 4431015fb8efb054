"""Stores written out for other loaders, read back with the libraries they are for."""

import json
import re
import sys

import numpy as np
import pytest

from pipeline.patches import export_formats, export_store
from pipeline.patches.export_formats import FORMATS
from storage.files import StoreError
from storage.patches.shard_reader import open_shard, read_quantization_tables
from storage.patches.versions import shard_uri
from tests.support.store_images import build, image_folder

COLUMNS = ("original", "qf10", "qf40")


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return build(image_folder(folder / "photos"), folder / "store").version


@pytest.fixture(scope="module")
def wanted(version):
    """All rows in the store's order: places, and (N, 32, 32) a column."""
    places, pixels = [], {name: [] for name in COLUMNS}
    for shard in version.shards:
        with open_shard(version, shard) as parquet:
            table = parquet.read()
        places += zip(*(table.column(i).to_pylist() for i in range(3)), strict=True)
        for name in COLUMNS:
            pixels[name] += [np.frombuffer(one, np.uint8) for one in table.column(name).to_pylist()]
    return places, {name: np.reshape(rows, (-1, 32, 32)) for name, rows in pixels.items()}


def read_as_readme_says(folder, monkeypatch):
    """Run the lines of a folder's README.md there, and return the names they leave."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    return names


def told_places(folder):
    images = json.loads((folder / "images.json").read_text())
    return [(images[image], y, x) for image, y, x in np.load(folder / "places.npy").tolist()]


def test_numpy_files_hold_every_patch_and_its_place(version, wanted, tmp_path, monkeypatch):
    out, told = tmp_path / "out", []
    export_store.export_store(version, "numpy", out, lambda done, total: told.append(done))
    places, pixels = wanted
    for name in COLUMNS:
        np.testing.assert_array_equal(np.load(out / f"{name}.npy", mmap_mode="r"), pixels[name])
    assert told_places(out) == places
    assert told[-1] == version.rows
    names = read_as_readme_says(out, monkeypatch)
    np.testing.assert_array_equal(names["patches"], pixels["qf40"])
    assert (names["image"], names["y"], names["x"]) == places[0]
    info = json.loads((out / "info.json").read_text())
    assert info["rows"] == version.rows
    assert info["content"] == version.content
    assert info["quantization_tables"]["10"] == read_quantization_tables(version)[10].tolist()


@pytest.mark.slow
def test_webdataset_reads_every_patch_out_of_the_tars(version, wanted, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    monkeypatch.setattr(export_formats, "TAR_BYTES", 100 * 3 * 32 * 32)
    out = tmp_path / "out"
    export_store.export_store(version, "webdataset", out)
    assert [p.name for p in sorted(out.glob("*.tar"))] == [
        f"patches-00000{i}.tar" for i in range(3)
    ]
    places, pixels = wanted
    samples = list(read_as_readme_says(out, monkeypatch)["samples"])
    assert [sample["__key__"] for sample in samples] == [
        f"{row:012d}" for row in range(len(places))
    ]
    told = [(s["json"]["image"], s["json"]["y"], s["json"]["x"]) for s in samples]
    assert told == places
    for name in COLUMNS:
        np.testing.assert_array_equal(np.stack([s[f"{name}.npy"] for s in samples]), pixels[name])


def test_lmdb_gives_every_patch_by_its_number(version, wanted, tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    out = tmp_path / "out"
    export_store.export_store(version, "lmdb", out)
    names = read_as_readme_says(out, monkeypatch)
    places, pixels = wanted
    np.testing.assert_array_equal(names["patch"], pixels["qf40"][0])
    with names["rows"].cursor() as cursor:
        rows = [(bytes(key), np.frombuffer(value, np.uint8)) for key, value in cursor]
    assert [key for key, _ in rows] == [b"%012d" % row for row in range(len(places))]
    for at, name in enumerate(COLUMNS):
        found = np.stack([row.reshape(3, 32, 32)[at] for _, row in rows])
        np.testing.assert_array_equal(found, pixels[name])
    assert told_places(out) == places


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_an_export_that_fails_leaves_nothing(to, tmp_path):
    if to == "lmdb":
        pytest.importorskip("lmdb")
    photos = image_folder(tmp_path / "photos")
    store = build(photos, tmp_path / "store").version
    with open(shard_uri(store.uri, store.shards[-1].key), "r+b") as file:  # noqa: PTH123
        file.truncate(1000)
    with pytest.raises(StoreError, match="--repair"):
        export_store.export_store(store, to, tmp_path / "exported" / "out")
    assert list((tmp_path / "exported").iterdir()) == []


def test_what_cannot_be_exported_says_why(version, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--to tfrecord: choose one of lmdb, webdataset, numpy"):
        export_store.export_store(version, "tfrecord", tmp_path / "out")
    with pytest.raises(ValueError, match="is there already: choose another folder"):
        export_store.export_store(version, "numpy", tmp_path)
    with pytest.raises(ValueError, match="s3://bucket/out: choose a local folder"):
        export_store.export_store(version, "numpy", "s3://bucket/out")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match=r"pip install 'qfactory\[lmdb\]'"):
        export_store.export_store(version, "lmdb", tmp_path / "out")
    monkeypatch.setattr(export_store, "disk_usage", lambda _: type("Disk", (), {"free": 1000}))
    with pytest.raises(StoreError, match=r"its pixels take 0\.0 GB and 0\.0 GB are free"):
        export_store.export_store(version, "numpy", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
