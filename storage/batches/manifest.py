"""The manifest of a batch restore: one Parquet row a photograph, kept while the work goes on.

<outputs>/.qfactory/settings.json       what the outputs are made of
<outputs>/.qfactory/parts/<...>.parquet every result; made into one part when a run ends
<outputs>/manifest.parquet              the same for people, written when a run ends, never read

Parts appear whole or not at all, many workers write them at once, and the row of the latest run
counts: whoever stops at any moment loses only what no part tells of yet. A part is removed only
after another one with all its rows was published, so runs that overlap lose nothing.
"""

import io
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.batches.batch_settings import PRIVATE
from storage.files import StoreError

MANIFEST = "manifest.parquet"
PARTS = "parts"
READERS = 16
READ_ROUNDS = 5

State = Literal["done", "rejected", "failed"]
"""Rejected for what the photograph is; failed for anything else, and tried again by each run."""


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What became of one photograph: a row of the manifest."""

    input: str
    """Its path below the inputs' folder, with `/`."""
    bytes: int
    """Size of the input."""
    stamp: str
    """What changes when the input is written anew: the entity tag, else the time of writing."""
    run: int
    """Number of the run, from 1; the row of the latest one counts."""
    finished: datetime
    """In UTC."""
    seconds: float
    """From reading it to publishing the output."""
    state: State
    reason: str = ""
    """Why it has no output."""
    max_pixels: int | None = None
    """Of a rejected photograph: the limit that held; under a larger one it is tried again."""
    sha256: str = ""
    """Of the input; empty if it could not be read."""
    output: str = ""
    """Path of the new file below the outputs' folder; empty if there is none."""
    output_bytes: int = 0
    output_sha256: str = ""
    qf: int | None = None
    """Estimated JPEG quality factor of the input."""
    exact: bool | None = None
    """Whether the input's quantisation table is exactly that of `qf`."""
    network: str = ""
    precision: str = ""
    """What the network computed in; empty where none was used."""
    width: int | None = None
    """Of the output, in pixels."""
    height: int | None = None
    notes: str = ""
    """What people should know of it."""


ARROW_TYPES = {
    "bytes": pa.int64(),
    "run": pa.int32(),
    "finished": pa.timestamp("us", tz="UTC"),
    "seconds": pa.float64(),
    "max_pixels": pa.int64(),
    "output_bytes": pa.int64(),
    "qf": pa.int32(),
    "exact": pa.bool_(),
    "width": pa.int32(),
    "height": pa.int32(),
}
SCHEMA = pa.schema(
    [pa.field(f.name, ARROW_TYPES.get(f.name, pa.string())) for f in fields(FileResult)]
)


def manifest_uri(outputs: str) -> str:
    """Return the URI of the Parquet file that a run leaves beside its outputs."""
    return files.join(outputs, MANIFEST)


def append(outputs: str, results: Sequence[FileResult]) -> str:
    """Publish results as a new part and return its URI.

    Raises StoreError or ConnectionError if that fails.
    """
    name = f"{max(r.run for r in results):06}-{uuid.uuid4().hex}.parquet"
    uri = _part_uri(outputs, name)
    files.write_bytes(uri, _parquet(results))
    return uri


def read_results(outputs: str) -> dict[str, FileResult]:
    """Return the latest result of every photograph, by its input; empty if there is none."""
    return _read_parts(outputs)[1]


def merge(outputs: str) -> dict[str, FileResult]:
    """Make one part of all, and write the manifest from it; return the results."""
    results: dict[str, FileResult] = {}
    for _ in range(READ_ROUNDS):
        parts, results = _read_parts(outputs)
        if len(parts) > 1:
            whole = append(outputs, list(results.values()))
            with ThreadPoolExecutor(READERS) as pool:
                list(pool.map(files.delete, parts))
            parts = [whole]
        files.write_bytes(manifest_uri(outputs), _parquet(list(results.values())))
        if _parts(outputs) == parts:  # else another run has added or merged some meanwhile
            break
    return results


def _read_parts(outputs: str) -> tuple[list[str], dict[str, FileResult]]:
    """Return URIs of all parts, and the results that they hold."""
    for _ in range(READ_ROUNDS):
        parts = _parts(outputs)
        try:
            return parts, _latest(_rows_of(parts))
        except FileNotFoundError:  # another run has just merged a part
            continue
    raise ConnectionError(f"{outputs}: its manifest changes all the time; wait for the other runs")


def _latest(rows: Iterable[FileResult]) -> dict[str, FileResult]:
    ordered = sorted(rows, key=lambda row: (row.run, row.finished))
    return dict(sorted({row.input: row for row in ordered}.items()))


def _rows_of(uris: Sequence[str]) -> list[FileResult]:
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(_read_rows, uris))
    return [row for table in tables for row in table]


def _read_rows(uri: str) -> list[FileResult]:
    content = files.read_bytes(uri)
    try:
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
        return [FileResult(**row) for row in table.to_pylist()]
    except (OSError, pa.ArrowException, TypeError) as error:
        raise StoreError(
            f"{uri} is damaged ({error}); remove it, and what it told of is restored again"
        ) from error


def _parquet(results: Sequence[FileResult]) -> bytes:
    table = pa.Table.from_pylist([asdict(result) for result in results], schema=SCHEMA)
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def _parts(outputs: str) -> list[str]:
    folder = files.join(outputs, PRIVATE, PARTS)
    names = files.list_names(folder)
    whole = [n for n in names if n.endswith(".parquet") and not n.startswith(files.TEMPORARY)]
    return [_part_uri(outputs, name) for name in whole]


def _part_uri(outputs: str, name: str) -> str:
    return files.join(outputs, PRIVATE, PARTS, name)
