"""What is remembered of images: none is read twice, and none is taken for what it no longer is."""

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.datasets import folders
from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from storage import files
from storage.patches.known_images import read_known, write_known
from tests.support.store_images import image_folder, texture_file


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of 8 images that are taken for old at once."""
    monkeypatch.setattr(folders, "YOUNG_S", -60.0)
    return image_folder(tmp_path / "photos", 8)


@pytest.fixture
def table(tmp_path):
    return str(tmp_path / "known" / "photos.parquet")


@pytest.fixture
def read(monkeypatch):
    """The names of the images that are read, from here on."""
    names, read_bytes = [], files.read_bytes

    def counted(uri):
        names.append(uri.rpartition("/")[2])
        return read_bytes(uri)

    monkeypatch.setattr(files, "read_bytes", counted)
    return names


def scan(photos, table, **options):
    images = list_images(f"folder:{photos}", root=None, purpose="train")
    return scan_images(images, known_in=table, **options)


def hashes(photos):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in photos.iterdir()}


def hashed(scanned):
    return {image.name: image.sha256 for image in scanned}


def test_an_unchanged_image_is_read_once(photos, table, read):
    first = scan(photos, table)
    assert {(image.height, image.width) for image in first} == {(70, 90)}
    assert len(read) == 1 + 8
    read.clear()
    assert scan(photos, table) == first
    assert read == ["photos.parquet"]


def test_changed_added_and_gone_images_are_told_from_the_others(photos, table, read):
    scan(photos, table)
    texture_file(photos / "003.png", 70, 90, seed=99)
    texture_file(photos / "new.png", 80, 60, seed=98)
    (photos / "005.png").unlink()
    expected = hashes(photos)
    read.clear()
    assert hashed(scan(photos, table)) == expected
    assert read == ["photos.parquet", "003.png", "new.png"]
    assert len(read_known(table)) == 8, "what is gone is forgotten"


def test_an_image_replaced_by_one_of_equal_size_and_time_is_seen(photos, table):
    one, two = photos / "001.png", photos / "002.png"
    one.write_bytes(two.read_bytes()[:-1] + b"x")
    then = two.stat()
    os.utime(one, ns=(then.st_atime_ns, then.st_mtime_ns))
    scan(photos, table)
    one.write_bytes(two.read_bytes())
    os.utime(one, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert (one.stat().st_size, one.stat().st_mtime_ns) == (then.st_size, then.st_mtime_ns)
    assert hashed(scan(photos, table)) == hashes(photos)


def test_what_was_written_just_now_is_not_remembered(tmp_path, table):
    photos = image_folder(tmp_path / "photos", 2)
    scan(photos, table)
    assert read_known(table) == {}
    time.sleep(folders.YOUNG_S)
    scan(photos, table)
    assert len(read_known(table)) == 2


def test_a_clock_that_jumped_back_makes_images_be_read_again(photos, table, read, monkeypatch):
    scan(photos, table)
    monkeypatch.setattr(folders, "YOUNG_S", 3600.0)  # as if they were of the next hour
    read.clear()
    assert hashed(scan(photos, table)) == hashes(photos)
    assert len(read) == 1 + 8


def test_rehash_reads_every_image_again(photos, table, read):
    scan(photos, table)
    uri = str(photos / "004.png")
    lie = read_known(table)
    lie[uri] = lie[uri]._replace(sha256="0" * 64)
    write_known(table, lie)
    assert hashed(scan(photos, table))["004.png"] == "0" * 64
    read.clear()
    assert hashed(scan(photos, table, rehash=True)) == hashes(photos)
    assert hashed(scan(photos, table)) == hashes(photos), "and the table is mended"


@pytest.mark.parametrize("place", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_a_flipped_bit_anywhere_in_the_table_is_seen_or_says_the_same(photos, table, place):
    scan(photos, table)
    content = bytearray(files.read_bytes(table))
    content[int(place * len(content))] ^= 4
    files.write_bytes(table, bytes(content))
    assert hashed(scan(photos, table)) == hashes(photos)
    known = read_known(table)
    assert {Path(uri).name: told.sha256 for uri, told in known.items()} == hashes(photos)


def test_a_damaged_table_is_told_and_made_again(photos, table, caplog):
    scan(photos, table)
    files.write_bytes(table, b"no table")
    assert hashed(scan(photos, table)) == hashes(photos)
    assert "is damaged" in caplog.text
    assert "every image is hashed again" in caplog.text
    caplog.clear()
    assert len(read_known(table)) == 8
    assert not caplog.text


def test_a_place_that_cannot_be_written_is_told_and_the_scan_goes_on(photos, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    assert hashed(scan(photos, str(tmp_path / "file" / "known.parquet"))) == hashes(photos)
    assert "not remembered" in caplog.text


def test_an_image_that_vanished_after_the_listing_is_listed_with_the_reason(photos, table):
    images = list_images(f"folder:{photos}", root=None, purpose="train")
    scan_images(images, known_in=table)
    (photos / "006.png").unlink()
    gone = [replace(image, stamp="") if image.name == "006.png" else image for image in images]
    found = {image.name: image for image in scan_images(gone, known_in=table)}
    assert found["006.png"].reason == "unreadable: No such file or directory"
    assert len(read_known(table)) == 7


def test_a_name_that_is_no_utf8_is_remembered(photos, table, read):
    (photos / "000.png").rename(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))
    first = scan(photos, table)
    read.clear()
    assert scan(photos, table) == first
    assert read == ["photos.parquet"]


def test_a_file_that_is_no_image_is_remembered_without_a_size(photos, table, read):
    (photos / "broken.png").write_bytes(b"no image")
    scan(photos, table)
    read.clear()
    broken = scan(photos, table)[-1]
    assert (broken.name, broken.height, broken.width) == ("broken.png", 0, 0)
    assert read == ["photos.parquet"]
