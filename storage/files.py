"""One URI rule for every file that outlives a run: local paths, s3://, gs://, through fsspec.

A file appears whole or not at all. Locally it is written beside its place, flushed to the disk and
renamed; object stores show an object only when its upload is complete.
"""

import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

TEMPORARY = ".tmp-"
PIECE = 1 << 22

P = ParamSpec("P")
R = TypeVar("R")


class StoreError(Exception):
    """A patch store cannot be used as asked; the message names the next step."""


def _explain_remote(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what an object store's client raises into ConnectionError, which is worth a retry."""

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return function(*arguments, **options)
        except (OSError, StoreError):
            raise
        except Exception as error:
            raise ConnectionError(f"{arguments[0]}: {error}") from error

    return call


def resolve(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URI and the path on it. Raises StoreError if it is unknown."""
    if "://" not in uri:
        return LocalFileSystem(), str(Path(uri).absolute())
    try:
        fs, path = fsspec.url_to_fs(uri, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise StoreError(f"{uri}: {error}. Use a local path, s3://, gs:// or file://") from error
    return fs, path


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below `uri`."""
    return "/".join([uri.rstrip("/"), *parts])


@_explain_remote
def exists(uri: str) -> bool:
    """Tell whether a file or a folder is there."""
    fs, path = resolve(uri)
    return fs.exists(path)


@_explain_remote
def size_of(uri: str) -> int | None:
    """Return a file's size in bytes, None if it is not there."""
    fs, path = resolve(uri)
    try:
        return int(fs.size(path) or 0)
    except FileNotFoundError:
        return None


@_explain_remote
def list_names(uri: str) -> list[str]:
    """Return the names of what lies in a folder, sorted; empty if there is no such folder."""
    fs, path = resolve(uri)
    try:
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """What a listing tells of a file."""

    uri: str
    bytes: int
    modified: float
    """When it was last written, seconds since 1970."""


@_explain_remote
def list_files(uri: str) -> list[StoredFile]:
    """Return every file below a folder, at whatever depth, by name; none if it is not there."""
    fs, path = resolve(uri)
    found = cast(dict[str, dict[str, Any]], fs.find(path, detail=True))
    return [
        StoredFile(
            uri=join(uri, name.removeprefix(path.rstrip("/")).lstrip("/")),
            bytes=int(told["size"] or 0),
            modified=_seconds(told["mtime"] if "mtime" in told else told["LastModified"]),
        )
        for name, told in sorted(found.items())
    ]


def _seconds(when: float | datetime) -> float:
    return when.timestamp() if isinstance(when, datetime) else when


@_explain_remote
def modified_at(uri: str) -> float:
    """Return when a file was last written, in seconds since 1970."""
    fs, path = resolve(uri)
    return fs.modified(path).timestamp()


@_explain_remote
def read_bytes(uri: str) -> bytes:
    """Return the whole content of a file. Raises FileNotFoundError."""
    fs, path = resolve(uri)
    with fs.open(path, "rb") as file:
        return cast(bytes, file.read())


@_explain_remote
def sha256_of(uri: str) -> str:
    """Return the SHA-256 of a file, hexadecimal. Raises FileNotFoundError."""
    fs, path = resolve(uri)
    digest = hashlib.sha256()
    with fs.open(path, "rb") as file:
        while piece := cast(bytes, file.read(PIECE)):
            digest.update(piece)
    return digest.hexdigest()


@_explain_remote
def delete(uri: str) -> None:
    """Delete a file or a folder; nothing happens if it is not there."""
    fs, path = resolve(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def write_bytes(uri: str, content: bytes) -> None:
    """Publish a file atomically, in the place of one that was there."""
    with open_atomic(uri) as file:
        file.write(content)


@_explain_remote
def create_bytes(uri: str, content: bytes) -> bool:
    """Publish a file atomically unless one is there already; tell whether it was published.

    Of several writers at once exactly one is told True (a hard link locally, a conditional put on
    object stores).
    """
    fs, path = resolve(uri)
    if not isinstance(fs, LocalFileSystem):
        try:
            fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True
    temporary = _temporary(Path(path))
    try:
        _write_flushed(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise _explained(error, uri) from error
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(Path(path).parent)
    return True


@contextmanager
def open_atomic(uri: str) -> Iterator[BinaryIO]:
    """Open a file for writing that appears at `uri` only when the block ends without an error.

    Raises StoreError with the next step when the disk is full or the folder cannot be written.
    """
    fs, path = resolve(uri)
    if not isinstance(fs, LocalFileSystem):
        file: Any = fs.open(path, "wb", autocommit=False)
        try:
            yield file
            file.close()
            file.commit()
        except BaseException:
            file.discard()
            raise
        return
    temporary = _temporary(Path(path))
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(Path(path).parent)
    except OSError as error:
        raise _explained(error, uri) from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(error, str(path)) from error
    return path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, uri: str) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"{uri}: the disk is full; what was published before is whole. Free some space, then "
            "run the same command again: what is finished is not done twice"
        )
    return StoreError(f"{uri}: {error.strerror or error}; nothing was published")
