"""Source images before they are decoded: hashed, freed of duplicates, grouped into shards."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.datasets.references import SourceImage
from storage import files
from storage.patches.versions import Rejected

IMAGES_A_SHARD = 8
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


def split_duplicates(
    scanned: Sequence[ScannedImage],
) -> tuple[tuple[ScannedImage, ...], tuple[Rejected, ...]]:
    """Return the images to use, and the unreadable and doubled ones with their reasons.

    Of several files with the same bytes, the first by name is used.
    """
    first: dict[str, str] = {}
    usable, rejected = [], []
    for image in scanned:
        if image.reason:
            rejected.append(Rejected(image=image.name, reason=image.reason))
        elif image.sha256 in first:
            reason = f"the same bytes as {first[image.sha256]}"
            rejected.append(Rejected(image=image.name, reason=reason))
        else:
            first[image.sha256] = image.name
            usable.append(image)
    return tuple(usable), tuple(rejected)


def group_images(
    images: Sequence[ScannedImage], target: int = IMAGES_A_SHARD
) -> list[tuple[ScannedImage, ...]]:
    """Cut the sorted images into groups, one a shard, so that a new image moves few others.

    A group ends after an image whose name's hash says so (one in `target`, not before half of
    `target` images, at the latest after twice as many). The cuts depend on the names nearby, not
    on how many images come before: an added or removed image changes the groups around it only.
    """
    groups, group = [], []
    for image in images:
        group.append(image)
        ends = int(hashlib.sha256(image.name.encode()).hexdigest()[:8], 16) % target == 0
        if (ends and len(group) >= target // 2) or len(group) >= 2 * target:
            groups.append(tuple(group))
            group = []
    return [*groups, tuple(group)] if group else groups


def dataset_fingerprint(scanned: Sequence[ScannedImage]) -> str:
    """Return the SHA-256 over the names and contents of all source images."""
    lines = [f"{image.sha256 or image.reason} {image.name}" for image in scanned]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _scan_chunk(images: Sequence[SourceImage]) -> list[ScannedImage]:
    return [_scan(image) for image in images]


def _scan(image: SourceImage) -> ScannedImage:
    try:
        digest = files.sha256_of(image.uri)
    except OSError as error:
        reason = f"unreadable: {error.strerror or error}"
        return ScannedImage(name=image.name, uri=image.uri, reason=reason)
    return ScannedImage(name=image.name, uri=image.uri, sha256=digest)
