"""Which images share a shard: cuts that depend on the images nearby alone, so that few move."""

import hashlib
from collections.abc import Iterable, Sequence

from pipeline.datasets.sources import ScannedImage
from pipeline.patches.store_size import expected_bytes, patch_bytes
from storage.patches.schema import PatchSpec, pixel_columns
from storage.patches.versions import COLUMN_CHUNK_BYTES

MOST_SHARD_BYTES = 64 << 20
SHARDS_OF_A_SMALL_STORE = 32
IMAGES_A_SHARD = 8
"""In stores of before shards were cut by bytes."""

Group = tuple[ScannedImage, ...]


def target_of_new_store(spec: PatchSpec, images: Sequence[ScannedImage]) -> int:
    """Return about how many bytes of pixels a shard of a new store gets.

    A small store is cut into SHARDS_OF_A_SMALL_STORE, so that it too is built by all cores, but no
    smaller than a whole row group. A store keeps its target as it grows: were it drawn anew, an
    added image could move every cut.
    """
    row_group = COLUMN_CHUNK_BYTES * len(pixel_columns(spec))
    share = expected_bytes(spec, images) // SHARDS_OF_A_SMALL_STORE
    return min(MOST_SHARD_BYTES, max(row_group, share))


def group_images(
    images: Sequence[ScannedImage], spec: PatchSpec, shard_bytes: int | None
) -> list[Group]:
    """Cut the sorted images into groups, one a shard, of about `shard_bytes` of pixels.

    An image that gives no patches counts as one patch. None counts images instead, and cuts after
    about IMAGES_A_SHARD.
    """
    if shard_bytes is None:
        return _cut(((image, 1) for image in images), IMAGES_A_SHARD)
    patch = spec.side**2 * len(pixel_columns(spec))
    sized = ((image, max(patch, patch_bytes(image, spec))) for image in images)
    return _cut(sized, shard_bytes)


def _cut(sized: Iterable[tuple[ScannedImage, int]], target: int) -> list[Group]:
    """Cut images with their sizes into groups of half to twice the target, 1.3 of it in the mean.

    A group ends after an image whose name's draw from [0, 1) is below its share of the target, not
    before it has half the target, and before an image that would make it more than twice as large;
    an image alone may be larger. So a new image changes the groups around it only.
    """
    groups: list[Group] = []
    group: list[ScannedImage] = []
    size = 0
    for image, own in sized:
        if group and size + own > 2 * target:
            groups.append(tuple(group))
            group, size = [], 0
        group.append(image)
        size += own
        if 2 * size >= target and _draw(image.name) * target < own:
            groups.append(tuple(group))
            group, size = [], 0
    return [*groups, tuple(group)] if group else groups


def _draw(name: str) -> float:
    """Return a number in [0, 1) that is the name's own.

    The hash's bits count from the last: so counted, 1 in 8 is what `hash % 8 == 0` was.
    """
    bits = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return int(f"{bits:032b}"[::-1], 2) / 2**32
