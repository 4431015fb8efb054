"""From scanned images to a published store version: only the shards that changed are built.

Every step is an ordinary function; `parallel` says how the independent calls are run (one after
the other by default, as Ray tasks in the flows).
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as package_version

from pipeline.datasets.sources import Parallel, ScannedImage, hashes_by_name
from pipeline.patches.one_shard import ShardTask, build_shard, jpeg_library, shard_key
from pipeline.prometheus import PATCHES, REJECTS, SHARDS, count
from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import shard_is_whole
from storage.patches.shard_writer import describe_shard
from storage.patches.source_images import record_sources
from storage.patches.upkeep import remove_leftovers
from storage.patches.versions import (
    Rejected,
    ShardEntry,
    StoreVersion,
    open_store,
    publish,
    row_group_rows,
    sizes_of_shards,
)

logger = logging.getLogger(__name__)

IMAGES_A_SHARD = 8
MAX_REJECTED_SHARE = 0.1
SHOWN_REJECTS = 10
REJECTED = "rejected.txt"
"""In a store whose build failed for too many rejects: all of them, a line each."""


@dataclass(frozen=True, kw_only=True)
class BuildProgress:
    """How far a build is."""

    shards_done: int
    shards_total: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did."""

    version: StoreVersion
    built: int
    """Shards that were written."""
    reused: int
    """Shards that were there already."""
    published: bool
    """False if nothing had changed, and nothing was written."""


def build_store(
    uri: str,
    spec: PatchSpec,
    scanned: Sequence[ScannedImage],
    dataset: str,
    *,
    parallel: Parallel = map,
    repair: bool = False,
    max_rejected_share: float = MAX_REJECTED_SHARE,
    on_progress: Callable[[BuildProgress], None] = lambda progress: None,
) -> BuildReport:
    """Bring a store up to date with its source images and publish the new version.

    Only shards whose images changed are written; if none did, nothing is. `repair` reads every
    shard again and rewrites the damaged ones. What builds that were killed left behind more than an
    hour ago is removed. Raises StoreError, the previous version staying
    current, if the store was made for another spec, if no image is usable, or if the share of
    rejected images is above `max_rejected_share`.
    """
    previous = _previous_version(uri, spec)
    remove_leftovers(uri)
    usable, rejected = _split_duplicates(scanned)
    tasks = [
        ShardTask(key=shard_key(spec, group), spec=spec, images=group, store_uri=uri)
        for group in _group_images(usable)
    ]
    known = {shard.key: shard for shard in previous.shards} if previous else {}
    entries = dict(_reusable(uri, tasks, known, check=repair, parallel=parallel))
    missing = [task for task in tasks if task.key not in entries]
    reused, rows = len(entries), sum(entry.rows for entry in entries.values())
    for entry in parallel(build_shard, missing):
        entries[entry.key] = entry
        rows += entry.rows
        for counter, number in ((SHARDS, 1), (PATCHES, entry.rows), (REJECTS, len(entry.rejected))):
            count(counter, number, {"dataset": dataset})
        on_progress(BuildProgress(shards_done=len(entries), shards_total=len(tasks), rows=rows))
    shards = tuple(entries[task.key] for task in tasks)
    rejected = (*rejected, *(reject for shard in shards for reject in shard.rejected))
    rejected = tuple(sorted(rejected, key=lambda reject: reject.image))
    _check_rejects(uri, len(scanned), rejected, rows, max_rejected_share)
    candidate = StoreVersion(
        uri=uri,
        number=0,
        spec=spec,
        dataset=dataset,
        dataset_fingerprint=record_sources(
            uri, hashes_by_name(scanned), {i.name: i.reason for i in scanned if i.reason}
        ),
        row_group_rows=row_group_rows(spec),
        shards=shards,
        rejected=rejected,
        packages=_packages(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if previous and previous.same_content(candidate):
        return BuildReport(version=previous, built=len(missing), reused=reused, published=False)
    return BuildReport(
        version=publish(candidate), built=len(missing), reused=reused, published=True
    )


def _split_duplicates(
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


def _group_images(images: Sequence[ScannedImage]) -> list[tuple[ScannedImage, ...]]:
    """Cut the sorted images into groups, one a shard, so that a new image moves few others.

    A group ends after an image whose name's hash says so (one in IMAGES_A_SHARD, not before half
    as many images, at the latest after twice as many). The cuts depend on the names nearby, not
    on how many images come before: an added or removed image changes the groups around it only.
    """
    groups, group = [], []
    for image in images:
        group.append(image)
        ends = int(hashlib.sha256(image.name.encode()).hexdigest()[:8], 16) % IMAGES_A_SHARD == 0
        if (ends and len(group) >= IMAGES_A_SHARD // 2) or len(group) >= 2 * IMAGES_A_SHARD:
            groups.append(tuple(group))
            group = []
    return [*groups, tuple(group)] if group else groups


def _previous_version(uri: str, spec: PatchSpec) -> StoreVersion | None:
    """Return the current version; None if there is none or its file is damaged."""
    if not files.exists(files.join(uri, "CURRENT")):
        return None
    try:
        previous = open_store(uri)
    except StoreError as error:
        logger.warning("%s; a new version is made", error)
        return None
    return open_store(uri, previous.number, spec)


def _reusable(
    uri: str,
    tasks: Sequence[ShardTask],
    known: Mapping[str, ShardEntry],
    *,
    check: bool,
    parallel: Parallel,
) -> Iterator[tuple[str, ShardEntry]]:
    """Yield the shards that are there in full.

    Those of the previous version are known by their size (by their bytes with `check`), those that
    an interrupted build left behind by reading them.
    """
    sizes = sizes_of_shards(uri)
    unknown = []
    for task in tasks:
        if task.key not in sizes:
            continue
        entry = known.get(task.key)
        if entry is None:
            unknown.append(task.key)
        elif sizes[task.key] == entry.bytes and (not check or shard_is_whole(uri, entry)):
            yield task.key, entry
    for entry in parallel(partial(describe_shard, uri), unknown):
        if entry is not None:
            yield entry.key, entry


def _check_rejects(
    uri: str, images: int, rejected: Sequence[Rejected], rows: int, max_share: float
) -> None:
    if rows and len(rejected) <= max_share * images:
        files.delete(files.join(uri, REJECTED))
        return
    if not rejected:
        raise StoreError(f"{uri}: the dataset is empty; nothing was published")
    named = files.join(uri, REJECTED)
    lines = (f"{reject.image}: {reject.reason}\n" for reject in rejected)
    files.write_bytes(named, "".join(lines).encode())
    told = told_rejects(rejected, f"the rest is in {named}")
    if not rows:
        raise StoreError(f"{uri}: none of {images} images can be used; nothing was published{told}")
    raise StoreError(
        f"{uri}: {len(rejected)} of {images} images were rejected, more than {max_share:.0%}; "
        f"nothing was published. Mend them, or allow more with --max-rejected-share{told}"
    )


def told_rejects(rejected: Sequence[Rejected], rest: str) -> str:
    """Return a line with name and reason for each of the first rejects, and `rest` if it's more."""
    told = [f"\n  {reject.image}: {reject.reason}" for reject in rejected[:SHOWN_REJECTS]]
    more = len(rejected) - len(told)
    return "".join(told) + (f"\n  and {more} more; {rest}" if more else "")


def _packages() -> dict[str, str]:
    return {
        **{name: package_version(name) for name in ("numpy", "pillow", "pyarrow")},
        "jpeg": jpeg_library(),
    }
