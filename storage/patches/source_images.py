"""Which files the patches of a version were cut from, as one Parquet file beside the versions.

<store>/sources/<fingerprint>.parquet    image, sha256 of its file, or the reason why it has none

Versions of one dataset share it; the name is a digest of what it says.
"""

import hashlib
import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.files import StoreError
from storage.patches.shard_reader import open_shard
from storage.patches.shard_writer import SOURCES
from storage.patches.versions import StoreVersion, sources_uri


def record_sources(store_uri: str, hashes: Mapping[str, str], unread: Mapping[str, str]) -> str:
    """Write down what a version is made of, unless it is there; return its fingerprint.

    `hashes` are image name -> SHA-256 of its file, `unread` the reasons of those without one.
    """
    fingerprint = _fingerprint(hashes, unread)
    target = sources_uri(store_uri, fingerprint)
    if not files.exists(target):
        names = sorted({**hashes, **unread})
        columns = {
            "image": names,
            "sha256": [hashes.get(name) for name in names],
            "reason": [unread.get(name) for name in names],
        }
        sink = pa.BufferOutputStream()
        kinds = pa.schema([(column, pa.string()) for column in columns])
        pq.write_table(pa.table(columns, schema=kinds), sink, compression="zstd")
        files.write_bytes(target, sink.getvalue().to_pybytes())
    return fingerprint


def check_sources(store: StoreVersion) -> None:
    """Raise StoreError where what is written down of a version's images is damaged."""
    if files.exists(sources_uri(store.uri, store.dataset_fingerprint)):
        source_hashes(store)


def source_hashes(store: StoreVersion) -> dict[str, str]:
    """Return source image -> SHA-256 of its file, of every image that a version was cut from.

    Raises StoreError where that was recorded and is damaged.
    """
    target = sources_uri(store.uri, store.dataset_fingerprint)
    try:
        content = files.read_bytes(target)
    except FileNotFoundError:
        return _told_by_shards(store)  # a version of before there were such files
    try:
        rows = pq.read_table(pa.BufferReader(content)).to_pylist()
        hashes = {row["image"]: row["sha256"] for row in rows if row["sha256"]}
        unread = {row["image"]: row["reason"] for row in rows if not row["sha256"]}
        if _fingerprint(hashes, unread) != store.dataset_fingerprint:
            raise ValueError("it is not what its name says")
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise StoreError(
            f"{target} is damaged ({error}): delete it, and run the same `qfactory patches build`, "
            "which writes it anew"
        ) from error
    return hashes


def _fingerprint(hashes: Mapping[str, str], unread: Mapping[str, str]) -> str:
    lines = [f"{told} {name}" for name, told in sorted({**unread, **hashes}.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _told_by_shards(store: StoreVersion) -> dict[str, str]:
    found: dict[str, str] = {}
    for shard in store.shards:
        with open_shard(store, shard) as parquet:
            notes = parquet.metadata.metadata or {}
        found |= json.loads(notes[SOURCES.encode()])
    return found
