"""Dataset references, folder listings, and the refusal to train on evaluation images."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.catalogue import DATASETS
from pipeline.datasets.references import (
    DatasetError,
    list_images,
    parse,
    pinned_hashes,
)
from pipeline.images.luma import ImageRejected, read_luma
from storage import files
from tests.support.project import PROJECT


def names(folder: Path) -> list[str]:
    return [image.name for image in list_images(f"folder:{folder}", root=None, purpose="evaluate")]


def picture(path: Path, value: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (16, 16), value).save(path)
    return path


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_entry_is_consistent(name):
    dataset = DATASETS[name]
    assert dataset.name == name
    assert dataset.description
    assert dataset.licence
    assert set(dataset.train) | set(dataset.evaluate) <= set(dataset.splits)
    assert all(archive.split in dataset.splits for archive in dataset.archives)
    assert dataset.urls or dataset.archives or dataset.how


@pytest.mark.parametrize("name", [name for name in sorted(DATASETS) if DATASETS[name].urls])
def test_every_downloaded_file_is_pinned_to_a_commit_and_a_hash(name):
    for folder, url in DATASETS[name].urls.items():
        hashes = [sha for path, sha in pinned_hashes().items() if path.startswith(f"{folder}/")]
        assert hashes
        assert all(len(sha) == 64 for sha in hashes)
        assert len(url.split("/")[5]) == 40, "the URL names a commit"
    folders = {places[0] for places in DATASETS[name].splits.values()}
    assert folders == set(DATASETS[name].urls)


def test_sample_holds_out_photographs_that_training_never_sees():
    train = list_images("sample", root=None, purpose="train")
    held_out = list_images("sample", root=None, purpose="evaluate")
    assert (len(train), len(held_out)) == (8, 3)
    hashes = [hashlib.sha256(files.read_bytes(image.uri)).hexdigest() for image in train + held_out]
    assert len(set(hashes)) == 11
    assert all(min(read_luma(files.read_bytes(i.uri), i.name).shape) >= 300 for i in train)


def test_sample_is_found_without_importing_scikit_image():
    script = (
        "import sys; from pipeline.datasets.references import list_images; "
        "assert list_images('sample', root=None, purpose='train'); "
        "assert 'skimage' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT)


def test_a_dataset_without_splits_means_what_its_paper_uses(datasets_root):
    train = list_images("bsds500", root=datasets_root, purpose="train")
    assert len(train) == 400
    assert {image.name.split("/")[0] for image in train} == {"train", "test"}
    assert [image.name for image in train] == sorted(image.name for image in train)
    assert len(list_images("bsds500", root=datasets_root, purpose="evaluate")) == 200
    assert len(list_images("bsds500:val+train", root=datasets_root, purpose="train")) == 300
    assert list_images("live1", root=datasets_root, purpose="evaluate")[0].name == "bikes.png"


def test_a_root_in_an_object_store_works_like_a_local_one():
    files.write_bytes("memory://bucket/data/Classic5/1.bmp", b"pixels")
    images = list_images("classic5", root="memory://bucket/data", purpose="evaluate")
    assert [image.name for image in images] == ["1.bmp"]
    assert files.read_bytes(images[0].uri) == b"pixels"


def test_a_folder_in_an_object_store_is_listed_with_its_subfolders():
    for path in ("b/2.png", "a/1.png", "a/.hidden.png", "a/notes.txt"):
        files.write_bytes(f"memory://photos/{path}", path.encode())
    images = list_images("folder:memory://photos", root=None, purpose="train")
    assert [image.name for image in images] == ["a/1.png", "b/2.png"]
    assert [files.read_bytes(image.uri) for image in images] == [b"a/1.png", b"b/2.png"]


@pytest.mark.parametrize("name", ["DIV2K/train", "DIV2K_train_HR"])
def test_div2k_is_found_as_fetched_and_as_its_archive_unpacks(tmp_path, name):
    picture(tmp_path / name / "0001.png")
    images = list_images("div2k", root=tmp_path, purpose="train")
    assert [image.name for image in images] == ["train/0001.png"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("imagenot", "dataset 'imagenot' is unknown: choose sample, bsds500, live1"),
        ("", "dataset '' is unknown"),
        ("bsds500:dev", "bsds500 has no split 'dev': choose train, val, test"),
        ("bsds500:", "no split ''"),
        ("folder:", "give folder:PATH"),
    ],
)
def test_an_unknown_reference_lists_what_exists(reference, message):
    with pytest.raises(ValueError, match=message):
        parse(reference)


def test_a_missing_dataset_names_the_command_that_brings_it(tmp_path):
    with pytest.raises(DatasetError, match=r"qfactory datasets fetch live1.*QFACTORY_DATASETS"):
        list_images("live1", root=tmp_path, purpose="evaluate")
    with pytest.raises(DatasetError, match="set QFACTORY_DATASETS"):
        list_images("live1", root=None, purpose="evaluate")
    with pytest.raises(DatasetError, match=r"put or link it at ImageNet/train"):
        list_images("imagenet", root=tmp_path, purpose="train")
    with pytest.raises(DatasetError, match="there is no such folder"):
        list_images(f"folder:{tmp_path / 'nowhere'}", root=None, purpose="train")
    with pytest.raises(DatasetError, match="there is no such folder"):
        list_images(f"folder:{picture(tmp_path / 'a.png')}", root=None, purpose="train")


def test_damaged_files_are_listed_and_companions_are_not(tmp_path):
    picture(tmp_path / "good.png")
    for name in ("broken", "empty.jpg", "movie.gif", "README", "SHA256SUMS", "a.json", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    picture(tmp_path / ".cache" / "thumbnail.png")
    picture(tmp_path / "__MACOSX" / "fork.png")
    assert names(tmp_path) == ["broken", "empty.jpg", "good.png", "movie.gif"]


def test_symbolic_links_are_followed_and_loops_end(tmp_path):
    picture(tmp_path / "photos" / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "link.png").symlink_to("a.png")
    (tmp_path / "photos" / "itself.png").symlink_to("itself.png")
    (tmp_path / "photos" / "broken.png").symlink_to("gone.png")
    found = names(tmp_path / "photos")
    assert found == ["a.png", "broken.png", "itself.png", "link.png", "more/b.png"]
    for name in ("itself.png", "broken.png"):
        with pytest.raises(OSError, match=r"(itself|broken)\.png"):
            files.read_bytes(str(tmp_path / "photos" / name))


def test_pipes_are_left_out(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert names(tmp_path) == ["a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_listed_itself(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "secret").mkdir(mode=0)
    assert names(tmp_path) == ["a.png", "secret"]


def test_unicode_and_odd_names_are_read(tmp_path):
    odd = ["Ä grün.png", "写真.png", "with space.png", "emoji 📷.png", "e\u0301.png", "a#b%20?.png"]
    for value, name in enumerate(odd):
        picture(tmp_path / name, value)
    images = list_images(f"folder:{tmp_path}", root=None, purpose="train")
    assert [image.name for image in images] == sorted(odd)
    for image in images:
        luma = read_luma(files.read_bytes(image.uri), image.name)
        assert np.all(luma == odd.index(image.name))


def test_a_name_that_is_no_utf8_is_printable_and_readable(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    picture(tmp_path / "plain.png").rename(os.fsdecode(path))
    (image,) = list_images(f"folder:{tmp_path}", root=None, purpose="train")
    assert image.name == r"caf\xe9.png"
    assert image.name.encode()
    assert read_luma(files.read_bytes(image.uri), image.name).shape == (16, 16)


def test_real_damaged_files_get_a_reason(tmp_path, photographs):
    Image.fromarray(photographs[0][1]).save(tmp_path / "photo.jpg")
    whole = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(whole[: len(whole) // 2])
    (image,) = list_images(f"folder:{tmp_path}", root=None, purpose="train")
    with pytest.raises(ImageRejected, match="truncated"):
        read_luma(files.read_bytes(image.uri), image.name)
