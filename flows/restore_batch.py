"""The restore-batch flow: a folder or bucket of JPEG photographs becomes one of restored files."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.planning.restoring_networks import fetch, names_of, networks_for
from flows.runtime import progress, ray_session, retried_task, say
from pipeline.networks.devices import PrecisionChoice
from pipeline.restoring.batch_run import Batch, BatchProgress, BatchReport
from pipeline.restoring.one_photograph import MAX_PIXELS
from pipeline.restoring.photo_names import Kind
from pipeline.restoring.ray_data import restore_all
from pipeline.timings import timed
from storage.batches.batch_settings import UsedNetwork

Place = Annotated[str, Field(min_length=1, description="A folder or bucket: a path, s3://, gs://")]
Pixels = Annotated[int, Field(ge=1, description="Photographs with more pixels are refused")]
Actors = Annotated[int, Field(ge=1, description="Photographs restored at once")]

REASONS = 20
REASON_LENGTH = 80
"""Of the text that failures are counted by: what follows tells of one file."""


@dataclass(frozen=True, kw_only=True)
class RestoredBatch:
    """What a run of the flow did."""

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


@flow(name="restore-batch", flow_run_name="{outputs}")
def restore_batch(
    inputs: Place,
    outputs: Place,
    model: str | None = None,
    format: Kind = "png",
    max_pixels: Pixels = MAX_PIXELS,
    actors: Actors | None = None,
    retry_failed: bool = False,
    new_networks: bool = False,
    precision: PrecisionChoice = "auto",
) -> RestoredBatch:
    """Restore every JPEG of a folder or bucket; what earlier runs finished is not done again.

    Args:
        inputs: folder or bucket with JPEG files in it or below it: a path, s3://, gs://
        outputs: folder or bucket of the restored files and of manifest.parquet
        model: the network: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, NAME, a shipped network or
            weights; by default the one that suits each photograph, of those that `outputs` was
            begun with, else of today's champions and the shipped ones
        format: format of the restored files, `png` or `jpeg`
        max_pixels: photographs with more pixels are refused
        actors: photographs restored at once; by default one a GPU of the cluster where all
            networks are weights, else one a core
        retry_failed: try again what earlier runs rejected, too; other failures always are
        new_networks: restore what is not done yet with other networks than `outputs` was begun with
        precision: what networks compute in, `float32`, `bfloat16`, or `auto`: what `outputs` was
            begun in, else bfloat16 where the processor has it and the network is known to lose less
            than 0.005 dB by it
    """
    batch = Batch(
        inputs=inputs,
        outputs=outputs,
        networks=choose_networks(outputs, model, new_networks),
        fetch=fetch,
        kind=format,
        max_pixels=max_pixels,
        retry_failed=retry_failed,
        new_networks=new_networks,
        precision=precision,
    )
    with ray_session():
        report = restore_photographs(batch, actors)
    result = summary(batch, report)
    describe(result)
    return result


@retried_task("choose networks")
@timed("choose networks")
def choose_networks(outputs: str, model: str | None, new_networks: bool) -> tuple[UsedNetwork, ...]:
    """Choose the networks; again after the registry did not answer."""
    return networks_for(outputs, model, new_networks=new_networks)


@retried_task("restore photographs")
@timed("restore photographs")
def restore_photographs(batch: Batch, actors: int | None) -> BatchReport:
    """Restore what is not done yet; again after a network or disk failed, from where it was."""
    with progress(f"photographs of {batch.inputs}") as update:

        def shown(now: BatchProgress) -> None:
            failed = f", {now.failed:,} failed" if now.failed else ""
            update(now.done + now.failed, now.total, f"{now.done:,}/{now.total:,}{failed}")

        return restore_all(batch, actors=actors, on_progress=shown)


def summary(batch: Batch, report: BatchReport) -> RestoredBatch:
    """Return what a run did, with its failures counted by reason."""
    reasons, examples = Counter[str](), dict[str, str]()
    for result in report.failures:
        reason = result.reason[:REASON_LENGTH]
        reasons[reason] += 1
        examples.setdefault(reason, result.input)
    return RestoredBatch(
        outputs=batch.outputs,
        manifest=report.manifest,
        networks=names_of(batch.networks),
        restored=report.restored,
        skipped=report.skipped,
        failed=len(report.failures),
        rejected_before=report.skipped_rejected,
        reasons=dict(reasons.most_common(REASONS)),
        examples=examples,
    )


def table_of(result: RestoredBatch) -> list[dict[str, object]]:
    """Return how many photographs were restored, were done before, and failed for which reason."""
    counts = {"restored": result.restored, "done before": result.skipped, "failed": result.failed}
    if result.rejected_before:
        counts["  of these tried again only with --retry-failed"] = result.rejected_before
    return [
        *({"what": what, "photographs": n, "such as": ""} for what, n in counts.items()),
        *(
            {"what": f"  {reason}", "photographs": n, "such as": result.examples[reason]}
            for reason, n in result.reasons.items()
        ),
    ]


def describe(result: RestoredBatch) -> None:
    """Tell the log what was done, and leave it with the reasons of failures as an artifact."""
    say(
        f"{result.outputs}: {result.restored:,} restored, {result.skipped:,} were done before, "
        f"{result.failed:,} failed; {result.manifest}"
    )
    description = f"{result.outputs}, the networks to choose from: {result.networks}"
    create_table_artifact(table_of(result), key="restored-batch", description=description)
