"""Source images before they are decoded: listed and hashed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.datasets.references import SourceImage
from storage import files

SCAN_CHUNK = 64


class Parallel(Protocol):
    """Applies a function to every item; results may come in any order."""

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
        """Yield the results."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScannedImage:
    """A source image with the hash of its bytes, or the reason why it could not be read."""

    name: str
    uri: str
    sha256: str = ""
    reason: str = ""


def scan_images(
    images: Sequence[SourceImage], parallel: Parallel = map
) -> tuple[ScannedImage, ...]:
    """Hash every source image; sorted by name. What cannot be read gets a reason instead."""
    chunks = [tuple(images[i : i + SCAN_CHUNK]) for i in range(0, len(images), SCAN_CHUNK)]
    scanned = [image for chunk in parallel(_scan_chunk, chunks) for image in chunk]
    return tuple(sorted(scanned, key=lambda image: image.name))


def hashes_by_name(scanned: Iterable[ScannedImage]) -> dict[str, str]:
    """Return image name -> SHA-256 of every image that could be read."""
    return {image.name: image.sha256 for image in scanned if image.sha256}


def _scan_chunk(images: Sequence[SourceImage]) -> list[ScannedImage]:
    return [_scan(image) for image in images]


def _scan(image: SourceImage) -> ScannedImage:
    try:
        digest = files.sha256_of(image.uri)
    except OSError as error:
        reason = f"unreadable: {error.strerror or error}"
        return ScannedImage(name=image.name, uri=image.uri, reason=reason)
    return ScannedImage(name=image.name, uri=image.uri, sha256=digest)
