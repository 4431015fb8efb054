"""Commands about datasets: no Prefect, no Ray."""

import sys

from flows.console import out, show_rows, shown
from flows.settings import settings
from pipeline.datasets import verify as verification
from pipeline.datasets.fetch import fetch as fetch_files
from pipeline.datasets.references import DATASETS, DatasetError, list_images


def list_datasets(*, json: bool = False) -> None:
    """List the known datasets and how many of their images are there.

    Args:
        json: print one JSON array of rows and nothing else
    """
    root = settings().datasets_root
    rows = []
    for dataset in DATASETS.values():
        for number, split in enumerate(dataset.splits):
            reference = f"{dataset.name}:{split}"
            try:
                images = len(list_images(reference, root=root, purpose="train"))
            except DatasetError:
                images = 0
            rows.append(
                {
                    "dataset": reference,
                    "images here": images,
                    "role": dataset.role,
                    "what": f"{dataset.description}; {dataset.licence}" if number == 0 else "",
                }
            )
    show_rows(rows, f"datasets below {root}; any folder: folder:PATH", json=json)


def fetch(name: str, *, base_url: str | None = None) -> None:
    """Download a dataset; what is there already, with the right hash, is not downloaded again.

    Args:
        name: NAME or NAME:SPLIT
        base_url: a mirror that is laid out like the datasets' folder
    """
    with shown(f"fetch {name}") as update:

        def progress(done: int, total: int, file: str, size: int) -> None:
            update(done, total, f"{size / 1e6:.1f} MB of {file}" if size else file)

        report = fetch_files(name, settings().datasets_root, base_url=base_url, progress=progress)
    out.print(f"{name}: {report.downloaded} files fetched, {report.present} were there already")


def verify(name: str) -> None:
    """Compare a dataset's files with the pinned hashes; exit code 1 if they differ.

    Args:
        name: NAME or NAME:SPLIT
    """
    report = verification.verify(name, settings().datasets_root)
    out.print(f"{name}: {report.good} files as pinned")
    for what in ("missing", "wrong", "extra"):
        for path in getattr(report, what):
            out.print(f"{what}: {path}", markup=False)
    if not report.ok:
        sys.exit(1)
