"""Download the known datasets, each file kept only if it has its pinned hash."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.datasets.archives import ArchiveError, unpack
from pipeline.datasets.catalogue import Archive, Dataset
from pipeline.datasets.download import PAUSES_S, OnBytes, download
from pipeline.datasets.folders import image_files
from pipeline.datasets.references import DatasetError, pinned_hashes
from pipeline.datasets.verify import (
    file_sha256,
    local_root,
    named_splits,
    unpacked_listing,
    verify_dataset,
)

INCOMING = ".incoming"  # below the root; hidden, so that listings skip it
MAX_GROWTH = 2  # images hardly compress: an archive that grows more is no archive of images


@dataclass(frozen=True, kw_only=True)
class FetchProgress:
    """How far a fetch is."""

    file: str
    """Path below the root of the file that is being fetched, or that has just been finished."""
    bytes_done: int
    """Of that file; 0 when it is finished."""
    bytes_total: int | None
    """Of that file; None when it is finished, or if the server does not say."""
    files_done: int
    """Files that are finished or were there already."""
    files_total: int


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """What a fetch did."""

    name: str
    downloaded: int
    """Files (or archives) that were fetched."""
    present: int
    """Files (or archives) that were there already, with the right hash."""


def fetch(
    reference: str,
    root: str | Path,
    *,
    base_url: str | None = None,
    progress: Callable[[FetchProgress], None] = lambda state: None,
    pauses: Sequence[float] = PAUSES_S,
) -> FetchReport:
    """Bring a dataset, `NAME` or `NAME:SPLIT`, below `root`; what is there already stays.

    `base_url` is a mirror laid out like the root (LIVE1/bikes.png, DIV2K_train_HR.zip); the hashes
    stay the pinned ones. A broken connection is tried again after each of `pauses` (seconds), and
    continues where it broke off. Raises ValueError for an unknown name, DatasetError with the next
    step if a file cannot be had or is not the pinned one.
    """
    dataset, splits = named_splits(reference)
    return fetch_dataset(
        dataset, splits, local_root(root), base_url=base_url, progress=progress, pauses=pauses
    )


def fetch_dataset(
    dataset: Dataset,
    splits: Sequence[str],
    root: Path,
    *,
    base_url: str | None = None,
    progress: Callable[[FetchProgress], None] = lambda state: None,
    pauses: Sequence[float] = PAUSES_S,
) -> FetchReport:
    """Do what `fetch` does for a dataset that need not be in DATASETS."""
    if dataset.members:
        present = verify_dataset(dataset, splits, root).good
        return FetchReport(name=dataset.name, downloaded=0, present=present)
    jobs = _archive_jobs(dataset, splits, base_url) + _file_jobs(dataset, splits, base_url)
    if not jobs:
        raise DatasetError(f"{dataset.name} cannot be downloaded: {dataset.how}")
    downloaded = 0
    for number, job in enumerate(jobs):
        if not _is_there(root, dataset, job):
            on_bytes = partial(_tell, progress, job.path, number, len(jobs))
            _bring(root, dataset, job, on_bytes, pauses)
            downloaded += 1
        _tell(progress, job.path, number + 1, len(jobs), 0, None)
    with suppress(OSError):
        (root / INCOMING).rmdir()  # stays where it holds what an interrupted download left
    return FetchReport(name=dataset.name, downloaded=downloaded, present=len(jobs) - downloaded)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One file to download."""

    path: str
    """Below the root, or below INCOMING for an archive."""
    url: str
    sha256: str
    archive: Archive | None = None


def _file_jobs(dataset: Dataset, splits: Sequence[str], base_url: str | None) -> list[_Job]:
    folders = {dataset.splits[split][0] for split in splits}
    jobs = []
    for path, sha256 in pinned_hashes().items():
        folder, _, name = path.rpartition("/")
        if folder in folders:
            origin = f"{base_url.rstrip('/')}/{folder}/" if base_url else dataset.urls[folder]
            jobs.append(_Job(path=path, url=origin + name, sha256=sha256))
    return jobs


def _archive_jobs(dataset: Dataset, splits: Sequence[str], base_url: str | None) -> list[_Job]:
    jobs = []
    for archive in dataset.archives:
        if archive.split in splits:
            name = archive.url.rpartition("/")[2]
            url = f"{base_url.rstrip('/')}/{name}" if base_url else archive.url
            jobs.append(_Job(path=name, url=url, sha256=archive.sha256, archive=archive))
    return jobs


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


def _bring(
    root: Path, dataset: Dataset, job: _Job, on_bytes: OnBytes, pauses: Sequence[float]
) -> None:
    incoming = root / INCOMING
    target = (incoming if job.archive else root) / job.path
    if file_sha256(target) != job.sha256:
        download(job.url, target, job.sha256, incoming=incoming, on_bytes=on_bytes, pauses=pauses)
    if job.archive is None:
        return
    folder = dataset.splits[job.archive.split][0]
    try:
        hashes = unpack(
            target,
            root / folder,
            members=job.archive.members,
            max_files=2 * job.archive.images,
            max_bytes=MAX_GROWTH * job.archive.bytes,
        )
    except ArchiveError as error:
        raise DatasetError(f"{error}; nothing of it was unpacked") from error
    except OSError as error:
        raise DatasetError(f"{root / folder}: {error.strerror or error}") from error
    lines = [f"{sha256}  {folder}/{name}" for name, sha256 in sorted(hashes.items())]
    unpacked_listing(root, folder).write_text("\n".join(lines) + "\n", "utf-8")
    target.unlink()


def _tell(
    progress: Callable[[FetchProgress], None],
    file: str,
    files_done: int,
    files_total: int,
    bytes_done: int,
    bytes_total: int | None,
) -> None:
    progress(
        FetchProgress(
            file=file,
            bytes_done=bytes_done,
            bytes_total=bytes_total,
            files_done=files_done,
            files_total=files_total,
        )
    )
