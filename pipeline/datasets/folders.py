"""Which files of a folder, local or in an object store, are taken for images."""

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

from fsspec.implementations.local import LocalFileSystem

from storage import files

COMPANIONS = re.compile(
    r"(\.(txt|md|rst|pdf|html|json|jsonl|xml|yml|yaml|toml|csv|tsv|mat|npy|npz|h5|hdf5|parquet|db"
    r"|log|part|py|m|sh|sha256|md5|zip|tar|gz|tgz|7z)"
    r"|^(sha256sums|md5sums|license|licence|readme|makefile|__macosx))$",
    re.IGNORECASE,
)


YOUNG_S = 2.0
"""A file of this age may change once more within the tick of the clock that it was written in."""


class FoundFile(NamedTuple):
    """A file of a listing."""

    name: str
    """Path below the folder, with `/`."""
    uri: str
    stamp: str
    """Changes whenever the file is written: its size with its times, or its ETag on an object
    store. Empty where the listing tells neither, and of what was written YOUNG_S ago or later."""


def image_files(uri: str) -> list[FoundFile]:
    r"""Return every file at or below a folder that may be an image, sorted by name.

    Every file counts, whatever its suffix, so
    that a damaged image is rejected later with its reason instead of vanishing, except hidden ones
    (a leading dot) and what usually lies beside images (COMPANIONS).
    Symbolic links are followed, each folder once, so that loops end. A broken link and a folder
    that cannot be listed are returned, to be rejected as unreadable; pipes and devices are not.
    Bytes of a name that are no UTF-8 become `\xNN` in the name. Empty if there is no such folder.
    """
    fs, path = files.resolve(uri)
    if isinstance(fs, LocalFileSystem):
        found = _walk(Path(path))
    else:
        prefix = path.rstrip("/") + "/"
        found = (
            FoundFile(full.removeprefix(prefix), fs.unstrip_protocol(full), _object_stamp(told))
            for full, told in cast(dict[str, dict[str, Any]], fs.find(path, detail=True)).items()
            if full.startswith(prefix) and not full.endswith("/")
        )
    return sorted(file for file in found if _may_be_image(file.name))


def _walk(folder: Path) -> Iterator[FoundFile]:
    unlistable: list[str] = []
    seen: set[tuple[int, int]] = set()
    walk = os.walk(folder, onerror=lambda e: unlistable.append(e.filename), followlinks=True)
    for here, below, names in walk:
        status = Path(here).stat()
        identity = (status.st_dev, status.st_ino)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if identity in seen:
            below.clear()
            continue
        seen.add(identity)
        for name in names:
            path = Path(here, name)
            if (stamp := _file_stamp(path)) is not None:
                yield FoundFile(_name_below(folder, path), str(path), stamp)
    for path in map(Path, unlistable):
        if path != folder:
            yield FoundFile(_name_below(folder, path), str(path), "")


def _file_stamp(path: Path) -> str | None:
    """Return the stamp of a file or a broken link, None for what is neither.

    The second time, of the last change of the file's entry, cannot be set back as the first can.
    """
    try:
        told = path.stat()
    except OSError:
        return ""
    if not stat.S_ISREG(told.st_mode):
        return None
    times = f"{told.st_size} {told.st_mtime_ns} {told.st_ctime_ns}"
    return times if _is_old(max(told.st_mtime, told.st_ctime)) else ""


def _object_stamp(told: Mapping[str, Any]) -> str:
    written, etag = (
        told.get("LastModified") or told.get("mtime"),
        told.get("ETag") or told.get("etag"),
    )
    if not etag or not isinstance(written, datetime) or not _is_old(written.timestamp()):
        return ""
    return f"{told['size']} {written.timestamp()} {etag}"


def _is_old(written: float) -> bool:
    return written < time.time() - YOUNG_S


def _may_be_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") or COMPANIONS.search(part) for part in parts)


def _name_below(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return os.fsencode(name).decode("utf-8", "backslashreplace")
