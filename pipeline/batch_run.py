"""A run over a folder of photographs: what it is given, has to do, and did. Runs without Ray."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.batch_file import Job, NetworkSource, check_networks
from pipeline.batch_plan import (
    Kind,
    Photo,
    Plan,
    check_free,
    check_names,
    check_places,
    list_outputs,
    list_photos,
    plan,
)
from pipeline.restore import MAX_PIXELS
from storage import files
from storage.restore_manifest import (
    BatchSettings,
    FileResult,
    claim,
    manifest_uri,
    merge,
    read_results,
    read_settings,
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a batch restore is asked to do."""

    inputs: str
    """Folder or bucket of the photographs, a path or URI."""
    outputs: str
    """Folder or bucket of the new files and of the manifest, outside `inputs`."""
    sources: tuple[NetworkSource, ...]
    """Networks to choose from, as `restore_jpeg` does."""
    kind: Kind = "png"
    """Format of the new files."""
    max_pixels: int = MAX_PIXELS
    """Photographs with more are refused."""
    retry_failed: bool = False
    """Whether what failed in earlier runs is tried again."""


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """How far a run is."""

    done: int
    """Photographs that this run restored."""
    failed: int
    total: int
    """Photographs that this run has to do."""


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What a run did, and what the manifest holds now."""

    manifest: str
    """URI of the Parquet file."""
    restored: int
    """Photographs that this run restored."""
    failed: int
    """Photographs that failed in this run."""
    skipped: int
    """Photographs that earlier runs had finished."""
    skipped_failed: int
    """Photographs that failed in earlier runs and were not tried again."""
    failures: tuple[FileResult, ...]
    """All photographs that have no output now."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch whose settings are recorded and whose work is known."""

    photos: tuple[Photo, ...]
    """All there are now."""
    plan: Plan
    job: Job


def prepare(batch: Batch) -> Prepared:
    """Look at inputs, outputs and networks before anything is restored.

    Raises ValueError for those that cannot be used, and for outputs that were begun with other
    settings; StoreError when nothing can be written there.
    """
    check_places(batch.inputs, batch.outputs)
    check_networks(batch.sources)
    photos = list_photos(batch.inputs)
    check_names(photos, batch.kind)
    present = list_outputs(batch.outputs)
    if read_settings(batch.outputs) is None:
        check_free(photos, present, batch.outputs, batch.kind)
    networks = tuple(source.used for source in batch.sources)
    inputs = _absolute(batch.inputs)
    claim(batch.outputs, BatchSettings(inputs=inputs, kind=batch.kind, networks=networks))
    results = read_results(batch.outputs)
    planned = plan(photos, results, present, retry_failed=batch.retry_failed)
    job = Job(
        outputs=_absolute(batch.outputs),
        kind=batch.kind,
        max_pixels=batch.max_pixels,
        run=1 + max((result.run for result in results.values()), default=0),
        touched=planned.touched,
    )
    return Prepared(photos=tuple(photos), plan=planned, job=job)


def report(prepared: Prepared, states: Mapping[str, int]) -> BatchReport:
    """Publish the manifest of a run that ended with so many photographs in each state."""
    there = {photo.name for photo in prepared.photos}
    results = merge(prepared.job.outputs).values()
    return BatchReport(
        manifest=manifest_uri(prepared.job.outputs),
        restored=states.get("done", 0),
        failed=states.get("failed", 0),
        skipped=prepared.plan.done,
        skipped_failed=prepared.plan.failed,
        failures=tuple(r for r in results if r.state == "failed" and r.input in there),
    )


def _absolute(uri: str) -> str:
    """Return a local folder's absolute path, and a URI in one spelling: workers run elsewhere."""
    fs, path = files.resolve(uri)
    return str(fs.unstrip_protocol(path)).removeprefix("file://").rstrip("/")
