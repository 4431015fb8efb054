"""Compare datasets on the disk with their pinned hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.catalogue import SCIKIT_IMAGE, Dataset
from pipeline.datasets.folders import image_files
from pipeline.datasets.references import (
    DatasetError,
    parse,
    pinned_hashes,
    read_hashes,
    split_folder,
)


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """How the files on the disk compare with the pinned hashes; paths are below the root."""

    good: int
    """Files with the right hash."""
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    """Files with another hash, or unreadable."""
    extra: tuple[str, ...]
    """Images that do not belong to the dataset; they would be used as if they did."""

    @property
    def ok(self) -> bool:
        """True if everything is there, and nothing else."""
        return not (self.missing or self.wrong or self.extra)


def verify(reference: str, root: str | Path) -> VerifyReport:
    """Compare a dataset, `NAME` or `NAME:SPLIT`, with its pinned hashes.

    An unpacked archive is compared with the hashes noted when it was unpacked. Raises ValueError
    for an unknown name.
    """
    dataset, splits = named_splits(reference)
    parts = [_verify_split(dataset, split, local_root(root)) for split in splits]
    return VerifyReport(
        good=sum(part.good for part in parts),
        missing=tuple(path for part in parts for path in part.missing),
        wrong=tuple(path for part in parts for path in part.wrong),
        extra=tuple(path for part in parts for path in part.extra),
    )


def named_splits(reference: str) -> tuple[Dataset, tuple[str, ...]]:
    """Return the dataset and its chosen splits, all by default. Raises ValueError for a folder."""
    parsed = parse(reference)
    if parsed.dataset is None:
        raise ValueError(
            f"{reference} is a folder of your own: there is nothing to fetch or verify"
        )
    return parsed.dataset, parsed.splits or tuple(parsed.dataset.splits)


def local_root(root: str | Path) -> Path:
    """Return the datasets' folder. Raises DatasetError if it is in an object store."""
    if "://" in str(root):
        raise DatasetError(f"{root} is no local folder: fetch there, then copy it to the store")
    return Path(root)


def unpacked_listing(root: Path, folder: str) -> Path:
    """Return where the hashes of what an archive held are noted: beside the split's folder."""
    return root / f"{folder}.sha256"


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, "unreadable" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _verify_split(dataset: Dataset, split: str, root: Path) -> VerifyReport:
    label = SCIKIT_IMAGE if dataset.members else dataset.splits[split][0]
    expected = _expected(dataset, split, root)
    try:
        folder = Path(split_folder(dataset, split, root))
        there = {file.name for file in image_files(str(folder))}
    except DatasetError:
        folder, there = root / label, set()
    if not expected:
        return _count_split(dataset, split, label, len(there))
    present = there & set(expected)
    wrong = {name for name in present if file_sha256(folder / name) != expected[name]}
    extra = set() if dataset.members else there - present
    return VerifyReport(
        good=len(present - wrong),
        missing=_paths(label, set(expected) - present),
        wrong=_paths(label, wrong),
        extra=_paths(label, extra),
    )


def _count_split(dataset: Dataset, split: str, label: str, there: int) -> VerifyReport:
    """Report a split of which only the number of images is known, or not even that."""
    whole = next((a.images for a in dataset.archives if a.split == split), max(there, 1))
    return VerifyReport(
        good=0,
        missing=(f"{label}/ ({whole - there} of {whole})",) if there < whole else (),
        wrong=(),
        extra=(f"{label}/ ({there - whole} too many)",) if there > whole else (),
    )


def _paths(label: str, names: set[str]) -> tuple[str, ...]:
    return tuple(f"{label}/{name}" for name in sorted(names))


def _expected(dataset: Dataset, split: str, root: Path) -> Mapping[str, str]:
    """Return file name in the split's folder -> SHA-256; empty where nothing is known."""
    folder = dataset.splits[split][0]
    listing = unpacked_listing(root, folder)
    pinned = pinned_hashes()
    if dataset.archives and listing.is_file():
        pinned = read_hashes(listing.read_text("utf-8"))
    prefix = f"{folder}/"
    found = {
        path.removeprefix(prefix): sha256
        for path, sha256 in pinned.items()
        if path.startswith(prefix)
    }
    members = dataset.members.get(split)
    return found if members is None else {name: found[name] for name in members}
