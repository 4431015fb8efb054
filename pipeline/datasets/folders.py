"""Which files of a folder, local or in an object store, are taken for images."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fsspec.implementations.local import LocalFileSystem

from storage import files

COMPANIONS = re.compile(
    r"(\.(txt|md|rst|pdf|html|json|jsonl|xml|yml|yaml|toml|csv|tsv|mat|npy|npz|h5|hdf5|parquet|db"
    r"|log|part|py|m|sh|sha256|md5|zip|tar|gz|tgz|7z)"
    r"|^(sha256sums|md5sums|license|licence|readme|makefile|__macosx))$",
    re.IGNORECASE,
)


def image_files(uri: str) -> list[tuple[str, str]]:
    r"""Return (name, URI) of every file at or below a folder that may be an image, sorted by name.

    The name is the path below the folder, with `/`. Every file counts, whatever its suffix, so
    that a damaged image is rejected later with its reason instead of vanishing, except hidden ones
    (a leading dot) and what usually lies beside images (COMPANIONS).
    Symbolic links are followed, each folder once, so that loops end. A broken link and a folder
    that cannot be listed are returned, to be rejected as unreadable; pipes and devices are not.
    Bytes of a name that are no UTF-8 become `\xNN` in the name. Empty if there is no such folder.
    """
    fs, path = files.resolve(uri)
    if isinstance(fs, LocalFileSystem):
        found = ((_printable(name), str(path)) for name, path in _walk(Path(path)))
    else:
        prefix = path.rstrip("/") + "/"
        found = (
            (full.removeprefix(prefix), fs.unstrip_protocol(full))
            for full in fs.find(path)
            if full.startswith(prefix) and not full.endswith("/")
        )
    return sorted((name, uri) for name, uri in found if _may_be_image(name))


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
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
            if _is_file_or_broken(path):
                yield path.relative_to(folder).as_posix(), path
    for name in unlistable:
        if Path(name) != folder:
            yield Path(name).relative_to(folder).as_posix(), Path(name)


def _is_file_or_broken(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _may_be_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") or COMPANIONS.search(part) for part in parts)


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
