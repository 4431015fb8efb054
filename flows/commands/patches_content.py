"""Commands on what a store's versions hold: what changed, what it measures, other formats of it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from rich.markup import escape

from flows.console import out, print_json, show_table, shown
from flows.settings import settings
from pipeline.drawing.store_pictures import statistics_picture
from pipeline.patches.export_store import export_store
from pipeline.patches.store_stats import (
    SAMPLED_ROWS,
    StoreStats,
    keep,
    measure,
    measured_before,
)
from storage.patches.differences import StoreDifference, difference, two_versions
from storage.patches.versions import StoreVersion, open_store

SHOWN_NAMES = 10
PERCENTILES = (1, 50, 99)


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


def stats(
    store: str,
    *,
    version: int | None = None,
    rows: int = SAMPLED_ROWS,
    all_rows: Annotated[bool, Parameter("--all")] = False,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Measure the patches: PSNR, SSIM and bits per pixel by quality factor, luma, flat ones.

    What was measured is kept in the store, beside the version, and the same question answered from
    there.

    Args:
        store: name, path or URI of the store
        version: number of the version (default: the current one)
        rows: about how many patches are measured, out of at most 64 row groups drawn at random
        all_rows: measure every patch
        seed: decides which
        json: print one JSON object and nothing else
    """
    found = open_store(settings().store_uri(store), version)
    asked = None if all_rows else rows
    measured = measured_before(found, rows=asked, seed=seed)
    if measured is None:
        with shown("measure") as update:
            measured = measure(found, rows=asked, seed=seed, on_progress=update)
        keep(found, measured)
    picture = settings().reports / f"stats-{Path(found.uri).name}-{found.number}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    _draw(found, measured, picture)
    if json:
        print_json({"store": found.name, **asdict(measured), "picture": str(picture)})
        return
    _show_stats(found, measured)
    out.print(f"[bold]{'picture':16}[/] {escape(str(picture))}")


def _show_stats(found: StoreVersion, measured: StoreStats) -> None:
    shown_rows = [
        {"QF": one.qf, "psnr": one.psnr, "ssim": one.ssim, "bpp": one.bpp}
        for one in measured.quality
    ]
    if shown_rows:
        show_table(shown_rows, f"JPEG in {found.name}")
    out.print(f"[bold]{'measured':16}[/] {_sample(measured)}")
    levels = np.cumsum(measured.luma) / sum(measured.luma)
    told = ", ".join(f"{p} % up to {np.searchsorted(levels, p / 100)}" for p in PERCENTILES)
    out.print(f"[bold]{'luma':16}[/] mean {measured.luma_mean:.1f}; of the pixels {told}")
    out.print(
        f"[bold]{'flat patches':16}[/] {100 * measured.flat_share:.1f} %: variance of the original "
        f"below {measured.flat_variance:g}"
    )


def _sample(measured: StoreStats) -> str:
    if measured.seed is None:
        return f"all {measured.of_rows:,} patches"
    return (
        f"{measured.rows:,} of {measured.of_rows:,} patches, out of {measured.row_groups:,} of "
        f"{measured.of_row_groups:,} row groups, seed {measured.seed}"
    )


def _draw(found: StoreVersion, measured: StoreStats, picture: Path) -> None:
    quality = [(one.qf, one.bpp, one.psnr) for one in measured.quality]
    flat = f"flat: {100 * measured.flat_share:.1f} %"
    statistics_picture(
        picture,
        title=f"{found.dataset}: patches of version {found.number}",
        subtitle=f"{_sample(measured)}; {flat}",
        luma=measured.luma,
        quality=quality,
    )


def export(store: str, folder: str, /, *, to: str, version: int | None = None) -> None:
    """Write a version into a folder that another loader reads; it appears whole or not at all.

    Args:
        store: name, path or URI of the store
        folder: local folder that is not there yet; its README.md has the lines that read it
        to: lmdb, webdataset or numpy
        version: number of the version (default: the current one)
    """
    found = open_store(settings().store_uri(store), version)
    with shown("export") as update:
        export_store(found, to, folder, update)
    told = f"{found.rows:,} patches of {found.name}; {Path(folder) / 'README.md'} reads them"
    out.print(told, markup=False)


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
        out.print(f"[bold]{name:16}[/] {escape(f'{old} -> {new}')}")
