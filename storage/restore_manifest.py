"""The manifest of a batch restore: one Parquet row a photograph, kept while the work goes on.

<outputs>/.qfactory/settings.json       what the outputs are made of
<outputs>/.qfactory/parts/<...>.parquet every result; made into one part when a run ends
<outputs>/manifest.parquet              the same for people, written when a run ends, never read

Parts appear whole or not at all, many workers write them at once, and the row of the latest run
counts: whoever stops at any moment loses only what no part tells of yet. A part is removed only
after another one with all its rows was published, so runs that overlap lose nothing.
"""

import io
import json
import uuid
from collections.abc import Iterable, Sequence
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

State = Literal["done", "rejected", "failed"]
"""Rejected for what the photograph is; failed for anything else, and tried again by each run."""


@dataclass(frozen=True, kw_only=True)
class UsedNetwork:
    """A network that photographs are restored with, and where it is found again."""

    name: str
    """For people."""
    uri: str
    """`models:/NAME/VERSION`, the name of a shipped network, or the URI of weights."""
    qfs: tuple[int, ...]
    """Quality factors that it is for."""
    sha256: str
    """Of its file."""
    asked: bool = False
    """Whether the user named it; see pipeline.restore.Network."""


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


def read_settings(outputs: str) -> BatchSettings | None:
    """Return what the outputs of a folder are made of; None if no run has begun there."""
    uri = _settings_uri(outputs)
    try:
        return BatchSettings.from_json(files.read_bytes(uri).decode())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{uri} is damaged ({error!r}); name another output folder") from error


def check_settings(outputs: str, wanted: BatchSettings, *, new_networks: bool = False) -> None:
    """Raise ValueError if an output folder has other settings; networks may be `new_networks`."""
    found = read_settings(outputs)
    if found is None:
        return
    other = [
        f"{name} {old}, not {new}"
        for name, old, new in (
            ("inputs", found.inputs, wanted.inputs),
            ("format", found.kind, wanted.kind),
        )
        if old != new
    ]
    if other:
        raise ValueError(
            f"{outputs} was begun with other settings: {'; '.join(other)}. "
            "Name the same ones again, or another output folder"
        )
    changes = [] if new_networks else _network_changes(found, wanted)
    if changes:
        raise ValueError(
            f"{outputs} was begun with other networks: {'; '.join(changes)}. Leave out --model to "
            "go on with those, add --new-networks to restore with others what is not done yet, or "
            "name another output folder"
        )


def claim(outputs: str, wanted: BatchSettings, *, new_networks: bool = False) -> None:
    """Record the settings of an output folder. Raises ValueError if it has other ones.

    With `new_networks` the networks replace those that are recorded.
    """
    created = files.create_bytes(_settings_uri(outputs), wanted.to_json().encode())
    check_settings(outputs, wanted, new_networks=new_networks)
    if new_networks and not created:
        files.write_bytes(_settings_uri(outputs), wanted.to_json().encode())


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


def _network_changes(found: BatchSettings, wanted: BatchSettings) -> list[str]:
    """Say which networks are not the same; empty if all are."""
    old, new = (
        {(n.qfs, n.sha256): n.name for n in settings.networks} for settings in (found, wanted)
    )
    if list(old) == list(new):
        return []
    gone = [name for key, name in old.items() if key not in new]
    added = [name for key, name in new.items() if key not in old]
    told = [f"{name}, whose file has changed" for name in gone if name in added]
    told += [f"{name}, which is not used now" for name in gone if name not in added]
    told += [f"not {name}" for name in added if name not in gone]
    return told or ["the same ones in another order"]


def _parts(outputs: str) -> list[str]:
    folder = files.join(outputs, PRIVATE, PARTS)
    names = files.list_names(folder)
    whole = [n for n in names if n.endswith(".parquet") and not n.startswith(files.TEMPORARY)]
    return [_part_uri(outputs, name) for name in whole]


def _part_uri(outputs: str, name: str) -> str:
    return files.join(outputs, PRIVATE, PARTS, name)


def _settings_uri(outputs: str) -> str:
    return files.join(outputs, PRIVATE, SETTINGS)
