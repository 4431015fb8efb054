"""The manifest of a batch restore: one Parquet row a photograph, kept while the work goes on.

<outputs>/manifest.parquet              every result so far; written when a run ends
<outputs>/.qfactory/settings.json       what the outputs are made of; never changed
<outputs>/.qfactory/parts/<...>.parquet results that are not in manifest.parquet yet

Parts appear whole or not at all, many workers write them at once, and the row of the latest run
counts: whoever stops at any moment loses only what no part tells of yet.
"""

import io
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.schema import StoreError

MANIFEST = "manifest.parquet"
PRIVATE = ".qfactory"
SETTINGS = "settings.json"
PARTS = "parts"
READERS = 16
READ_ROUNDS = 5

State = Literal["done", "failed"]


@dataclass(frozen=True, kw_only=True)
class UsedNetwork:
    """A network that outputs are made with."""

    name: str
    qfs: tuple[int, ...]
    sha256: str
    """Of its file."""


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What all outputs of one folder have in common."""

    inputs: str
    """Path or URI of the folder that the photographs lie below."""
    kind: Literal["png", "jpeg"]
    networks: tuple[UsedNetwork, ...]

    def to_json(self) -> str:
        """Return the settings as JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @staticmethod
    def from_json(text: str) -> "BatchSettings":
        """Read `to_json` back."""
        values = json.loads(text)
        networks = (UsedNetwork(**{**n, "qfs": tuple(n["qfs"])}) for n in values["networks"])
        return BatchSettings(**{**values, "networks": tuple(networks)})


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
    """Why it failed."""
    sha256: str = ""
    """Of the input; empty if it could not be read."""
    output: str = ""
    """Path of the new file below the outputs' folder; empty if it failed."""
    output_bytes: int = 0
    output_sha256: str = ""
    qf: int | None = None
    """Estimated JPEG quality factor of the input."""
    exact: bool | None = None
    """Whether the input's quantisation table is exactly that of `qf`."""
    network: str = ""
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


def read_settings(outputs: str) -> BatchSettings | None:
    """Return what the outputs of a folder are made of; None if no run has begun there."""
    try:
        return BatchSettings.from_json(files.read_bytes(_settings_uri(outputs)).decode())
    except FileNotFoundError:
        return None


def claim(outputs: str, wanted: BatchSettings) -> None:
    """Record the settings of an output folder, once. Raises ValueError if it has other ones."""
    files.create_bytes(_settings_uri(outputs), wanted.to_json().encode())
    found = read_settings(outputs)
    differences = _differences(found, wanted) if found else []
    if differences:
        raise ValueError(
            f"{outputs} was begun with other settings: {'; '.join(differences)}. "
            "Name the same ones again, or another output folder"
        )


def append(outputs: str, results: Sequence[FileResult]) -> None:
    """Publish results as a new part. Raises StoreError or ConnectionError if that fails."""
    name = f"{max(r.run for r in results):06}-{uuid.uuid4().hex}.parquet"
    files.write_bytes(_part_uri(outputs, name), _parquet(results))


def read_results(outputs: str) -> dict[str, FileResult]:
    """Return the latest result of every photograph, by its input; empty if there is none."""
    for _ in range(READ_ROUNDS):
        try:
            return _latest(_rows_of([manifest_uri(outputs), *_parts(outputs)]))
        except FileNotFoundError:  # another run has just merged a part
            continue
    raise ConnectionError(f"{outputs}: its manifest changes all the time; wait for the other runs")


def merge(outputs: str) -> dict[str, FileResult]:
    """Publish one manifest of all results and remove the parts it holds; return the results."""
    parts = _parts(outputs)
    results = read_results(outputs)
    files.write_bytes(manifest_uri(outputs), _parquet(list(results.values())))
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(files.delete, parts))
    return results


def _latest(rows: Iterable[FileResult]) -> dict[str, FileResult]:
    ordered = sorted(rows, key=lambda row: (row.run, row.finished))
    return dict(sorted({row.input: row for row in ordered}.items()))


def _rows_of(uris: Sequence[str]) -> list[FileResult]:
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(_read_rows, uris))
    return [row for table in tables for row in table]


def _read_rows(uri: str) -> list[FileResult]:
    try:
        content = files.read_bytes(uri)
    except FileNotFoundError:
        if uri.endswith(f"/{MANIFEST}"):
            return []
        raise
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


def _differences(found: BatchSettings, wanted: BatchSettings) -> list[str]:
    pairs: Mapping[str, tuple[object, object]] = {
        "inputs": (found.inputs, wanted.inputs),
        "format": (found.kind, wanted.kind),
    }
    different = [f"{name} {old}, not {new}" for name, (old, new) in pairs.items() if old != new]
    old_networks, new_networks = (
        [(n.qfs, n.sha256) for n in settings.networks] for settings in (found, wanted)
    )
    if old_networks != new_networks:
        different.append(f"networks {_names(found)}, not {_names(wanted)}")
    return different


def _names(settings: BatchSettings) -> str:
    return ", ".join(f"{n.name} ({n.sha256[:8]})" for n in settings.networks)


def _parts(outputs: str) -> list[str]:
    folder = files.join(outputs, PRIVATE, PARTS)
    names = files.list_names(folder)
    whole = [n for n in names if n.endswith(".parquet") and not n.startswith(files.TEMPORARY)]
    return [_part_uri(outputs, name) for name in whole]


def _part_uri(outputs: str, name: str) -> str:
    return files.join(outputs, PRIVATE, PARTS, name)


def _settings_uri(outputs: str) -> str:
    return files.join(outputs, PRIVATE, SETTINGS)
