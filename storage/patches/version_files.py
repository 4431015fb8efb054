"""How a version is written down: a small JSON head, and Parquet files that it names by digest.

<store>/versions/<n>.json                         the head: spec, totals, packages, its files
<store>/versions/<n>-shards-<digest>.parquet      key, rows, bytes, sha256, images, sources
<store>/versions/<n>-rejected-<digest>.parquet    image, reason, shard; none if none was rejected

A history is told by the heads alone. A version of before (format 1) is one JSON with everything;
it is read as well.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage import files
from storage.patches.schema import PatchSpec
from storage.patches.version_parts import (
    ListFile,
    Lists,
    NewerStoreError,
    Rejected,
    ShardEntry,
    VersionHead,
)

SUFFIX = ".parquet"
HEAD_FORMAT = 2
SHARDS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("sources", pa.list_(pa.string())),  # null where it is not known
    ]
)
REJECTED = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("shard", pa.string()),  # null of what was rejected before it was cut
    ]
)


def head_uri(store_uri: str, number: int) -> str:
    """Return where the head of a version lies."""
    return files.join(store_uri, "versions", f"{number}.json")


def read_head(store_uri: str, number: int) -> VersionHead:
    """Read a version's head. ValueError, KeyError, TypeError or FileNotFoundError: it is damaged.

    Raises NewerStoreError where a later version of this program wrote it.
    """
    return _head(_values(store_uri, number))


def read_version(store_uri: str, number: int) -> tuple[VersionHead, Lists]:
    """Read a version's head and lists, each compared with its digest; errors as of `read_head`."""
    values = _values(store_uri, number)
    head = _head(values)
    if "format" not in values:
        return head, _lists_of_format_1(values)
    before, within = _read_rejected(store_uri, head)
    columns = _read_columns(store_uri, head, "shards", SHARDS.names[:-1])
    shards = tuple(
        ShardEntry(
            key=key, rows=rows, bytes=size, sha256=sha, images=n, rejected=tuple(within[key])
        )
        if key in within
        else ShardEntry(key=key, rows=rows, bytes=size, sha256=sha, images=n)
        for key, rows, size, sha, n in zip(*columns, strict=True)
    )
    return head, Lists(shards=shards, rejected=before)


def shard_keys(store_uri: str, number: int) -> list[str]:
    """Return the keys of a version's shards, and nothing else of it; errors as of `read_head`."""
    values = _values(store_uri, number)
    if "format" not in values:
        return [shard["key"] for shard in values["shards"]]
    return _read_columns(store_uri, _head(values), "shards", ["key"])[0]


def write_lists(
    store_uri: str, number: int, lists: Lists, sources: Mapping[str, Sequence[str]]
) -> dict[str, ListFile]:
    """Write what the head of a version is to name.

    `sources` are shard key -> names of the images that it was cut from, as far as they are known.
    """
    told = ([getattr(shard, name) for shard in lists.shards] for name in SHARDS.names[:-1])
    named = [sources.get(shard.key) for shard in lists.shards]
    found = {"shards": _write(store_uri, f"{number}-shards", [*told, named], SHARDS)}
    if lists.rejected:
        cut = {r.image: shard.key for shard in lists.shards for r in shard.rejected}
        columns = (
            [r.image for r in lists.rejected],
            [r.reason for r in lists.rejected],
            [cut.get(r.image) for r in lists.rejected],
        )
        found["rejected"] = _write(store_uri, f"{number}-rejected", columns, REJECTED)
    return found


def create_head(store_uri: str, head: VersionHead) -> bool:
    """Write a head unless one of its number is there; tell whether it was written."""
    values = {
        **{name: value for name, value in vars(head).items() if name not in ("spec", "lists")},
        "format": HEAD_FORMAT,
        "written_by": _this_program(),
        "packages": dict(head.packages),
        "spec": json.loads(head.spec.to_json()),
        "lists": {name: asdict(listed) for name, listed in head.lists.items()},
    }
    text = json.dumps({**values, "digest": _digest(values)}, indent=1, sort_keys=True)
    return files.create_bytes(head_uri(store_uri, head.number), text.encode())


