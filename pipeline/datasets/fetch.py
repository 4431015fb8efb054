"""Download the known datasets, each file kept only if it has its pinned hash."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import ZipFile

from pipeline.datasets.catalogue import Archive, Dataset
from pipeline.datasets.download import download
from pipeline.datasets.folders import image_files
from pipeline.datasets.references import DatasetError, pinned_hashes
from pipeline.datasets.verify import (
    file_sha256,
    local_root,
    named_splits,
    unpacked_listing,
    verify,
)

INCOMING = ".incoming"  # below the root; hidden, so that listings skip it

Progress = Callable[[int, int, str, int], None]
"""Is told how many files are done, of how many, which one is next or was the last, by its path, and
how many of its bytes have come."""


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """What a fetch did."""

    downloaded: int
    """Files (or archives) that were fetched."""
    present: int
    """Files (or archives) that were there already, with the right hash."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One file to download."""

    path: str
    """Below the root, or below INCOMING for an archive."""
    url: str
    sha256: str
    archive: Archive | None = None


def fetch(
    reference: str,
    root: str | Path,
    *,
    base_url: str | None = None,
    progress: Progress = lambda done, total, file, size: None,
) -> FetchReport:
    """Bring a dataset, `NAME` or `NAME:SPLIT`, below `root`; what is there already stays.

    `base_url` is a mirror laid out like the root (LIVE1/bikes.png, DIV2K_train_HR.zip); the hashes
    stay the pinned ones. A broken connection is tried again, and continues where it broke off.
    Raises ValueError for an unknown name, DatasetError with the next step if a file cannot be had
    or is not the pinned one.
    """
    dataset, splits = named_splits(reference)
    root = local_root(root)
    if dataset.members:
        return FetchReport(downloaded=0, present=verify(reference, root).good)
    jobs = list(_jobs(dataset, splits, base_url))
    if not jobs:
        raise DatasetError(f"{dataset.name} cannot be downloaded: {dataset.how}")
    downloaded = 0
    for number, job in enumerate(jobs):
        if not _is_there(root, dataset, job):
            _bring(root, dataset, job, partial(progress, number, len(jobs), job.path))
            downloaded += 1
        progress(number + 1, len(jobs), job.path, 0)
    with suppress(OSError):
        (root / INCOMING).rmdir()  # stays where it holds what an interrupted download left
    return FetchReport(downloaded=downloaded, present=len(jobs) - downloaded)


def _jobs(dataset: Dataset, splits: Sequence[str], base_url: str | None) -> Iterator[_Job]:
    mirror = base_url and base_url.rstrip("/")
    for archive in dataset.archives:
        if archive.split in splits:
            name = archive.url.rpartition("/")[2]
            url = f"{mirror}/{name}" if mirror else archive.url
            yield _Job(path=name, url=url, sha256=archive.sha256, archive=archive)
    folders = {dataset.splits[split][0] for split in splits}
    for path, sha256 in pinned_hashes().items():
        folder, _, name = path.rpartition("/")
        if folder in folders:
            url = f"{mirror}/{path}" if mirror else f"{dataset.urls[folder]}{name}"
            yield _Job(path=path, url=url, sha256=sha256)


def _is_there(root: Path, dataset: Dataset, job: _Job) -> bool:
    if job.archive is None:
        return file_sha256(root / job.path) == job.sha256
    for folder in dataset.splits[job.archive.split]:
        if (root / folder).is_dir():
            found = len(image_files(str(root / folder)))
            if found != job.archive.images:
                raise DatasetError(
                    f"{root / folder} holds {found} images instead of {job.archive.images}: move "
                    "it away and run the same command again"
                )
            return True
    return False


def _bring(root: Path, dataset: Dataset, job: _Job, on_bytes: Callable[[int], None]) -> None:
    incoming = root / INCOMING
    target = (incoming if job.archive else root) / job.path
    if file_sha256(target) != job.sha256:
        download(job.url, target, job.sha256, incoming=incoming, on_bytes=on_bytes)
    if job.archive is not None:
        folder = dataset.splits[job.archive.split][0]
        try:
            _unpack(target, job.archive.members, root / folder)
        except OSError as error:
            raise DatasetError(f"{root / folder}: {error.strerror or error}") from error
        lines = [f"{file_sha256(path)}  {folder}/{path.name}" for path in (root / folder).iterdir()]
        unpacked_listing(root, folder).write_text("\n".join(sorted(lines)) + "\n", "utf-8")
        target.unlink()


def _unpack(archive: Path, members: str, folder: Path) -> None:
    """Let what a pinned archive has in its folder `members` appear as a new folder, at once."""
    scratch = archive.with_suffix(".unpacking")
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        with ZipFile(archive) as source:
            wanted = [name for name in source.namelist() if name.startswith(f"{members}/")]
            source.extractall(scratch, wanted)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (scratch / members).rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
