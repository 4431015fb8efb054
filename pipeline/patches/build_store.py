"""From scanned images to a published store version: only the shards that changed are built.

Every step is an ordinary function; `parallel` says how the independent calls are run (one after
the other by default, as Ray tasks in the flows).
"""

import hashlib
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as package_version

import numpy as np
from PIL import features

from pipeline.datasets.sources import (
    Parallel,
    ScannedImage,
    dataset_fingerprint,
    group_images,
    split_duplicates,
)
from pipeline.images.jpeg import quantization_table
from pipeline.images.luma import ImageRejected, read_luma
from pipeline.logs import about
from pipeline.patches.cut import patch_blocks, shape_to_cut
from pipeline.prometheus import PATCHES, REJECTS, SHARDS, count
from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import shard_is_whole
from storage.patches.shard_writer import describe_shard, open_shard_writer
from storage.patches.versions import (
    Rejected,
    ShardEntry,
    StoreVersion,
    open_store,
    publish,
    row_group_rows,
    shard_uri,
)

logger = logging.getLogger(__name__)

MAX_REJECTED_SHARE = 0.1
SHOWN_REJECTS = 10
REJECTED = "rejected.txt"
"""In a store whose build failed for too many rejects: all of them, a line each."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Everything that one shard needs: a function of this alone."""

    key: str
    spec: PatchSpec
    images: tuple[ScannedImage, ...]
    store_uri: str
    dataset: str
    """Its reference, for the counters alone."""


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


def shard_key(spec: PatchSpec, images: Sequence[ScannedImage]) -> str:
    """Return the name of a shard: a hash of the spec, the sources, and the JPEG library."""
    lines = [spec.fingerprint, _jpeg_library(), *(f"{i.sha256} {i.name}" for i in images)]
    if spec.degradation == "rescaled":
        lines.append(f"pillow {package_version('pillow')}")  # its filters make the patches too
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def build_shard(task: ShardTask) -> ShardEntry:
    """Cut, compress and write one shard; the same task always gives the same bytes.

    An image that cannot be used is listed as rejected in the shard. Raises StoreError when an
    image has changed since it was scanned, and on a machine whose libraries give other pixels.
    """
    if shard_key(task.spec, task.images) != task.key:
        raise StoreError(
            f"{socket.gethostname()} has {_jpeg_library()} and pillow {package_version('pillow')}, "
            "which give other pixels than what the build was begun with: install there what "
            "infra/constraints.txt names, then run the same command again"
        )
    tables = {qf: quantization_table(qf).ravel().tolist() for qf in task.spec.qfs}
    with (
        about(shard=task.key),
        open_shard_writer(task.store_uri, task.key, task.spec, tables) as writer,
    ):
        for image in task.images:
            writer.add_source(image.name, image.sha256)
            try:
                luma = read_luma(_read_unchanged(image), image.name)
                _check_fits(luma, task.spec)
            except ImageRejected as error:
                writer.reject(Rejected(image=image.name, reason=str(error)))
                continue
            for block in patch_blocks(luma, task.spec):
                writer.add(image.name, block.y, block.x, block.pixels)
        entry = writer.finish(task.key)
    tags = {"dataset": task.dataset}
    count(SHARDS, 1, tags)
    count(PATCHES, entry.rows, tags)
    count(REJECTS, len(entry.rejected), tags)
    return entry


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
    shard again and rewrites the damaged ones. Raises StoreError, the previous version staying
    current, if the store was made for another spec, if no image is usable, or if the share of
    rejected images is above `max_rejected_share`.
    """
    previous = _previous_version(uri, spec)
    usable, rejected = split_duplicates(scanned)
    tasks = [
        ShardTask(
            key=shard_key(spec, group), spec=spec, images=group, store_uri=uri, dataset=dataset
        )
        for group in group_images(usable)
    ]
    known = {shard.key: shard for shard in previous.shards} if previous else {}
    entries = dict(_reusable(uri, tasks, known, check=repair, parallel=parallel))
    missing = [task for task in tasks if task.key not in entries]
    reused = len(entries)
    for entry in parallel(build_shard, missing):
        entries[entry.key] = entry
        rows = sum(done.rows for done in entries.values())
        on_progress(BuildProgress(shards_done=len(entries), shards_total=len(tasks), rows=rows))
    shards = tuple(entries[task.key] for task in tasks)
    rejected = (*rejected, *(reject for shard in shards for reject in shard.rejected))
    rejected = tuple(sorted(rejected, key=lambda reject: reject.image))
    _check_rejects(uri, len(scanned), rejected, sum(s.rows for s in shards), max_rejected_share)
    candidate = StoreVersion(
        uri=uri,
        number=0,
        spec=spec,
        dataset=dataset,
        dataset_fingerprint=dataset_fingerprint(scanned),
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
    there = set(files.list_names(files.join(uri, "shards")))
    unknown = []
    for task in tasks:
        if f"{task.key}.parquet" not in there:
            continue
        entry = known.get(task.key)
        if entry is None:
            unknown.append(task.key)
        elif files.size_of(shard_uri(uri, task.key)) == entry.bytes and (
            not check or shard_is_whole(uri, entry)
        ):
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


def _read_unchanged(image: ScannedImage) -> bytes:
    try:
        data = files.read_bytes(image.uri)
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise StoreError(f"{image.name} changed while the store was built; run the build again")
    return data


def _check_fits(luma: np.ndarray, spec: PatchSpec) -> None:
    height, width = shape_to_cut(luma.shape, spec)
    if min(height, width) < spec.side:
        found = f"{width}x{height}"
        if spec.degradation == "rescaled":
            found = f"{luma.shape[1]}x{luma.shape[0]}, rescaled to {found}"
        raise ImageRejected(f"smaller than a patch: {found} < {spec.side}x{spec.side}")


def _jpeg_library() -> str:
    turbo = features.version_feature("libjpeg_turbo")
    return f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version_codec('jpg')}"


def _packages() -> dict[str, str]:
    return {
        **{name: package_version(name) for name in ("numpy", "pillow", "pyarrow")},
        "jpeg": _jpeg_library(),
    }
