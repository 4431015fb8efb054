"""Commands that look into patch stores: no Prefect, no Ray."""

import sys
from pathlib import Path

from flows.console import notes, out, show_table, shown
from flows.settings import settings
from pipeline.pictures import contact_sheet
from storage import files, store_upkeep
from storage.patch_store import open_store, version_numbers
from storage.schema import StoreError


def list_stores(root: str | None = None) -> None:
    """List the stores below a folder.

    Args:
        root: folder or URI of stores (default: QFACTORY_STORES)
    """
    place = root or settings().stores_root
    rows = []
    for name in files.list_names(place):
        uri = files.join(place, name)
        try:
            version = open_store(uri)
        except StoreError as error:
            notes.print(f"[yellow]{error}[/]")
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
    show_table(rows, f"stores below {place}")


def inspect(store: str, *, version: int | None = None, pairs: int = 8, seed: int = 0) -> None:
    """Show what a store holds, and save a picture of random patches beside their JPEGs.

    Args:
        store: path or URI of the store
        version: number of the version (default: the current one)
        pairs: how many patches the contact sheet shows
        seed: decides which
    """
    found = open_store(store, version)
    spec = found.spec
    facts = {
        "store": found.uri,
        "version": f"{found.number} of {version_numbers(found.uri)}, made {found.created}",
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
    for name, value in facts.items():
        out.print(f"[bold]{name:16}[/] {value}")
    out.print(f"[bold]{'rejected':16}[/] {len(found.rejected)}")
    for reject in found.rejected:
        out.print(f"  {reject.image}: {reject.reason}", markup=False)
    sheet = settings().reports / f"patches-{Path(found.uri).name}-{found.number}.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    samples = store_upkeep.sample_rows(found, pairs, seed)
    contact_sheet(samples, sheet, title=f"{found.dataset}: random patches of {found.name}")
    out.print(f"[bold]{'contact sheet':16}[/] {sheet}")


def verify(store: str, *, version: int | None = None) -> None:
    """Read a store's shards and compare them with what was published; exit code 1 if one differs.

    Args:
        store: path or URI of the store
        version: number of the version (default: the current one)
    """
    found = open_store(store, version)
    damaged = []
    with shown("verify") as update:
        for done, (shard, whole) in enumerate(store_upkeep.verify(found), start=1):
            update(done, len(found.shards))
            if not whole:
                damaged.append(shard)
    if not damaged:
        out.print(f"{found.name}: all {len(found.shards)} shards are whole")
        return
    for shard in damaged:
        out.print(f"damaged or missing: {shard.key} ({shard.rows:,} patches)")
    out.print(f"repair: {found.repair_command}")
    sys.exit(1)


def gc(store: str, *, keep: int = 1, grace: float = 3600.0, dry_run: bool = False) -> None:
    """Remove old versions, and shards that no kept version names.

    Args:
        store: path or URI of the store
        keep: how many versions stay, the current one among them
        grace: files of no version at all (a build under way) stay for so many seconds
        dry_run: only say what would go
    """
    removed = store_upkeep.gc(store, keep=keep, grace_s=grace, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    versions = ", ".join(map(str, removed.versions)) or "none"
    out.print(f"{verb} {removed.files} files, {removed.bytes / 1e6:.1f} MB; versions: {versions}")
