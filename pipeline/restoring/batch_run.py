"""A run over a folder of photographs: what it is given, has to do, and did. Runs without Ray."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from pipeline.networks.devices import Precision, PrecisionChoice
from pipeline.restoring.batch_file import NO_NETWORK, BatchJob, NetworkSource, check_networks
from pipeline.restoring.batch_plan import (
    BatchPlan,
    Photo,
    check_free,
    check_names,
    check_places,
    list_outputs,
    list_photos,
    plan,
)
from pipeline.restoring.photo_names import Kind
from pipeline.served.photographs import MAX_PIXELS
from storage import files
from storage.batches.batch_settings import (
    BatchSettings,
    UsedNetwork,
    check_settings,
    claim,
    read_settings,
)
from storage.batches.manifest import FileResult, manifest_uri, merge, read_results
from storage.files import StoreError

REASONS = 20
REASON_LENGTH = 80
"""Of the text that failures are counted by: what follows tells of one file."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a batch restore is asked to do."""

    inputs: str
    """Folder or bucket of the photographs, a path or URI."""
    outputs: str
    """Folder or bucket of the new files and of the manifest, outside `inputs`."""
    networks: tuple[UsedNetwork, ...]
    """What to choose from, as `restore_jpeg` does."""
    fetch: Callable[[UsedNetwork], NetworkSource]
    """Returns a network's file; called only when there is something to restore."""
    kind: Kind = "png"
    """Format of the new files."""
    max_pixels: int = MAX_PIXELS
    """Photographs with more are refused."""
    retry_failed: bool = False
    """Whether what earlier runs rejected is tried again, too."""
    new_networks: bool = False
    """Whether `networks` may be other ones than those that the outputs were begun with."""
    precision: PrecisionChoice = "auto"
    """What the networks compute in; `auto` keeps to what the outputs were begun in."""


@dataclass(frozen=True, kw_only=True)
class RestoredBatch:
    """What a run did, and what the manifest holds now."""

    outputs: str
    manifest: str
    """URI of a Parquet file with a row a photograph."""
    networks: str
    """Names of the networks that were there to choose from."""
    restored: int
    """Photographs restored by this run."""
    skipped: int
    """Photographs that were restored before."""
    failed: int
    """Photographs that have no output, in this run or before."""
    rejected_before: int
    """Of those, what earlier runs rejected and this one did not try again."""
    reasons: dict[str, int]
    """Photographs by the reason why they failed, the most frequent first."""
    examples: dict[str, str]
    """One such photograph a reason."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch whose settings are recorded and whose work is known."""

    photos: tuple[Photo, ...]
    """All there are now."""
    plan: BatchPlan
    job: BatchJob
    sources: tuple[NetworkSource, ...]
    """The networks; none where nothing is to be done."""


def prepare(batch: Batch) -> Prepared:
    """Look at inputs, outputs and networks before anything is restored.

    Raises ValueError for those that cannot be used, and for outputs that were begun with other
    settings; StoreError when nothing can be written there.
    """
    check_places(batch.inputs, batch.outputs)
    if not batch.networks:
        raise ValueError(NO_NETWORK)
    photos = list_photos(batch.inputs)
    check_names(photos, batch.kind)
    present = list_outputs(batch.outputs)
    recorded = read_settings(batch.outputs)
    if recorded is None:
        check_free(photos, present, batch.outputs, batch.kind)
    settings = _settings(batch, recorded)
    check_settings(batch.outputs, settings, new_networks=batch.new_networks)
    results = read_results(batch.outputs)
    planned = plan(
        photos,
        results,
        present,
        max_pixels=batch.max_pixels,
        retry_failed=batch.retry_failed,
    )
    sources = _fetched(batch, begun_in(settings, results.values())) if planned.todo else ()
    claim(batch.outputs, settings, new_networks=batch.new_networks)
    job = BatchJob(
        outputs=_absolute(batch.outputs),
        kind=batch.kind,
        max_pixels=batch.max_pixels,
        run=1 + max((result.run for result in results.values()), default=0),
        touched=planned.touched,
    )
    return Prepared(photos=tuple(photos), plan=planned, job=job, sources=sources)


def report(batch: Batch, prepared: Prepared, states: Mapping[str, int]) -> RestoredBatch:
    """Publish the manifest of a run that ended with so many photographs in each state.

    Raises StoreError if it does not tell of all of them: workers have written somewhere else.
    """
    there = {photo.name for photo in prepared.photos}
    outputs, run = prepared.job.outputs, prepared.job.run
    results = merge(outputs)
    tried = sum(states.values())
    seen = [p for p in prepared.plan.todo if p.name in results and results[p.name].run >= run]
    if len(seen) < tried:
        raise StoreError(
            f"{outputs}: results of {tried - len(seen)} of {tried} photographs are not visible "
            "here, so workers have written them on their own disks; give s3://, gs:// or a folder "
            "that all nodes share"
        )
    failures = [r for r in results.values() if r.state != "done" and r.input in there]
    reasons, examples = Counter[str](), dict[str, str]()
    for failure in failures:
        reason = failure.reason[:REASON_LENGTH]
        reasons[reason] += 1
        examples.setdefault(reason, failure.input)
    return RestoredBatch(
        outputs=batch.outputs,
        manifest=manifest_uri(outputs),
        networks=", ".join(network.name for network in batch.networks),
        restored=states.get("done", 0),
        skipped=prepared.plan.done,
        failed=len(failures),
        rejected_before=prepared.plan.rejected,
        reasons=dict(reasons.most_common(REASONS)),
        examples=examples,
    )


def begun_in(settings: BatchSettings, results: Iterable[FileResult]) -> dict[str, Precision]:
    """Return what the networks were asked to compute in, else what each of them computed in.

    That is bfloat16 also where some of the devices lacked it.
    """
    if settings.precision != "auto":
        asked: Precision = settings.precision
        return {network.name: asked for network in settings.networks}
    found: dict[str, Precision] = {}
    for result in results:
        if result.precision == "bfloat16":
            found[result.network] = "bfloat16"
        elif result.precision == "float32":
            found.setdefault(result.network, "float32")
    return found


def _settings(batch: Batch, recorded: BatchSettings | None) -> BatchSettings:
    """Return what the outputs are made of now: `auto` keeps to the precision that was asked for."""
    precision = batch.precision
    if precision == "auto" and recorded is not None and not batch.new_networks:
        precision = recorded.precision
    return BatchSettings(
        inputs=_absolute(batch.inputs),
        kind=batch.kind,
        networks=batch.networks,
        precision=precision,
    )


def _fetched(batch: Batch, begun: Mapping[str, Precision]) -> tuple[NetworkSource, ...]:
    """Fetch the networks. Raises ValueError for a file that is not the recorded one."""
    sources = tuple(batch.fetch(network) for network in batch.networks)
    for network, source in zip(batch.networks, sources, strict=True):
        if network.sha256 != hashlib.sha256(source.content).hexdigest():
            raise ValueError(f"{network.name}: its file has just changed; run it again")
    check_networks(sources)
    return tuple(
        replace(source, precision=batch.precision, begun_in=begun.get(source.network.name))
        for source in sources
    )


def _absolute(uri: str) -> str:
    """Return a local folder's absolute path, and a URI in one spelling: workers run elsewhere."""
    fs, path = files.resolve(uri)
    return str(fs.unstrip_protocol(path)).removeprefix("file://").rstrip("/")
