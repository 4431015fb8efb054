"""Write one shard: patches stream in, equal row groups stream out, the file appears whole."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.patches.schema import FORMAT_VERSION, PatchSpec, arrow_schema, pixel_columns
from storage.patches.version_parts import Rejected, ShardEntry
from storage.patches.versions import row_group_rows, shard_uri

REJECTED = "qfactory.rejected"
IMAGES = "qfactory.images"
SOURCES = "qfactory.sources"


class ShardWriter:
    """Collects the patches of one shard; `open_shard_writer` makes and publishes it."""

    def __init__(self, sink: IO[bytes], spec: PatchSpec, tables: Mapping[int, list[int]]) -> None:
        self._spec = spec
        self._rows_a_group = row_group_rows(spec)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self.rows = 0
        self._images: set[str] = set()
        self._rejected: list[Rejected] = []
        self._sources: dict[str, str] = {}
        self._sink = _HashingSink(sink)
        self._schema = arrow_schema(spec, _metadata(spec, tables))
        self._parquet = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            self._schema,
            compression="lz4",
            use_dictionary=["image"],  # pyright: ignore[reportArgumentType]
            write_statistics=["image", "y", "x"],  # pyright: ignore[reportArgumentType]
            write_page_checksum=True,
        )

    def add_source(self, image: str, sha256: str) -> None:
        """Record the SHA-256 of a source image's file."""
        self._sources[image] = sha256

    def add(
        self, image: str, y: np.ndarray, x: np.ndarray, pixels: Mapping[str, np.ndarray]
    ) -> None:
        """Append patches: y, x (N,) int32; each pixel column (N, side, side) uint8."""
        columns = [pa.array([image] * len(y), pa.string()), pa.array(y), pa.array(x)]
        kind = pa.binary(self._spec.side**2)
        for name in pixel_columns(self._spec):
            data = pa.py_buffer(np.ascontiguousarray(pixels[name]))
            columns.append(pa.FixedSizeBinaryArray.from_buffers(kind, len(y), [None, data]))
        self._pending.append(pa.record_batch(columns, schema=self._schema))
        self._pending_rows += len(y)
        self.rows += len(y)
        self._images.add(image)
        if self._pending_rows >= self._rows_a_group:
            self._write(keep=self._pending_rows % self._rows_a_group)

    def reject(self, rejected: Rejected) -> None:
        """Record an image that gives no patches."""
        self._rejected.append(rejected)

    def finish(self, key: str) -> ShardEntry:
        """Write what is pending and the footer; return the shard's entry."""
        self._write(keep=0)
        rejects = json.dumps([asdict(rejected) for rejected in self._rejected])
        self._parquet.add_key_value_metadata(
            {
                REJECTED: rejects,
                IMAGES: str(len(self._images)),
                SOURCES: json.dumps(self._sources, sort_keys=True),
            }
        )
        self._parquet.close()
        return ShardEntry(
            key=key,
            rows=self.rows,
            bytes=self._sink.size,
            sha256=self._sink.digest.hexdigest(),
            images=len(self._images),
            rejected=tuple(self._rejected),
        )

    def abandon(self) -> None:
        """Let go of the file: what Parquet still wants to write goes nowhere."""
        self._sink.abandoned = True
        self._parquet.close()

    def _write(self, keep: int) -> None:
        ready = self._pending_rows - keep
        if ready:
            table = pa.Table.from_batches(self._pending, self._schema)
            self._parquet.write_table(table.slice(0, ready), row_group_size=self._rows_a_group)
            rest = table.slice(ready)
            self._pending, self._pending_rows = rest.to_batches(), keep


@contextmanager
def open_shard_writer(
    store_uri: str, key: str, spec: PatchSpec, tables: Mapping[int, list[int]]
) -> Iterator[ShardWriter]:
    """Give a writer whose shard appears only if the block ends well and called `finish`.

    `tables` maps each QF to its 64 quantisation steps, rows from the top.
    """
    with files.open_atomic(shard_uri(store_uri, key)) as sink:
        writer = ShardWriter(sink, spec, tables)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise


def describe_shard(store_uri: str, key: str) -> ShardEntry | None:
    """Read a shard's entry back from the whole file; None if it is missing or damaged."""
    uri = shard_uri(store_uri, key)
    fs, path = files.resolve(uri)
    try:
        sha256 = files.sha256_of(uri)
        with (
            fs.open(path, "rb") as file,
            pq.ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            for row_group in range(parquet.num_row_groups):
                parquet.read_row_group(row_group)
            footer = parquet.metadata
        notes = footer.metadata
        rejected = json.loads(notes[REJECTED.encode()])
        images = int(notes[IMAGES.encode()])
    except (FileNotFoundError, OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return ShardEntry(
        key=key,
        rows=footer.num_rows,
        bytes=files.size_of(uri) or 0,
        sha256=sha256,
        images=images,
        rejected=tuple(Rejected(**value) for value in rejected),
    )


def _metadata(spec: PatchSpec, tables: Mapping[int, list[int]]) -> dict[str, str]:
    return {
        "qfactory.format": str(FORMAT_VERSION),
        "qfactory.spec": spec.to_json(),
        "qfactory.side": str(spec.side),
        "qfactory.qfs": json.dumps(list(spec.qfs)),
        "qfactory.luma": spec.luma,
        "qfactory.quantization_tables": json.dumps(
            {str(qf): list(table) for qf, table in tables.items()}
        ),
    }


class _HashingSink:
    """Passes bytes on to a file, and counts and hashes them on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.closed = False
        self.abandoned = False

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        if not self.abandoned:
            self._file.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True
