"""What a batch restore has to do: the photographs below a folder, less what is done already."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from pipeline.datasets.folders import image_files
from pipeline.restoring.photo_names import (
    JPEG_SUFFIXES,
    Kind,
    check_distinct,
    is_jpeg_name,
    output_name,
)
from storage import files
from storage.batches.batch_settings import PRIVATE
from storage.batches.manifest import FileResult


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A file that may be a JPEG photograph."""

    name: str
    """Its path below the folder, with `/`."""
    uri: str
    bytes: int
    stamp: str
    """What changes when it is written anew: its entity tag, else its time of writing."""

    @property
    def nameable(self) -> bool:
        """Tell whether its name is valid UTF-8: Parquet holds no other text."""
        return not any("\ud800" <= character <= "\udfff" for character in self.uri)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """What a run does."""

    todo: tuple[Photo, ...]
    touched: Mapping[str, FileResult]
    """Results of photographs in `todo` that were written anew with their size unchanged: if the
    content is the same as well, the result stands."""
    done: int
    """Photographs that were restored before."""
    rejected: int
    """Photographs that were rejected before and are not tried again."""


def list_photos(inputs: str) -> list[Photo]:
    """Return every file below a folder or bucket that is named like a JPEG, sorted by name.

    Raises ValueError when there is none.
    """
    named = [(n, uri) for n, uri, _ in image_files(inputs) if is_jpeg_name(PurePosixPath(n))]
    if not named:
        raise ValueError(
            f"{inputs}: no JPEG files in it or below it ({', '.join(JPEG_SUFFIXES)}); name a "
            "folder or bucket that has some"
        )
    if any("://" in uri for _, uri in named):
        return _stored_photos(inputs, named)
    return [_local_photo(name, uri) for name, uri in named]


def list_outputs(outputs: str) -> dict[str, int]:
    """Return the size in bytes of every file below the outputs' folder, by its path below it."""
    fs, path = files.resolve(outputs)
    prefix = path.rstrip("/") + "/"
    found = _find(fs, path)
    below = {full.removeprefix(prefix): int(info["size"] or 0) for full, info in found.items()}
    return {name: size for name, size in below.items() if not name.startswith(f"{PRIVATE}/")}


def check_places(inputs: str, outputs: str) -> None:
    """Raise ValueError if one of the folders lies within the other."""
    resolved = [files.resolve(uri) for uri in (inputs, outputs)]
    places = [f"{fs.protocol} {path.rstrip('/')}/" for fs, path in resolved]
    if places[0].startswith(places[1]) or places[1].startswith(places[0]):
        raise ValueError(
            f"{outputs} and {inputs}: one lies within the other, and outputs would become inputs; "
            "name an output folder elsewhere"
        )


def check_names(photos: Iterable[Photo], kind: Kind) -> None:
    """Raise ValueError if two photographs would have the same output."""
    check_distinct((photo.name, output_name(photo.name, kind)) for photo in photos)


def check_free(
    photos: Iterable[Photo], present: Mapping[str, int], outputs: str, kind: Kind
) -> None:
    """Raise ValueError if files that no run has written lie where outputs would."""
    names = (output_name(photo.name, kind) for photo in photos)
    taken = [name for name in names if name in present]
    if taken:
        raise ValueError(
            f"{outputs} holds {len(taken)} files that new ones would replace, such as {taken[0]}, "
            "and no restore-batch has written them; name another output folder, or move them away"
        )


def plan(
    photos: Iterable[Photo],
    results: Mapping[str, FileResult],
    present: Mapping[str, int],
    *,
    max_pixels: int,
    retry_failed: bool,
) -> BatchPlan:
    """Return what is to be done: what has no result, changed, lost its output, or failed.

    A rejected photograph would be rejected again, so it is left alone unless something changed.

    Args:
        photos: what there is now
        results: the manifest
        present: sizes of the outputs that there are, by name
        max_pixels: photographs with more pixels are rejected
        retry_failed: whether photographs that were rejected before are tried again, too
    """
    todo, touched, done, rejected = [], {}, 0, 0
    for photo in photos:
        before = results.get(photo.name)
        if before is None or before.bytes != photo.bytes or before.state == "failed":
            todo.append(photo)
        elif before.state == "rejected":
            roomier = max_pixels > (before.max_pixels or 0)
            if retry_failed or roomier or before.stamp != photo.stamp:
                todo.append(photo)
            else:
                rejected += 1
        elif present.get(before.output) != before.output_bytes:
            todo.append(photo)
        elif before.stamp != photo.stamp:
            todo.append(photo)
            touched[photo.name] = before
        else:
            done += 1
    return BatchPlan(todo=tuple(todo), touched=touched, done=done, rejected=rejected)


def _stored_photos(inputs: str, named: Iterable[tuple[str, str]]) -> list[Photo]:
    fs, path = files.resolve(inputs)
    found = {fs.unstrip_protocol(full): info for full, info in _find(fs, path).items()}
    return [
        Photo(name=n, uri=uri, bytes=int(found[uri]["size"] or 0), stamp=_stamp(found[uri]))
        for n, uri in named
        if uri in found  # else it was removed a moment ago
    ]


def _local_photo(name: str, uri: str) -> Photo:
    try:
        status = Path(uri).stat()
    except OSError:  # reading it will fail with the reason
        return Photo(name=name, uri=uri, bytes=0, stamp="")
    return Photo(name=name, uri=uri, bytes=status.st_size, stamp=str(status.st_mtime_ns))


def _find(fs: Any, path: str) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - an fsspec system
    """Return what fsspec knows of every file below a path, by its full path."""
    return cast(dict[str, dict[str, Any]], fs.find(path, detail=True))


def _stamp(info: Mapping[str, Any]) -> str:
    keys = ("ETag", "etag", "md5Hash", "LastModified", "updated", "mtime")
    return next((str(info[key]).strip('"') for key in keys if info.get(key)), "")
