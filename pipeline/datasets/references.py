"""Which images a dataset reference names, where they lie, and which of them are for evaluation."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resource_files
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pipeline.datasets.catalogue import DATASETS, Dataset
from pipeline.datasets.folders import image_files
from storage import files

Purpose = Literal["train", "evaluate"]
FOLDER = "folder:"


class DatasetError(Exception):
    """A dataset is not there or cannot be fetched; the message names the next step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceImage:
    """One image file, not yet read."""

    name: str
    """Path below the dataset's folder; with the split in front if the dataset has several."""
    uri: str
    """Readable with storage.files.read_bytes."""
    stamp: str = ""
    """See pipeline.datasets.folders.FoundFile."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A parsed `NAME`, `NAME:SPLIT+SPLIT` or `folder:PATH`."""

    dataset: Dataset | None
    """None for a folder."""
    splits: tuple[str, ...] = ()
    """Empty for the dataset's default."""
    folder: str = ""
    """Path or URI of a folder."""


def parse(reference: str) -> Reference:
    """Read a dataset reference. Raises ValueError that lists what exists."""
    if reference.startswith(FOLDER):
        if not (folder := reference.removeprefix(FOLDER)):
            raise ValueError("folder: names no folder; give folder:PATH or folder:s3://BUCKET/PATH")
        return Reference(dataset=None, folder=folder)
    name, _, chosen = reference.partition(":")
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r} is unknown: choose {', '.join(DATASETS)}, folder:PATH")
    dataset = DATASETS[name]
    splits = tuple(dict.fromkeys(chosen.split("+"))) if ":" in reference else ()
    for split in splits:
        if split not in dataset.splits:
            raise ValueError(f"{name} has no split {split!r}: choose {', '.join(dataset.splits)}")
    return Reference(dataset=dataset, splits=splits)


def list_images(reference: str, *, root: str | Path | None, purpose: Purpose) -> list[SourceImage]:
    """Return the images that a reference names, sorted by name, none of them read yet.

    `root` is the path or URI of the folder of all datasets (not needed for `sample` and
    `folder:`). Raises ValueError for an unknown name or split, DatasetError if the images are not
    there.
    """
    parsed = parse(reference)
    if parsed.dataset is None:
        return _images_in_folder(parsed.folder)
    dataset = parsed.dataset
    splits = parsed.splits or (dataset.train if purpose == "train" else dataset.evaluate)
    images = []
    for split in splits:
        prefix = f"{split}/" if len(dataset.splits) > 1 else ""
        folder = split_folder(dataset, split, root)
        members = dataset.members.get(split)
        images += [
            SourceImage(name=prefix + file.name, uri=file.uri, stamp=file.stamp)
            for file in image_files(folder)
            if members is None or file.name in members
        ]
    return sorted(images, key=lambda image: image.name)


def split_folder(dataset: Dataset, split: str, root: str | Path | None) -> str:
    """Return the path or URI of a split's folder.

    Raises DatasetError with the next step if it is not there.
    """
    if dataset.members:
        return str(scikit_image_folder())
    step = dataset.how or f"run `qfactory datasets fetch {dataset.name}`"
    if root is None:
        raise DatasetError(
            f"{dataset.name} is looked for in the datasets' folder, and none is set: set "
            f"QFACTORY_DATASETS, then {step}"
        )
    places = [files.join(str(root), folder) for folder in dataset.splits[split]]
    for place in places:
        if files.exists(place):
            return place
    raise DatasetError(
        f"{dataset.name}: there is no {places[0]}; {step}, or point QFACTORY_DATASETS at the "
        "folder that holds it"
    )


def read_hashes(listing: str) -> Mapping[str, str]:
    """Return path -> SHA-256 of a text with lines like those of sha256sum."""
    pairs = (line.split(maxsplit=1) for line in listing.splitlines() if line)
    return MappingProxyType({path: sha256 for sha256, path in pairs})


@cache
def pinned_hashes() -> Mapping[str, str]:
    """Return path below the datasets' root -> SHA-256, as datasets.sha256 lists them."""
    return read_hashes(
        resource_files("pipeline.datasets").joinpath("datasets.sha256").read_text("utf-8")
    )


def _images_in_folder(folder: str) -> list[SourceImage]:
    fs, path = files.resolve(folder)
    if not fs.isdir(path):
        raise DatasetError(f"{FOLDER}{folder}: there is no such folder; check the path")
    return [SourceImage(**file._asdict()) for file in image_files(folder)]


def scikit_image_folder() -> Path:
    """Return the folder of scikit-image's photographs without importing the package."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError("sample needs scikit-image: pip install scikit-image")
    return Path(spec.submodule_search_locations[0], "data")
