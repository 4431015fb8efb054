"""Look after a patch store: verify its bytes, draw samples, remove what no kept version names."""

import json
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from storage import files
from storage.files import TEMPORARY, StoredFile, StoreError
from storage.patches.schema import pixel_columns
from storage.patches.shard_reader import read_rows, shard_is_whole
from storage.patches.version_parts import ShardEntry
from storage.patches.versions import (
    SUFFIX,
    StoreVersion,
    open_head,
    shard_keys,
    statistics_name,
    version_numbers,
)

FOLDERS = ("versions", "shards", "sources")
"""In the order in which what they hold may be deleted."""
BESIDE_HEADS = re.compile(rf"{re.escape(TEMPORARY)}.*|\d+-(shards|rejected|stats)\b.*")
"""Names of ours in `versions` but the heads: what else lies there is not touched."""
GRACE_S = 3600.0
VERIFIED = "VERIFIED"
"""Name of the file that tells of the last verification, beside CURRENT."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What `gc` removed."""

    versions: tuple[int, ...]
    files: int
    bytes: int


def verify(store: StoreVersion) -> Iterator[tuple[ShardEntry, bool]]:
    """Yield every shard of a version with whether its bytes are what was published."""
    for shard in store.shards:
        yield shard, shard_is_whole(store.uri, shard)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came out when the bytes of a version were last compared with their SHA-256."""

    version: int
    at: str
    """ISO 8601, UTC."""
    damaged: int
    """Shards that were missing or not as published."""


def record_verification(store: StoreVersion, damaged: int) -> None:
    """Leave beside the versions that every byte of this one was compared just now.

    Raises StoreError where the store cannot be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = Verification(version=store.number, at=now, damaged=damaged)
    files.write_bytes(files.join(store.uri, VERIFIED), json.dumps(asdict(found)).encode())


def last_verification(store: StoreVersion) -> Verification | None:
    """Return the last verification of this version; None where there was none."""
    try:
        told = json.loads(files.read_bytes(files.join(store.uri, VERIFIED)))
        found = Verification(**told)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if found.version == store.number else None


def when_verified(store: StoreVersion) -> str:
    """Say when a version's bytes were last compared with their SHA-256, and what came out."""
    found = last_verification(store)
    if found is None:
        return f"not compared byte by byte since it was built, {store.created}"
    if found.damaged:
        return f"{found.damaged} of {len(store.shards)} shards were damaged at {found.at}"
    return f"every byte was as published at {found.at}"


def sample_rows(store: StoreVersion, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return random patches of a version: pixel column -> (side, side) uint8, `original` first."""
    columns = pixel_columns(store.spec)
    draw = random.Random(seed)
    rows = []
    weights = [shard.rows for shard in store.shards]
    for shard in draw.choices(store.shards, weights, k=count):
        group = draw.randrange(-(-shard.rows // store.row_group_rows))
        pixels = read_rows(store, shard, group, columns)
        row = draw.randrange(len(pixels[0]))
        rows.append({name: p[row] for name, p in zip(columns, pixels, strict=True)})
    return rows


def gc(uri: str, *, keep: int = 1, grace_s: float = GRACE_S, dry_run: bool = False) -> Removed:
    """Keep the current version and the `keep - 1` before it; remove the others and their shards.

    Files that no version at all names (a build under way or interrupted), and those of dropped
    versions whose files are damaged, go only when they are older than `grace_s` seconds. `dry_run`
    only counts. Raises StoreError where a kept version is damaged, or was made for another spec
    than the current one.
    """
    if keep < 1:
        raise ValueError(f"keep {keep}: at least the current version stays, give 1 or more")
    current = open_head(uri).number
    numbers = version_numbers(uri)
    refuse_mixed(uri)
    older = [number for number in numbers if number < current]
    dropped = tuple(older[: max(0, len(older) - keep + 1)])
    kept_names = _files_of(uri, [number for number in numbers if number not in dropped])
    named = kept_names | _files_of(uri, [n for n in dropped if _readable(uri, n)])
    gone = {*(f"{number}.json" for number in dropped), *(named - kept_names)}
    doomed = [file for folder in FOLDERS for file in _stored(uri, folder) if _name(file) in gone]
    doomed += _unnamed(uri, named, grace_s)
    if not dry_run:
        for file in sorted(doomed, key=lambda file: not _is_head(file)):
            files.delete(file.uri)
    return Removed(versions=dropped, files=len(doomed), bytes=sum(file.bytes for file in doomed))


def refuse_mixed(uri: str) -> None:
    """Raise StoreError if versions of different specs lie in one folder: a store has one spec."""
    found: dict[str, list[int]] = {}
    for number in version_numbers(uri):
        with suppress(StoreError):
            found.setdefault(open_head(uri, number).spec.to_json(), []).append(number)
    if len(found) > 1:
        told = "; ".join(f"versions {numbers} of {spec}" for spec, numbers in found.items())
        raise StoreError(
            f"{uri}: two stores were mixed in one folder: {told}. Nothing is removed. The current "
            "version stays readable; build each spec into a folder of its own, then delete this one"
        )


def orphans(uri: str, *, grace_s: float = GRACE_S) -> list[StoredFile]:
    """Return the files that no version at all names and that are older than `grace_s` seconds.

    Raises StoreError when a version file is damaged.
    """
    return _unnamed(uri, _files_of(uri, version_numbers(uri)), grace_s)


def remove_leftovers(uri: str) -> None:
    """Remove what killed builds were writing more than GRACE_S ago."""
    found = [file for folder in FOLDERS for file in _stored(uri, folder)]
    for file in _old(found, GRACE_S):
        if _is_temporary(file):
            files.delete(file.uri)


def _unnamed(uri: str, named: set[str], grace_s: float) -> list[StoredFile]:
    found = [file for file in _stored(uri, "versions") if BESIDE_HEADS.fullmatch(_name(file))]
    found += [file for folder in ("shards", "sources") for file in _stored(uri, folder)]
    return _old([file for file in found if _name(file) not in named], grace_s)


def _stored(uri: str, folder: str) -> list[StoredFile]:
    return files.list_files(files.join(uri, folder))


def _old(found: list[StoredFile], grace_s: float) -> list[StoredFile]:
    return [file for file in found if file.modified < time.time() - grace_s]


def _is_temporary(file: StoredFile) -> bool:
    return _name(file).startswith(TEMPORARY)


def _name(file: StoredFile) -> str:
    return file.uri.rpartition("/")[2]


def _is_head(file: StoredFile) -> bool:
    return bool(re.fullmatch(r"\d+\.json", _name(file)))


def _files_of(uri: str, numbers: list[int]) -> set[str]:
    """Return the names of all files that versions name, in whatever folder, but of no head."""
    names: set[str] = set()
    for number in numbers:
        head = open_head(uri, number)
        names |= {f"{key}{SUFFIX}" for key in shard_keys(uri, number)}
        names |= {listed.file for listed in head.lists.values()}
        names |= {f"{head.dataset_fingerprint}{SUFFIX}", statistics_name(number)}
    return names


def _readable(uri: str, number: int) -> bool:
    try:
        shard_keys(uri, number)
    except StoreError:
        return False
    return True
