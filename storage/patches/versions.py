"""Patch stores: immutable content-addressed Parquet shards under versions published atomically.

<store>/shards/<key>.parquet    never changed; the key names the spec and the source images
<store>/sources/...parquet      the images of a dataset; see source_images
<store>/versions/               which shards, from which dataset, what was rejected; see
                                version_files
<store>/CURRENT                 the number of the version that readers open
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from shlex import quote
from types import MappingProxyType

from storage import files
from storage.files import StoreError
from storage.patches import version_files
from storage.patches.schema import PatchSpec
from storage.patches.version_files import SUFFIX, content_of, head_uri
from storage.patches.version_parts import Lists, Rejected, ShardEntry, VersionHead

COLUMN_CHUNK_BYTES = 1 << 20
NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})


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
        return content_of(shard.sha256 for shard in self.shards)

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


def statistics_name(number: int) -> str:
    """Return the name of the file beside a version's head that keeps what was measured of it."""
    return f"{number}-stats.json"


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


def open_head(uri: str, version: int | None = None) -> VersionHead:
    """Return a version without its list of shards, which is not read; else as `open_store`."""
    uri = uri.rstrip("/")
    number = _current_number(uri) if version is None else version
    try:
        return version_files.read_head(uri, number)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise _damaged(uri, number, error) from error


def shard_keys(uri: str, version: int) -> list[str]:
    """Return the keys of a version's shards. Raises StoreError where it is damaged."""
    try:
        return version_files.shard_keys(uri, version)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise _damaged(uri, version, error) from error


def publish(version: StoreVersion, sources: Mapping[str, Sequence[str]] = NOTHING) -> StoreVersion:
    """Make a version current, after all its shards; return it with its number.

    First its lists are written, then the head that names them, then CURRENT. Two builds that
    publish at once both succeed, with different numbers. `sources` are shard key -> names of the
    images that it was cut from. Raises StoreError when a shard is not there in full.
    """
    sizes = sizes_of_shards(version.uri)
    for shard in version.shards:
        if sizes.get(shard.key) != shard.bytes:
            raise StoreError(
                f"{version.uri}: shard {shard.key} is not whole, so nothing was published; "
                "run the same build again"
            )
    lists = Lists(shards=version.shards, rejected=version.rejected)
    while True:
        number = max(version_numbers(version.uri), default=0) + 1
        written = version_files.write_lists(version.uri, number, lists, sources)
        head = VersionHead(
            number=number,
            spec=version.spec,
            dataset=version.dataset,
            dataset_fingerprint=version.dataset_fingerprint,
            row_group_rows=version.row_group_rows,
            shard_bytes=version.shard_bytes,
            packages=version.packages,
            created=version.created,
            shards=len(version.shards),
            rows=version.rows,
            bytes=version.bytes,
            images=version.images,
            rejected=len(version.rejected),
            content=version.content,
            lists=written,
        )
        if version_files.create_head(version.uri, head):
            _make_current(version.uri)
            return replace(version, number=number)


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
            f"{uri}: there is no patch store; make one with `qfactory patches build --store "
            f"{quote(uri)}`"
        ) from None
    except ValueError as error:
        raise StoreError(
            f"{uri}/CURRENT is damaged ({error}); write one of {version_numbers(uri)} into it"
        ) from None


def _read_version(uri: str, number: int) -> StoreVersion:
    try:
        head, lists = version_files.read_version(uri, number)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise _damaged(uri, number, error) from error
    return StoreVersion(
        uri=uri,
        number=head.number,
        spec=head.spec,
        dataset=head.dataset,
        dataset_fingerprint=head.dataset_fingerprint,
        row_group_rows=head.row_group_rows,
        shard_bytes=head.shard_bytes,
        shards=lists.shards,
        rejected=lists.rejected,
        packages=head.packages,
        created=head.created,
    )


def _damaged(uri: str, number: int, error: Exception) -> StoreError:
    others = [other for other in version_numbers(uri) if other != number]
    instead = f", or read another version with --version, of {others}" if others else ""
    return StoreError(
        f"{head_uri(uri, number)} is missing or damaged ({error}). Run the same `qfactory patches "
        f"build` again{instead}"
    )
