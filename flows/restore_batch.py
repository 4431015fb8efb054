"""The restore-batch flow: a folder or bucket of JPEG photographs becomes one of restored files."""

from typing import Annotated

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.planning.restoring_networks import fetch, networks_for
from flows.runtime import progress, ray_session, retried_task, say
from pipeline.networks.devices import PrecisionChoice
from pipeline.restoring.batch_run import Batch, RestoredBatch
from pipeline.restoring.photo_names import Kind
from pipeline.restoring.ray_data import restore_all
from pipeline.served.photographs import MAX_PIXELS
from pipeline.timings import timed
from storage.batches.batch_settings import UsedNetwork

Place = Annotated[str, Field(min_length=1, description="A folder or bucket: a path, s3://, gs://")]
Pixels = Annotated[int, Field(ge=1, description="Photographs with more pixels are refused")]
Actors = Annotated[int, Field(ge=1, description="Photographs restored at once")]


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
    with ray_session(lazy=True):
        result = restore_photographs(batch, actors)
    describe(result)
    return result


@retried_task("choose networks")
@timed("choose networks")
def choose_networks(outputs: str, model: str | None, new_networks: bool) -> tuple[UsedNetwork, ...]:
    """Choose the networks; again after the registry did not answer."""
    return networks_for(outputs, model, new_networks=new_networks)


@retried_task("restore photographs")
@timed("restore photographs")
def restore_photographs(batch: Batch, actors: int | None) -> RestoredBatch:
    """Restore what is not done yet; again after a network or disk failed, from where it was."""
    with progress(f"photographs of {batch.inputs}") as update:

        def shown(done: int, failed: int, total: int) -> None:
            told = f", {failed:,} failed" if failed else ""
            update(done + failed, total, f"{done:,}/{total:,}{told}")

        return restore_all(batch, actors=actors, on_progress=shown)


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
