"""Patch stores: immutable content-addressed Parquet shards under versions published atomically.

<store>/shards/<key>.parquet    never changed; the key names the spec and the source images
<store>/sources/...parquet      the images of a dataset; see source_images
<store>/versions/<n>.json       which shards, from which dataset, what was rejected and why
<store>/CURRENT                 the number of the version that readers open
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from shlex import quote

from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec

COLUMN_CHUNK_BYTES = 1 << 20
SUFFIX = ".parquet"


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A source image that gave no patches."""

    image: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What a version file says of one shard."""

    key: str
    rows: int
    bytes: int
    sha256: str
    """Of the whole Parquet file."""
    images: int
    """Source images that gave patches."""
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StoreVersion:
    """One published, immutable state of a store."""

    uri: str
    number: int
    spec: PatchSpec
    dataset: str
    """The dataset reference it was built from, such as `bsds500:train+test`."""
    dataset_fingerprint: str
    """SHA-256 over the names and contents of all source images."""
    row_group_rows: int
    """Rows of every row group but the last of a shard."""
    shards: tuple[ShardEntry, ...]
    rejected: tuple[Rejected, ...]
    packages: Mapping[str, str]
    """Versions of the packages that decided the pixels."""
    created: str
    """ISO 8601, UTC."""
    shard_bytes: int | None = None
    """About how many bytes of pixels a shard has; None in stores of before, of 8 images a shard."""

    @cached_property
    def rows(self) -> int:
        """Patches in all shards."""
        return sum(shard.rows for shard in self.shards)

    @cached_property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @cached_property
    def images(self) -> int:
        """Source images that gave patches."""
        return sum(shard.images for shard in self.shards)

    @cached_property
    def content(self) -> str:
        """SHA-256 over the shards' own: equal for equal patches in equal order."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    @property
    def name(self) -> str:
        """What identifies the version elsewhere: the store's URI and its number."""
        return f"{self.uri}@{self.number}"

    @property
    def repair_command(self) -> str:
        """The command that writes missing or damaged shards again."""
        return f"{build_command(self.uri, self.spec, self.dataset)} --repair"

    def same_content(self, other: "StoreVersion") -> bool:
        """Tell whether both name the same shards and rejects."""
        ours, theirs = (
            replace(version, number=0, created="", packages={}, uri="") for version in (self, other)
        )
        return ours == theirs


def build_command(uri: str, spec: PatchSpec, dataset: str) -> str:
    """Return the command line that builds a store of this spec."""
    qfs = f"--qf {' '.join(map(str, spec.qfs))} " if spec.qfs else ""
    return (
        f"qfactory patches build --dataset {quote(dataset)} --side {spec.side} "
        f"--stride {spec.stride} {qfs}--degradation {spec.degradation} --store {quote(uri)}"
    )


