"""What a version of a patch store is made of, as its files hold it; see version_files."""

from collections.abc import Mapping
from dataclasses import dataclass

from storage.files import StoreError
from storage.patches.schema import PatchSpec


class NewerStoreError(StoreError):
    """A store was written by a later version of this program, which has to read it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A source image that gave no patches."""

    image: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """What a version's list says of one shard."""

    key: str
    rows: int
    bytes: int
    sha256: str
    """Of the whole Parquet file."""
    images: int
    """Source images that gave patches."""
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ListFile:
    """One of a version's Parquet files, in the folder of its head."""

    file: str
    sha256: str
    """Of the whole file."""
    bytes: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class VersionHead:
    """A version without its list of shards."""

    number: int
    spec: PatchSpec
    dataset: str
    dataset_fingerprint: str
    row_group_rows: int
    shard_bytes: int | None
    packages: Mapping[str, str]
    created: str
    """ISO 8601, UTC."""
    shards: int
    """How many, as are those below."""
    rows: int
    bytes: int
    images: int
    rejected: int
    content: str
    """SHA-256 over the shards' own."""
    lists: Mapping[str, ListFile]
    """`shards` and `rejected`, as far as there are such files; none in format 1."""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """What a version's head leaves to its files."""

    shards: tuple[ShardEntry, ...]
    rejected: tuple[Rejected, ...]
