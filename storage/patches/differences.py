"""What changed between two versions of patch stores: images, patches, settings, packages."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from storage.files import StoreError
from storage.patches.shard_reader import damaged, open_shard
from storage.patches.source_images import source_hashes
from storage.patches.version_parts import ShardEntry
from storage.patches.versions import StoreVersion, open_store, version_numbers

Change = tuple[object, object]
"""Before and after; None where there was, or is, none."""


@dataclass(frozen=True, kw_only=True)
class StoreDifference:
    """What is in the newer of two versions, and what only in the older."""

    older: str
    newer: str
    images_added: tuple[str, ...]
    """By name, as are those below; rejected ones are images too."""
    images_removed: tuple[str, ...]
    images_changed: tuple[str, ...]
    """Their files have other bytes."""
    rows_added: int
    """Patches of the images added."""
    rows_removed: int
    rows_changed: Change
    """Patches of the images changed, before and after."""
    rows: Change
    """Of all images."""
    rejected_added: tuple[str, ...]
    """Names that are rejected in the newer version alone."""
    rejected_removed: tuple[str, ...]
    shards: dict[str, int]
    """`kept`, `added` and `removed`. Where all images are the same and shards are not, spec,
    packages or the size of shards differ."""
    settings: dict[str, Change]
    """Of spec, dataset and shards: those that differ."""
    packages: dict[str, Change]
    """Versions of packages that differ."""

    @property
    def is_empty(self) -> bool:
        """Whether both hold the same patches of the same images, made alike."""
        images = (self.images_added, self.images_removed, self.images_changed)
        names = (*images, self.rejected_added, self.rejected_removed)
        changed = self.shards["added"] or self.shards["removed"]
        return not (any(names) or changed or self.settings or self.packages)


def two_versions(
    uri: str, first: int | None = None, second: int | None = None
) -> tuple[StoreVersion, StoreVersion]:
    """Open two versions of a store: the two newest, or `first` and the current one, or both.

    Raises StoreError if there are not two.
    """
    current = open_store(uri) if second is None else open_store(uri, second)
    if first is None:
        before = [number for number in version_numbers(current.uri) if number < current.number]
        if not before:
            raise StoreError(
                f"{current.uri} has one version, {current.number}, and nothing to compare it with: "
                "a build that finds changed images publishes another, `qfactory patches gc` "
                "removes earlier ones"
            )
        first = before[-1]
    return open_store(current.uri, first), current


def difference(older: StoreVersion, newer: StoreVersion) -> StoreDifference:
    """Compare two versions. Of shards, those that one of them alone has are opened."""
    before, after = source_hashes(older), source_hashes(newer)
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    old_keys, new_keys = ({shard.key for shard in v.shards} for v in (older, newer))
    old_rows = _rows_by_image(older, old_keys - new_keys)
    new_rows = _rows_by_image(newer, new_keys - old_keys)
    added, removed = after.keys() - before.keys(), before.keys() - after.keys()
    old_rejects, new_rejects = ({r.image for r in v.rejected} for v in (older, newer))
    return StoreDifference(
        older=older.name,
        newer=newer.name,
        images_added=tuple(sorted(added)),
        images_removed=tuple(sorted(removed)),
        images_changed=tuple(sorted(changed)),
        rows_added=_sum(new_rows, added),
        rows_removed=_sum(old_rows, removed),
        rows_changed=(_sum(old_rows, changed), _sum(new_rows, changed)),
        rows=(older.rows, newer.rows),
        rejected_added=tuple(sorted(new_rejects - old_rejects)),
        rejected_removed=tuple(sorted(old_rejects - new_rejects)),
        shards={
            "kept": len(old_keys & new_keys),
            "added": len(new_keys - old_keys),
            "removed": len(old_keys - new_keys),
        },
        settings=_changes(_settings(older), _settings(newer)),
        packages=_changes(older.packages, newer.packages),
    )


def _rows_by_image(version: StoreVersion, keys: Collection[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for shard in version.shards:
        if shard.key in keys:
            found.update(_images_of(version, shard))
    return found


def _images_of(version: StoreVersion, shard: ShardEntry) -> dict[str, int]:
    """Return image -> patches of one shard, out of its column `image` alone."""
    try:
        with open_shard(version, shard) as parquet:
            counts = parquet.read(columns=["image"]).column(0).value_counts()
    except (OSError, ValueError) as error:
        raise damaged(version, shard, error) from error
    return {one["values"]: one["counts"] for one in counts.to_pylist()}


def _sum(rows: Counter[str], images: Collection[str]) -> int:
    return sum(rows[image] for image in images)


def _settings(version: StoreVersion) -> dict[str, object]:
    spec = {name: _plain(value) for name, value in asdict(version.spec).items()}
    return {
        **spec,
        "dataset": version.dataset,
        "row_group_rows": version.row_group_rows,
        "shard_bytes": version.shard_bytes,
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _changes(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, Change]:
    names = sorted(before.keys() | after.keys())
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
