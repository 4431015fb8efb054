"""Commands that look into patch stores: no Prefect, no Ray."""

import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote

from rich.markup import escape

from flows.console import notes, out, print_json, show_rows, shown
from flows.reporting.store_readers import PATHS, reading_code
from flows.settings import settings
from pipeline.drawing.pictures import contact_sheet
from storage import files
from storage.files import StoreError
from storage.patches import upkeep
from storage.patches.schema import pixel_columns
from storage.patches.source_images import check_sources
from storage.patches.version_parts import VersionHead
from storage.patches.versions import (
    StoreVersion,
    open_head,
    open_store,
    shard_uri,
    version_numbers,
)

SHOWN_VERSIONS = 8


def list_stores(root: str | None = None, *, json: bool = False) -> None:
    """List the stores below a folder.

    Args:
        root: folder or URI of stores (default: QFACTORY_STORES)
        json: print one JSON array of rows and nothing else
    """
    place = root or settings().stores_root
    if root is not None and not files.exists(root):
        raise ValueError(f"--root {root}: there is no such folder")
    rows = []
    names = [name for name in files.list_names(place) if not name.startswith(".")]
    for name in names:
        try:
            version = open_head(files.join(place, name))
        except StoreError as error:
            notes.print(f"[yellow]{escape(str(error))}[/]")
            continue
        rows.append(
            {
                "store": name,
                "version": version.number,
                "dataset": version.dataset,
                "patches": version.rows,
                "MB": round(version.bytes / 1e6, 1),
                "QFs": " ".join(map(str, version.spec.qfs)),
                "made": version.created[:16],
            }
        )
    show_rows(rows, f"stores below {place}", json=json, spare=("made", "QFs", "dataset"))


def inspect(
    store: str, *, version: int | None = None, pairs: int = 8, seed: int = 0, json: bool = False
) -> None:
    """Show what a store holds and how to read it, and save a picture of random patches.

    Args:
        store: name, path or URI of the store
        version: number of the version (default: the current one)
        pairs: how many patches the contact sheet shows, each beside its JPEGs
        seed: decides which
        json: print one JSON object and nothing else
    """
    found = _opened(store, version)
    sheet = settings().reports / f"patches-{Path(found.uri).name}-{found.number}.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    samples = upkeep.sample_rows(found, pairs, seed)
    contact_sheet(samples, sheet, title=f"{found.dataset}: random patches of {found.name}")
    facts = {**_facts(found), "contact sheet": str(sheet)}
    if json:
        rejected = [asdict(reject) for reject in found.rejected]
        history = [_told(head) for head in _history(found.uri)]
        print_json({**facts, "history": history, "files": _paths(found), "rejected": rejected})
        return
    for name, value in facts.items():
        out.print(f"[bold]{name:16}[/] {escape(value)}")
    out.print(f"[bold]{'rejected':16}[/] {len(found.rejected)}")
    for reject in found.rejected:
        out.print(f"  {reject.image}: {reject.reason}", markup=False)
    _show_history(found)
    _show_reading(store, found)


def list_files(store: str, *, version: int | None = None) -> None:
    """Print the path or URI of every Parquet file of a version, a line each.

    Other files in `shards/` belong to other versions, or to none.

    Args:
        store: name, path or URI of the store
        version: number of the version (default: the current one)
    """
    for path in _paths(_opened(store, version)):
        out.print(path, markup=False)


def _opened(store: str, version: int | None) -> StoreVersion:
    return open_store(settings().store_uri(store), version)


def _paths(version: StoreVersion) -> list[str]:
    return [shard_uri(version.uri, shard.key) for shard in version.shards]


