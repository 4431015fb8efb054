"""Source images before they are decoded: listed, hashed and measured."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.datasets.references import SourceImage
from pipeline.images.luma import shape_in_header
from storage import files
from storage.patches.known_images import KnownImage, read_known, write_known

SCAN_CHUNK = 64
BESIDE_SHARDS = frozenset({"CURRENT", "VERIFIED", "lease"})
"""Files of a patch store; its others are known by their suffix (folders.COMPANIONS)."""


class Parallel(Protocol):
    """Applies a function to every item; results may come in any order."""

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
        """Yield the results."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedImage:
    """A source image with the hash of its bytes, or the reason why it could not be read."""

    name: str
    uri: str
    sha256: str = ""
    reason: str = ""
    height: int = 0
    """In pixels, before EXIF turns it; 0, as the width, where the header tells no usable image."""
    width: int = 0


def scan_images(
    images: Sequence[SourceImage],
    parallel: Parallel = map,
    *,
    known_in: str | None = None,
    rehash: bool = False,
) -> tuple[ScannedImage, ...]:
    """Hash every source image; sorted by name. What cannot be read gets a reason instead.

    Of a patch store that lies among the images nothing is one. `known_in` is the URI of a table
    that remembers what was hashed: an image whose stamp is the same as then is not read, unless
    `rehash` distrusts the table.
    """
    images = [image for image in images if not _is_part_of_store(image)]
    known = read_known(known_in) if known_in is not None else {}
    unread = [image for image in images if rehash or _known(image, known) is None]
    chunks = [tuple(unread[i : i + SCAN_CHUNK]) for i in range(0, len(unread), SCAN_CHUNK)]
    read = {image.name: image for chunk in parallel(_scan_chunk, chunks) for image in chunk}
    scanned = [read.get(image.name) or _as_known(image, known[image.uri]) for image in images]
    if known_in is not None:
        stamps = {image.uri: image.stamp for image in images if image.stamp}
        now = {
            image.uri: KnownImage(stamps[image.uri], image.sha256, image.height, image.width)
            for image in scanned
            if image.uri in stamps and image.sha256
        }
        if now != known:
            write_known(known_in, now)
    return tuple(sorted(scanned, key=lambda image: image.name))


def hashes_by_name(scanned: Iterable[ScannedImage]) -> dict[str, str]:
    """Return image name -> SHA-256 of every image that could be read."""
    return {image.name: image.sha256 for image in scanned if image.sha256}


def _is_part_of_store(image: SourceImage) -> bool:
    """Tell whether a file is one of those without a suffix that lie beside a store's shards."""
    folder, _, name = image.uri.rpartition("/")
    return name in BESIDE_SHARDS and files.exists(files.join(folder, "shards"))


def _known(image: SourceImage, known: Mapping[str, KnownImage]) -> KnownImage | None:
    found = known.get(image.uri)
    return found if found is not None and found.stamp == image.stamp else None


def _as_known(image: SourceImage, known: KnownImage) -> ScannedImage:
    _, sha256, height, width = known
    return ScannedImage(name=image.name, uri=image.uri, sha256=sha256, height=height, width=width)


def _scan_chunk(images: Sequence[SourceImage]) -> list[ScannedImage]:
    return [_scan(image) for image in images]


def _scan(image: SourceImage) -> ScannedImage:
    try:
        data = files.read_bytes(image.uri)
    except OSError as error:
        reason = f"unreadable: {error.strerror or error}"
        return ScannedImage(name=image.name, uri=image.uri, reason=reason)
    height, width = shape_in_header(data) or (0, 0)
    return ScannedImage(
        name=image.name,
        uri=image.uri,
        sha256=hashlib.sha256(data).hexdigest(),
        height=height,
        width=width,
    )
