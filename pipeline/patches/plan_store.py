"""What a build will do, decided before it writes: which shards there are to be, which are there."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.datasets.sources import Parallel, ScannedImage, hashes_by_name
from pipeline.patches.one_shard import ShardTask, shard_key
from pipeline.patches.shard_groups import IMAGES_A_SHARD, group_images, target_of_new_store
from pipeline.patches.store_size import expected_rows, patch_bytes
from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import shard_is_whole
from storage.patches.shard_writer import describe_shard
from storage.patches.source_images import source_hashes
from storage.patches.version_parts import NewerStoreError, Rejected, ShardEntry
from storage.patches.versions import StoreVersion, open_store, sizes_of_shards

logger = logging.getLogger(__name__)

FINELY_CUT = 8


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """The shards of a version that is to be, and those of them that are there."""

    tasks: tuple[ShardTask, ...]
    """One a shard, in the version's order."""
    present: Mapping[str, ShardEntry]
    """The shards that are there in full, by key."""
    rejected: tuple[Rejected, ...]
    """Images that are rejected before they are cut."""
    previous: StoreVersion | None
    shard_bytes: int | None
    """See StoreVersion."""

    @property
    def missing(self) -> list[ShardTask]:
        """The shards that are to be written."""
        return [task for task in self.tasks if task.key not in self.present]


@dataclass(frozen=True, kw_only=True)
class PlannedBuild:
    """What a build would do, in numbers."""

    store: str
    images_new: int
    images_changed: int
    images_gone: int
    shards_to_write: int
    shards_to_reuse: int
    rows_to_write: int
    bytes_to_write: int
    """Of pixels; the files are smaller, as they are compressed without loss."""
    rows: int
    """Of the whole version."""


def plan_build(
    uri: str,
    spec: PatchSpec,
    scanned: Sequence[ScannedImage],
    *,
    shard_bytes: int | None = None,
    parallel: Parallel = map,
    repair: bool = False,
) -> BuildPlan:
    """Decide what brings a store up to date with its images; nothing is written.

    A shard has about `shard_bytes` of pixels, by default as many as in the version before. Raises
    StoreError if the store was made for another spec.
    """
    previous = _previous_version(uri, spec)
    usable, rejected = _split_duplicates(scanned)
    if shard_bytes is None:
        new = target_of_new_store(spec, usable)
        shard_bytes = previous.shard_bytes if previous else new
    tasks = tuple(
        ShardTask(key=shard_key(spec, group), spec=spec, images=group, store_uri=uri)
        for group in group_images(usable, spec, shard_bytes)
    )
    known = {shard.key: shard for shard in previous.shards} if previous else {}
    return BuildPlan(
        tasks=tasks,
        present=dict(_reusable(uri, tasks, known, check=repair, parallel=parallel)),
        rejected=rejected,
        previous=previous,
        shard_bytes=shard_bytes,
    )


def in_numbers(plan: BuildPlan, uri: str, scanned: Sequence[ScannedImage]) -> PlannedBuild:
    """Return what a build by the plan would do."""
    before = source_hashes(plan.previous) if plan.previous else {}
    now = hashes_by_name(scanned)
    missing = [(task.spec, image) for task in plan.missing for image in task.images]
    rows = sum(expected_rows(image, spec) for spec, image in missing)
    return PlannedBuild(
        store=uri,
        images_new=len(now.keys() - before.keys()),
        images_changed=sum(now[name] != before[name] for name in now.keys() & before.keys()),
        images_gone=len(before.keys() - now.keys()),
        shards_to_write=len(plan.missing),
        shards_to_reuse=len(plan.present),
        rows_to_write=rows,
        bytes_to_write=sum(patch_bytes(image, spec) for spec, image in missing),
        rows=rows + sum(entry.rows for entry in plan.present.values()),
    )


def told_cuts(plan: BuildPlan) -> str:
    """Say why all shards are written anew, or how there would be far fewer; else nothing."""
    if plan.previous is None or not plan.tasks:
        return ""
    count, before = len(plan.tasks), plan.previous.shard_bytes
    if before != plan.shard_bytes:
        return (
            f"all {count} shards are written anew, this once: of {_told_target(plan.shard_bytes)} "
            f"each, where they were of {_told_target(before)}"
        )
    images = [image for task in plan.tasks for image in task.images]
    spec = plan.tasks[0].spec
    wanted = target_of_new_store(spec, images)
    fewer = len(group_images(images, spec, wanted))
    if count < FINELY_CUT * fewer:
        return ""
    return (
        f"{count} shards of {_told_target(before)} each: --shard-mib {wanted >> 20} writes them "
        f"anew, once, as {fewer}"
    )


def _told_target(shard_bytes: int | None) -> str:
    if shard_bytes is None:
        return f"about {IMAGES_A_SHARD} images"
    return f"about {shard_bytes / (1 << 20):.3g} MiB of pixels"


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


def _previous_version(uri: str, spec: PatchSpec) -> StoreVersion | None:
    """Return the current version; None if there is none or its files are damaged.

    Raises NewerStoreError where a later version of this program wrote it.
    """
    if not files.exists(files.join(uri, "CURRENT")):
        return None
    try:
        previous = open_store(uri)
    except NewerStoreError:
        raise
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