def row_group_rows(spec: PatchSpec) -> int:
    """Return how many rows a row group has: a power of two, about 1 MiB a pixel column."""
    return 1 << max(4, (COLUMN_CHUNK_BYTES // spec.side**2).bit_length() - 1)


def shard_uri(store_uri: str, key: str) -> str:
    """Return where a shard lies."""
    return files.join(store_uri, "shards", f"{key}{SUFFIX}")


def sources_uri(store_uri: str, fingerprint: str) -> str:
    """Return where it is written which images a version was cut from; see source_images."""
    return files.join(store_uri, "sources", f"{fingerprint}{SUFFIX}")


def sizes_of_shards(store_uri: str) -> dict[str, int]:
    """Return the key and the bytes of each shard that is there, by one listing."""
    found = files.list_files(files.join(store_uri, "shards"))
    return {
        file.uri.rpartition("/")[2].removesuffix(SUFFIX): file.bytes
        for file in found
        if file.uri.endswith(SUFFIX)
    }


def version_numbers(uri: str) -> list[int]:
    """Return the numbers of all versions that are there, ascending."""
    names = files.list_names(files.join(uri, "versions"))
    return sorted(int(name[:-5]) for name in names if name[:-5].isdigit() and name[-5:] == ".json")


def open_store(uri: str, version: int | None = None, spec: PatchSpec | None = None) -> StoreVersion:
    """Return a version of a store, the current one unless a number is given.

    Raises StoreError when the store is missing, unfinished, damaged, or not made for `spec`.
    """
    uri = uri.rstrip("/")
    if version is None:
        version = _current_number(uri)
    elif version not in (known := version_numbers(uri)):
        raise StoreError(f"{uri}: no version {version}; there are {known}")
    found = _read_version(uri, version)
    if spec is not None and spec != found.spec:
        raise StoreError(
            f"{uri} was made for another spec: it holds {found.spec.to_json()}, asked for is "
            f"{spec.to_json()}. Build a store of its own: "
            + build_command(f"{uri}-{spec.fingerprint[:8]}", spec, found.dataset)
        )
    return found


def publish(version: StoreVersion) -> StoreVersion:
    """Make a version current, after all its shards; return it with its number.

    Two builds that publish at once both succeed, with different numbers. Raises StoreError when
    a shard is not there in full.
    """
    sizes = sizes_of_shards(version.uri)
    for shard in version.shards:
        if sizes.get(shard.key) != shard.bytes:
            raise StoreError(
                f"{version.uri}: shard {shard.key} is not whole, so nothing was published; "
                "run the same build again"
            )
    while True:
        number = max(version_numbers(version.uri), default=0) + 1
        numbered = replace(version, number=number)
        target = files.join(version.uri, "versions", f"{number}.json")
        if files.create_bytes(target, _to_json(numbered).encode()):
            _make_current(version.uri)
            return numbered


def _make_current(uri: str) -> None:
    """Point CURRENT at the newest version, also when another build publishes at this moment."""
    while True:
        newest = version_numbers(uri)[-1]
        files.write_bytes(files.join(uri, "CURRENT"), f"{newest}\n".encode())
        if version_numbers(uri)[-1] == newest:
            return


def _current_number(uri: str) -> int:
    try:
        return int(files.read_bytes(files.join(uri, "CURRENT")))
    except (FileNotFoundError, NotADirectoryError):
        if files.list_names(files.join(uri, "shards")):
            raise StoreError(
                f"{uri}: its build is unfinished; run the same `qfactory patches build` again, "
                "finished shards are kept"
            ) from None
        raise StoreError(
            f"{uri}: there is no patch store; make one with `qfactory patches build --store {uri}`"
        ) from None
    except ValueError as error:
        raise StoreError(
            f"{uri}/CURRENT is damaged ({error}); write one of {version_numbers(uri)} into it"
        ) from None


def _read_version(uri: str, number: int) -> StoreVersion:
    target = files.join(uri, "versions", f"{number}.json")
    try:
        values = json.loads(files.read_bytes(target))
        digest = values.pop("digest")
        if digest != _digest(values):
            raise ValueError("its digest does not match")
        spec = PatchSpec.from_json(json.dumps(values.pop("spec")))
        shards = tuple(
            ShardEntry(**{**shard, "rejected": _rejects(shard["rejected"])})
            for shard in values.pop("shards")
        )
        rejected = _rejects(values.pop("rejected"))
        return StoreVersion(uri=uri, spec=spec, shards=shards, rejected=rejected, **values)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{target} is missing or damaged ({error}). Run the same `qfactory patches build` "
            f"again, or read another version with --version, of {version_numbers(uri)}"
        ) from error


def _rejects(values: Sequence[Mapping[str, str]]) -> tuple[Rejected, ...]:
    return tuple(Rejected(**value) for value in values)


def _to_json(version: StoreVersion) -> str:
    values = asdict(version)
    del values["uri"]
    if version.shard_bytes is None:
        del values["shard_bytes"]  # so that what wrote such stores still reads them
    values["spec"] = json.loads(version.spec.to_json())
    return json.dumps({**values, "digest": _digest(values)}, indent=1, sort_keys=True)


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
