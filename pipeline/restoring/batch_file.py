"""One photograph of a batch: read, restored, published, and told of. Runs without Ray."""

import errno
import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch

from pipeline.networks.devices import Precision, PrecisionChoice, best_device, inference_precision
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import load_network
from pipeline.restoring.batch_plan import Photo
from pipeline.restoring.one_photograph import Network, restore_jpeg, when_used
from pipeline.restoring.photo_names import Kind, output_name
from pipeline.served.facts import ProgramFacts
from pipeline.served.header import PhotographRejected
from storage import files
from storage.batches.batch_settings import UsedNetwork
from storage.batches.manifest import FileResult
from storage.files import StoreError

READ_ATTEMPTS = 3
FIRST_WAIT_S = 0.5
REASON_LENGTH = 500
NO_NETWORK = (
    "no network to restore with: name one with --model NAME|WEIGHTS, or train one with "
    "`qfactory study`"
)
ONE_FILE = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}
"""Errors of writing that say something of one file, not of the disk."""


@dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """A network that workers can open: its file goes to them as bytes, so they share no disk."""

    network: UsedNetwork
    content: bytes
    """Of its file: weights (networks/weights.py), or a torch.export program, (N, 1, H, W) in [0, 1]
    to the same. Opening one can run code: it must come from where it was checked."""
    facts: ProgramFacts | None = None
    """Of a program; None for weights."""
    precision: PrecisionChoice = "auto"
    """What it is to compute in, see `pipeline.networks.devices.inference_precision`."""
    begun_in: Precision | None = None
    """What it computed in for earlier photographs of the batch, if there are any."""


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """What holds for every photograph of a run."""

    outputs: str
    """Path or URI of the folder of the outputs."""
    kind: Kind
    max_pixels: int
    run: int
    """Number of the run, from 1."""
    touched: Mapping[str, FileResult]
    """See pipeline.restoring.batch_plan.BatchPlan."""


def check_networks(sources: Sequence[NetworkSource]) -> None:
    """Raise ValueError unless there are networks, and all of them can be opened."""
    if not sources:
        raise ValueError(NO_NETWORK)
    for source in sources:
        _restorer_of(source, "float32")


def open_networks(sources: Sequence[NetworkSource]) -> list[Network]:
    """Return the networks of sources, each as `open_when_used` does."""
    return [
        open_when_used(source.network, lambda s=source: s, source.precision, source.begun_in)
        for source in sources
    ]


def open_when_used(
    network: UsedNetwork,
    fetch: Callable[[], NetworkSource],
    precision: PrecisionChoice,
    begun_in: Precision | None = None,
) -> Network:
    """Return a network, which is fetched and built when it is first used.

    A program computes where it was exported, on the CPU, others on a GPU if there is one. Raises
    ValueError for a precision that this device does not compute in.
    """
    device = torch.device("cpu") if network.is_registered else best_device()
    chosen = inference_precision(precision, device, network.bfloat16_loss_db, begun_in)
    return Network(
        name=network.name,
        qfs=network.qfs,
        restorer=when_used(lambda: _restorer_of(fetch(), chosen)),
        asked=network.asked,
        precision=chosen,
    )


def restore_file(photo: Photo, job: BatchJob, networks: Sequence[Network]) -> FileResult:
    """Restore one photograph and publish its output; a photograph's own faults become its result.

    Raises StoreError when nothing can be written, and ConnectionError when an object store does
    not answer: these say nothing of the photograph.
    """
    begun = time.perf_counter()
    result = _restored(photo, job, networks)
    seconds = time.perf_counter() - begun
    return replace(result, run=job.run, finished=datetime.now(UTC), seconds=round(seconds, 4))


def rejection(photo: Photo, job: BatchJob, reason: str, *, sha256: str = "") -> FileResult:
    """Return the result of a photograph that cannot be restored, for what it is."""
    failed = failure(photo, job, reason, sha256=sha256)
    return replace(failed, state="rejected", max_pixels=job.max_pixels)


def failure(photo: Photo, job: BatchJob, reason: str, *, sha256: str = "") -> FileResult:
    """Return the result of a photograph that was not restored; the next run tries it again."""
    return FileResult(
        input=photo.name,
        bytes=photo.bytes,
        stamp=photo.stamp,
        run=job.run,
        finished=datetime.now(UTC),
        seconds=0.0,
        state="failed",
        reason=" ".join(reason.split())[:REASON_LENGTH],
        sha256=sha256,
    )


def _restored(photo: Photo, job: BatchJob, networks: Sequence[Network]) -> FileResult:
    try:
        content = _read(photo.uri)
    except ConnectionError:
        raise
    except OSError as error:
        return failure(photo, job, f"unreadable: {error.strerror or error}")
    digest = hashlib.sha256(content).hexdigest()
    before = job.touched.get(photo.name)
    if before is not None and before.sha256 == digest:
        return replace(before, stamp=photo.stamp)
    try:
        restored = restore_jpeg(content, networks, kind=job.kind, max_pixels=job.max_pixels)
    except PhotographRejected as error:
        return rejection(photo, job, str(error), sha256=digest)
    except Exception as error:  # a network that diverges, memory that runs out: others go on
        return failure(photo, job, f"{type(error).__name__}: {error}", sha256=digest)
    output = output_name(photo.name, job.kind)
    try:
        files.write_bytes(files.join(job.outputs, output), restored.content)
    except StoreError as error:
        if getattr(error.__cause__, "errno", None) not in ONE_FILE:
            raise
        return failure(photo, job, f"output {error}", sha256=digest)
    return FileResult(
        input=photo.name,
        bytes=len(content),
        stamp=photo.stamp,
        run=job.run,
        finished=datetime.now(UTC),
        seconds=0.0,
        state="done",
        sha256=digest,
        output=output,
        output_bytes=len(restored.content),
        output_sha256=hashlib.sha256(restored.content).hexdigest(),
        qf=restored.qf,
        exact=restored.exact,
        network=restored.network,
        precision=restored.precision or "",
        width=restored.width,
        height=restored.height,
        notes="; ".join(restored.notes),
    )


def _read(uri: str) -> bytes:
    """Read a file, again when an object store does not answer."""
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            return files.read_bytes(uri)
        except ConnectionError:
            if attempt == READ_ATTEMPTS:
                raise
            time.sleep(FIRST_WAIT_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _restorer_of(source: NetworkSource, precision: Precision) -> Restorer:
    if source.facts is not None:
        program = torch.export.load(io.BytesIO(source.content)).module()
        return network_restorer(program, precision=precision, facts=source.facts)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(source.content)
        file.flush()
        return network_restorer(load_network(file.name)[1], best_device(), precision=precision)
