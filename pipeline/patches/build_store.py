"""From scanned images to a published store version: only the shards that changed are built.

Every step is an ordinary function; `parallel` says how the independent calls are run (one after
the other by default, as Ray tasks in the flows).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as package_version

from pipeline.datasets.sources import Parallel, ScannedImage, hashes_by_name
from pipeline.patches.one_shard import build_shard, jpeg_library
from pipeline.patches.plan_store import BuildPlan, plan_build
from pipeline.prometheus import PATCHES, REJECTS, SHARDS, count
from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.source_images import record_sources
from storage.patches.upkeep import remove_leftovers
from storage.patches.version_parts import Rejected
from storage.patches.versions import StoreVersion, publish, row_group_rows

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
    shard_bytes: int | None = None,
    parallel: Parallel = map,
    repair: bool = False,
    max_rejected_share: float = MAX_REJECTED_SHARE,
    on_plan: Callable[[BuildPlan], None] = lambda plan: None,
    on_progress: Callable[[BuildProgress], None] = lambda progress: None,
) -> BuildReport:
    """Bring a store up to date with its source images and publish the new version.

    Only shards whose images changed are written; if none did, nothing is. A shard has about
    `shard_bytes` of pixels, by default as many as in the version before; another number writes all
    anew. `repair` reads every shard again and rewrites the damaged ones. What builds that were
    killed left behind more than an hour ago is removed. Raises StoreError, the previous version
    staying current, if the store was made for another spec, if no image is usable, or if the share
    of rejected images is above `max_rejected_share`.
    """
    plan = plan_build(uri, spec, scanned, shard_bytes=shard_bytes, parallel=parallel, repair=repair)
    on_plan(plan)
    remove_leftovers(uri)
    previous, missing, entries = plan.previous, plan.missing, dict(plan.present)
    reused, rows = len(entries), sum(entry.rows for entry in entries.values())
    for entry in parallel(build_shard, missing):
        entries[entry.key] = entry
        rows += entry.rows
        for counter, number in ((SHARDS, 1), (PATCHES, entry.rows), (REJECTS, len(entry.rejected))):
            count(counter, number, {"dataset": dataset})
        on_progress(
            BuildProgress(shards_done=len(entries), shards_total=len(plan.tasks), rows=rows)
        )
    shards = tuple(entries[task.key] for task in plan.tasks)
    rejected = (*plan.rejected, *(reject for shard in shards for reject in shard.rejected))
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
        shard_bytes=plan.shard_bytes,
        shards=shards,
        rejected=rejected,
        packages=_packages(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if previous and previous.same_content(candidate):
        return BuildReport(version=previous, built=len(missing), reused=reused, published=False)
    sources = {task.key: [image.name for image in task.images] for task in plan.tasks}
    return BuildReport(
        version=publish(candidate, sources), built=len(missing), reused=reused, published=True
    )


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