def _facts(found: StoreVersion) -> dict[str, str]:
    spec = found.spec
    return {
        "store": found.uri,
        "version": f"{found.number} of {version_numbers(found.uri)}, made {found.created}",
        "verified": upkeep.when_verified(found),
        "dataset": f"{found.dataset}, fingerprint {found.dataset_fingerprint[:16]}",
        "patches": f"{found.rows:,} of {spec.side}x{spec.side}, stride {spec.stride}",
        "quality factors": " ".join(map(str, spec.qfs)) or "originals alone",
        "degradation": spec.degradation,
        "luma": spec.luma,
        "images": f"{found.images:,}",
        "shards": f"{len(found.shards):,}, {found.bytes / 1e6:.1f} MB, row groups of "
        f"{found.row_group_rows:,}",
        "made with": ", ".join(f"{name} {number}" for name, number in found.packages.items()),
    }


def _history(uri: str) -> list[VersionHead]:
    """Return the heads of all versions, the newest first; one that is damaged is noted."""
    heads = []
    for number in reversed(version_numbers(uri)):
        try:
            heads.append(open_head(uri, number))
        except StoreError as error:
            notes.print(f"[yellow]{escape(str(error))}[/]")
    return heads


def _told(head: VersionHead) -> dict[str, object]:
    counts = {name: getattr(head, name) for name in ("rows", "images", "rejected", "shards")}
    return {"version": head.number, "made": head.created, **counts, "bytes": head.bytes}


def _show_history(found: StoreVersion) -> None:
    heads = _history(found.uri)
    if len(heads) < 2:
        return
    out.print("\n[bold]history[/], `qfactory patches diff` tells what changed")
    for head in heads[:SHOWN_VERSIONS]:
        counts = f"{head.rows:,} patches of {head.images:,} images"
        out.print(f"  {head.number}, made {head.created}: {counts}")
    if len(heads) > SHOWN_VERSIONS:
        out.print(f"  and {len(heads) - SHOWN_VERSIONS} before them: --json")


def _show_reading(store: str, found: StoreVersion) -> None:
    side = found.spec.side
    number = "" if found.number == version_numbers(found.uri)[-1] else f" --version {found.number}"
    out.print(f"\n[bold]to read a column[/] as (N, {side}, {side}) uint8: what this version names")
    out.print(f"  qfactory patches files {quote(store)}{number} > files.txt", markup=False)
    out.print(f"  {PATHS}", markup=False)
    for library, code in reading_code(pixel_columns(found.spec)[-1], side).items():
        out.print(f"\n  # {library}\n  " + code.replace("\n", "\n  "), markup=False)


def verify(store: str, *, version: int | None = None) -> None:
    """Read a store's shards and compare them with what was published; exit code 1 if one differs.

    Its head and its lists are compared first: where they are damaged, or versions of two stores
    are mixed, one line says so, with exit code 2.

    Args:
        store: name, path or URI of the store
        version: number of the version (default: the current one)
    """
    found = _opened(store, version)
    check_sources(found)
    upkeep.refuse_mixed(found.uri)
    damaged = []
    with shown("verify") as update:
        for done, (shard, whole) in enumerate(upkeep.verify(found), start=1):
            update(done, len(found.shards))
            if not whole:
                damaged.append(shard)
    try:
        upkeep.record_verification(found, len(damaged))
    except StoreError as error:
        notes.print(f"not recorded in the store: {error}", markup=False)
    if not damaged:
        out.print(f"{found.name}: all {len(found.shards)} shards are whole", markup=False)
        return
    for shard in damaged:
        out.print(f"damaged or missing: {shard.key} ({shard.rows:,} patches)")
    out.print(f"repair: {found.repair_command}", markup=False)
    sys.exit(1)


def gc(store: str, *, keep: int = 1, grace: float = 3600.0, dry_run: bool = False) -> None:
    """Remove old versions, and shards that no kept version names.

    Args:
        store: name, path or URI of the store
        keep: how many versions stay, the current one among them
        grace: files of no version at all (a build under way) stay for so many seconds
        dry_run: only say what would go
    """
    removed = upkeep.gc(settings().store_uri(store), keep=keep, grace_s=grace, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    numbers = ", ".join(map(str, removed.versions))
    what = f"of versions {numbers} and of no version" if numbers else "of no version"
    out.print(f"{verb} {removed.files} files {what}, {removed.bytes / 1e6:.1f} MB")
