"""Commands on what a store's versions hold: what changed, what it measures, other formats of it."""

from collections.abc import Sequence
from dataclasses import asdict

from flows.console import out, print_json
from flows.settings import settings
from storage.patches.differences import StoreDifference, difference, two_versions

SHOWN_NAMES = 10


def diff(
    store: str, first: int | None = None, second: int | None = None, /, *, json: bool = False
) -> None:
    """Tell what changed between two versions of a store.

    Args:
        store: name, path or URI of the store
        first: number of the version to begin with (default: the one before the other)
        second: number of the version to end with (default: the current one)
        json: print one JSON object and nothing else
    """
    found = difference(*two_versions(settings().store_uri(store), first, second))
    if json:
        print_json(asdict(found))
        return
    out.print(f"{found.older} -> {found.newer}", markup=False)
    if found.is_empty:
        out.print("the same patches of the same images")
        return
    before, after = found.rows_changed
    _show_names("images added", found.images_added, f", {found.rows_added:,} patches")
    _show_names("images removed", found.images_removed, f", {found.rows_removed:,} patches")
    _show_names("images changed", found.images_changed, f", {before:,} -> {after:,} patches")
    _show_names("rejected now", found.rejected_added)
    _show_names("rejected before", found.rejected_removed)
    _show_numbers(found)


def _show_names(what: str, names: Sequence[str], more: str = "") -> None:
    out.print(f"[bold]{what:16}[/] {len(names):,}{more if names else ''}")
    for name in names[:SHOWN_NAMES]:
        out.print(f"  {name}", markup=False)
    if len(names) > SHOWN_NAMES:
        out.print(f"  and {len(names) - SHOWN_NAMES:,} more: --json names all")


def _show_numbers(found: StoreDifference) -> None:
    before, after = found.rows
    out.print(f"[bold]{'patches':16}[/] {before:,} -> {after:,}")
    shards = ", ".join(f"{number:,} {what}" for what, number in found.shards.items())
    out.print(f"[bold]{'shards':16}[/] {shards}")
    for name, (old, new) in (found.settings | found.packages).items():
        out.print(f"[bold]{name:16}[/] {old} -> {new}")
