"""One photograph of a batch: read, restored, published, and told of. Runs without Ray."""

import errno
import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from pipeline.networks.devices import Precision, PrecisionChoice, best_device, inference_precision
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import load_network
from pipeline.restoring.batch_plan import Photo
from pipeline.restoring.one_photograph import Network, PhotographRejected, restore_jpeg, when_used
from pipeline.restoring.photo_names import Kind, output_name
from storage import files
from storage.batches.manifest import FileResult
from storage.files import StoreError

PROGRAM = ".pt2"
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

    name: str
    """For people."""
    qfs: tuple[int, ...]
    """Quality factors that it is for."""
    file: str
    """`.safetensors` (networks/weights.py), or `.pt2` for a torch.export program: (N, 1, H, W)
    in [0, 1] to the same. Opening one can run code: it must come from where it was checked."""
    content: bytes
    """Of the file."""
    asked: bool = False
    """Whether the user named it; see pipeline.restoring.one_photograph.Network."""
    receptive_field: int | None = None
    """Of a program; None where it cannot be tiled."""
    multiple: int | None = None
    """Of a program, see pipeline.served.tiles.Tiling."""
    takes_table: bool = False
    """Whether a program takes the quantisation table behind the image."""
    bfloat16_loss_db: float | None = None
    """See UsedNetwork."""
    precision: PrecisionChoice = "auto"
    """What it is to compute in, see `pipeline.networks.devices.inference_precision`."""
    begun_in: Precision | None = None
    """What it computed in for earlier photographs of the batch, if there are any."""

    @property
    def is_program(self) -> bool:
        """Tell whether its file holds a torch.export program."""
        return self.file.endswith(PROGRAM)

    @property
    def sha256(self) -> str:
        """Digest of its file."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where it computes: a program where it was exported, on the CPU; others on a GPU."""
        return torch.device("cpu") if self.is_program else best_device()


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
    """Return the networks; each is built when it is first used, on a GPU if there is one.

    Raises ValueError for a precision that its device does not compute in.
    """
    return [_opened(source) for source in sources]


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


def _opened(source: NetworkSource) -> Network:
    precision = inference_precision(
        source.precision, source.device, source.bfloat16_loss_db, source.begun_in
    )
    return Network(
        name=source.name,
        qfs=source.qfs,
        restorer=when_used(partial(_restorer_of, source, precision)),
        asked=source.asked,
        precision=precision,
    )


def _restorer_of(source: NetworkSource, precision: Precision) -> Restorer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.file
        path.write_bytes(source.content)
        if not source.is_program:
            network = load_network(str(path))[1]
            return network_restorer(network, source.device, precision=precision)
        module = torch.export.load(path).module()
    return network_restorer(
        module,
        precision=precision,
        receptive_field=source.receptive_field,
        multiple=source.multiple,
        takes_table=source.takes_table,
    )
