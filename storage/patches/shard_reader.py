"""Reading shards of a patch store: pixel columns without a copy, every page checked."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.files import StoreError
from storage.patches.version_parts import ShardEntry
from storage.patches.versions import StoreVersion, shard_uri


def open_shard(store: StoreVersion, shard: ShardEntry) -> pq.ParquetFile:
    """Open a shard for reading, page checksums on. Raises StoreError with the repair command."""
    fs, path = files.resolve(shard_uri(store.uri, shard.key))
    try:
        # no read-ahead of fsspec's own: from an object store come the pages asked for, and no more
        file = fs.open(path, "rb", cache_type="none")
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise damaged(store, shard, error) from error


def read_rows(
    store: StoreVersion, shard: ShardEntry, row_group: int, columns: Sequence[str]
) -> list[np.ndarray]:
    """Return pixel columns of one row group, each (rows, side, side) uint8, without a copy."""
    with open_shard(store, shard) as parquet:
        return read_open_rows(store, shard, parquet, row_group, columns)


def read_open_rows(
    store: StoreVersion,
    shard: ShardEntry,
    parquet: pq.ParquetFile,
    row_group: int,
    columns: Sequence[str],
) -> list[np.ndarray]:
    """`read_rows` on a shard that is open already. Raises StoreError for a damaged page."""
    try:
        table = parquet.read_row_group(row_group, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise damaged(store, shard, error) from error
    return [_pixels(table.column(name), store.spec.side) for name in columns]


def read_open_places(
    store: StoreVersion, shard: ShardEntry, parquet: pq.ParquetFile, row_group: int
) -> tuple[list[str], np.ndarray]:
    """Return where the rows of one row group come from: image names, and y and x, (N, 2) int32."""
    try:
        table = parquet.read_row_group(row_group, columns=["image", "y", "x"])
    except (OSError, pa.ArrowException) as error:
        raise damaged(store, shard, error) from error
    corners = [table.column(name).to_numpy() for name in ("y", "x")]
    return table.column("image").to_pylist(), np.stack(corners, axis=1)


def read_quantization_tables(store: StoreVersion) -> dict[int, np.ndarray]:
    """Return QF -> luma quantisation table, (8, 8) uint8, rows of rising vertical frequency.

    Those that the first shard does not tell are left out; all shards have the same.
    """
    with open_shard(store, store.shards[0]) as parquet:
        notes = parquet.metadata.metadata or {}
    tables = json.loads(notes.get(b"qfactory.quantization_tables", b"{}"))
    return {int(qf): np.array(table, np.uint8).reshape(8, 8) for qf, table in tables.items()}


def locate_rows(store: StoreVersion, rows: Iterable[int]) -> dict[str, list[int]]:
    """Return shard key -> rows within that shard, of rows that are counted over the store."""
    ends = np.cumsum([shard.rows for shard in store.shards])
    found: dict[str, list[int]] = {}
    for row in sorted(int(row) for row in rows):
        at = int(np.searchsorted(ends, row, side="right"))
        shard = store.shards[at]
        found.setdefault(shard.key, []).append(row - int(ends[at]) + shard.rows)
    return found


def damaged(store: StoreVersion, shard: ShardEntry, reason: object) -> StoreError:
    """Return the error for a shard that cannot be read, with the command that repairs it."""
    return StoreError(
        f"{shard_uri(store.uri, shard.key)} is missing or damaged ({reason}). "
        f"Repair: {store.repair_command}"
    )


def shard_is_whole(store_uri: str, shard: ShardEntry) -> bool:
    """Read a shard's bytes and compare them with the recorded SHA-256."""
    try:
        return files.sha256_of(shard_uri(store_uri, shard.key)) == shard.sha256
    except FileNotFoundError:
        return False


def _pixels(column: pa.ChunkedArray, side: int) -> np.ndarray:
    chunk = column.combine_chunks()
    chunk = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
    data = chunk.buffers()[1]
    flat = np.frombuffer(data, np.uint8, count=len(chunk) * side * side, offset=0)
    return flat.reshape(len(chunk), side, side)
