"""Prefect tasks that turn a dataset into a store version; Ray does the work in them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from prefect.artifacts import create_table_artifact

from flows.runtime import one_at_a_time, progress, retried_task, say
from flows.settings import git_commit, settings
from pipeline.cluster import ray_map
from pipeline.datasets import references
from pipeline.datasets.sources import ScannedImage, scan_images
from pipeline.patches.build_store import BuildProgress, build_store, told_rejects
from pipeline.patches.store_size import overlap_warning
from pipeline.timings import timed
from storage import files
from storage.patches import upkeep
from storage.patches.schema import PatchSpec
from storage.patches.versions import StoreVersion
from storage.tracking.tracked_run import TrackedRun

HASHED_HERE = 512
"""So many images at most are hashed by the flow itself: for them Ray would take longer to start."""


@retried_task("list and hash source images", run_name="list and hash {dataset}")
@timed("hash the images")
def scan_sources(dataset: str) -> tuple[ScannedImage, ...]:
    """Return every source image of a dataset with its hash."""
    root = settings().datasets_root
    sources = references.list_images(dataset, root=root, purpose="train")
    return scan_images(sources, ray_map if len(sources) > HASHED_HERE else map)


@retried_task("build shards and publish the version")
@timed("build the store")
def build_version(
    uri: str,
    spec: PatchSpec,
    scanned: tuple[ScannedImage, ...],
    dataset: str,
    repair: bool,
    max_rejected_share: float,
) -> StoreVersion:
    """Bring a store up to date and return the version that is now current.

    Another run that builds the same store is waited for.
    """
    is_new = not files.exists(files.join(uri, "CURRENT"))
    if is_new and (warning := overlap_warning(spec, scanned)):
        say(f"WARNING: {warning}")
    with _alone_in(uri), progress(f"patches of {dataset}") as update:

        def shown(done: BuildProgress) -> None:
            text = f"{done.shards_done}/{done.shards_total} shards, {done.rows:,} patches"
            update(done.shards_done, done.shards_total, text)

        report = build_store(
            uri,
            spec,
            scanned,
            dataset,
            parallel=ray_map,
            repair=repair,
            max_rejected_share=max_rejected_share,
            on_progress=shown,
        )
    version = report.version
    if repair:
        upkeep.record_verification(version, 0)
    if report.built == 0 and not report.published:
        say(
            f"store reused: {version.name} is up to date by the sizes of its shards, "
            f"{version.rows:,} patches; {upkeep.when_verified(version)}"
        )
        tell_damage(version)
    else:
        say(
            f"store built: {version.name}, {version.rows:,} patches of {version.images} images, "
            f"{version.bytes / 1e6:.1f} MB; {report.built} shards written, {report.reused} reused"
        )
    describe_version(version)
    return version


@contextmanager
def _alone_in(uri: str) -> Iterator[None]:
    """Hold the lease of a store's build; a store that cannot be written may be up to date."""
    with ExitStack() as stack:
        with suppress(files.StoreError, PermissionError):
            stack.enter_context(one_at_a_time(f"building {uri}", files.join(uri, "lease")))
        yield


def tell_damage(version: StoreVersion) -> None:
    """Warn if the last verification of a version found damage that nobody repaired since."""
    found = upkeep.last_verification(version)
    if found is not None and found.damaged:
        say(f"WARNING: damaged shards are in use; repair: {version.repair_command}")


def describe_version(version: StoreVersion) -> None:
    """Leave a table of a store version, and one of its rejects, as Prefect artifacts."""
    facts = {
        "store": version.uri,
        "version": version.number,
        "dataset": version.dataset,
        "dataset fingerprint": version.dataset_fingerprint,
        "side, stride": f"{version.spec.side}, {version.spec.stride} pixels",
        "quality factors": ", ".join(map(str, version.spec.qfs)) or "originals alone",
        "degradation": version.spec.degradation,
        "patches": f"{version.rows:,}",
        "images": version.images,
        "rejected": len(version.rejected),
        "shards": len(version.shards),
        "size": f"{version.bytes / 1e6:.1f} MB",
    }
    table = [{"what": name, "value": str(value)} for name, value in facts.items()]
    create_table_artifact(table, key="patch-store", description=f"Patch store {version.name}")
    if version.rejected:
        rows = [{"image": r.image, "reason": r.reason} for r in version.rejected]
        create_table_artifact(rows, key="rejected-images", description=version.name)
        rest = f"the rest: qfactory patches inspect {version.uri}"
        told = told_rejects(version.rejected, rest)
        say(f"{len(version.rejected)} images rejected:{told}")


def log_version(run: TrackedRun, version: StoreVersion) -> None:
    """Record in MLflow what a build made: the dataset, the spec, and how much came out."""
    run.log_params({"store_version": version.name, "spec": version.spec.to_json()})
    run.log_tags({"git_commit": git_commit()})
    run.log_metrics(
        {
            "patches": version.rows,
            "images": version.images,
            "rejected": len(version.rejected),
            "bytes": version.bytes,
        }
    )
    run.log_dataset(version.dataset, fingerprint=version.dataset_fingerprint, source=version.name)