def content_of(shards: Iterable[str]) -> str:
    """Return the SHA-256 over those of shards: equal for equal patches in equal order."""
    return hashlib.sha256("".join(shards).encode()).hexdigest()


def _values(store_uri: str, number: int) -> dict[str, Any]:
    """Return what a head says, once it is what was written: of every format, later ones too."""
    values = json.loads(files.read_bytes(head_uri(store_uri, number)))
    if values.pop("digest") != _digest(values):
        raise ValueError("its digest does not match")
    if (found := values.get("format", 1)) > HEAD_FORMAT:
        raise NewerStoreError(
            f"{store_uri}: version {number} has format {found}, written by "
            f"{values.get('written_by', 'a later qfactory')}; this is {_this_program()}, which "
            f"reads formats 1 to {HEAD_FORMAT}. Install the version that wrote it, or a later one"
        )
    return values


def _head(values: Mapping[str, Any]) -> VersionHead:
    spec = PatchSpec.from_json(json.dumps(values["spec"]))
    if "format" in values:
        told = {n: v for n, v in values.items() if n not in ("format", "written_by")}
        lists = {name: ListFile(**listed) for name, listed in values["lists"].items()}
        return VersionHead(**{**told, "spec": spec, "lists": lists})
    shards, same = values["shards"], ("number", "dataset", "dataset_fingerprint", "row_group_rows")
    return VersionHead(
        **{name: values[name] for name in (*same, "packages", "created")},
        spec=spec,
        shard_bytes=values.get("shard_bytes"),
        shards=len(shards),
        rows=sum(shard["rows"] for shard in shards),
        bytes=sum(shard["bytes"] for shard in shards),
        images=sum(shard["images"] for shard in shards),
        rejected=len(values["rejected"]),
        content=content_of(shard["sha256"] for shard in shards),
        lists={},
    )


def _lists_of_format_1(values: Mapping[str, Any]) -> Lists:
    def rejects(told: Sequence[Mapping[str, str]]) -> tuple[Rejected, ...]:
        return tuple(Rejected(**one) for one in told)

    shards = (
        ShardEntry(**{**shard, "rejected": rejects(shard["rejected"])})
        for shard in values["shards"]
    )
    return Lists(shards=tuple(shards), rejected=rejects(values["rejected"]))


def _read_rejected(
    store_uri: str, head: VersionHead
) -> tuple[tuple[Rejected, ...], dict[str, list[Rejected]]]:
    """Return all rejects, and those of each shard that has some."""
    if "rejected" not in head.lists:
        return (), {}
    images, reasons, shards = _read_columns(store_uri, head, "rejected", REJECTED.names)
    found = [Rejected(image=i, reason=r) for i, r in zip(images, reasons, strict=True)]
    within: dict[str, list[Rejected]] = {}
    for reject, shard in zip(found, shards, strict=True):
        if shard is not None:
            within.setdefault(shard, []).append(reject)
    return tuple(found), within


def _read_columns(
    store_uri: str, head: VersionHead, name: str, columns: Sequence[str]
) -> list[list[Any]]:
    listed = head.lists[name]
    content = files.read_bytes(files.join(store_uri, "versions", listed.file))
    if hashlib.sha256(content).hexdigest() != listed.sha256:
        raise ValueError(f"{listed.file} is not what it says: its digest does not match")
    table = pq.read_table(pa.BufferReader(content), columns=list(columns))
    return [table.column(column).to_pylist() for column in columns]


def _write(
    store_uri: str, name: str, columns: Sequence[Sequence[object]], schema: pa.Schema
) -> ListFile:
    arrays = [pa.array(told, field.type) for told, field in zip(columns, schema, strict=True)]
    table, sink = pa.table(arrays, schema=schema), pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    content = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(content).hexdigest()
    file = f"{name}-{sha256[:16]}{SUFFIX}"
    files.write_bytes(files.join(store_uri, "versions", file), content)
    return ListFile(file=file, sha256=sha256, bytes=len(content), rows=table.num_rows)


def _this_program() -> str:
    try:
        return f"qfactory {package_version('qfactory')}"
    except PackageNotFoundError:
        return "qfactory, not installed"


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
