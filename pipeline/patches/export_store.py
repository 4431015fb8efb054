"""A version of a store written out for people who stay with another loader.

A folder appears whole or not at all, with a README.md of lines that read it, and info.json: what
the version is, and its quantisation tables.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage, rmtree

from pipeline.patches.export_formats import FORMATS, ExportedGroup, Groups
from storage.files import TEMPORARY, StoreError
from storage.patches.schema import pixel_columns
from storage.patches.shard_reader import (
    open_shard,
    read_open_places,
    read_open_rows,
    read_quantization_tables,
)
from storage.patches.versions import StoreVersion

ABANDONED_S = 3600.0


def export_store(
    store: StoreVersion,
    to: str,
    out: str | Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a version into a new local folder. One row group is in memory at a time.

    Raises ValueError for an unknown format, a URI or a folder that is there, and StoreError for a
    damaged shard or a disk without room; then nothing is there, as before.
    """
    if to not in FORMATS:
        raise ValueError(f"--to {to}: choose one of {', '.join(FORMATS)}")
    if "://" in str(out):
        raise ValueError(f"{out}: choose a local folder, and copy it from there when it is whole")
    target = Path(out).absolute()
    if target.exists():
        raise ValueError(f"{target} is there already: choose another folder, or delete it")
    chosen = FORMATS[to]
    with _appears_whole(target, store) as folder:
        chosen.write(store, _groups(store, on_progress), folder)
        (folder / "info.json").write_text(json.dumps(_info(store), indent=1))
        (folder / "README.md").write_text(_readme(store, chosen.reading, folder))


def _groups(store: StoreVersion, on_progress: Callable[[int, int], None]) -> Groups:
    columns, done = pixel_columns(store.spec), 0
    for shard in store.shards:
        with open_shard(store, shard) as parquet:
            for group in range(parquet.num_row_groups):
                pixels = read_open_rows(store, shard, parquet, group, columns)
                images, places = read_open_places(store, shard, parquet, group)
                yield ExportedGroup(
                    first=done,
                    images=images,
                    places=places,
                    pixels=dict(zip(columns, pixels, strict=True)),
                )
                done += len(images)
                on_progress(done, store.rows)


def _info(store: StoreVersion) -> dict[str, object]:
    return {
        "store": store.name,
        "dataset": store.dataset,
        "content": store.content,
        "rows": store.rows,
        "columns": pixel_columns(store.spec),
        "spec": json.loads(store.spec.to_json()),
        "quantization_tables": {
            qf: table.tolist() for qf, table in read_quantization_tables(store).items()
        },
    }


def _readme(store: StoreVersion, reading: str, folder: Path) -> str:
    columns = pixel_columns(store.spec)
    tars = len(list(folder.glob("*.tar"))) - 1
    code = reading.format(
        column=columns[-1],
        columns=", ".join(columns),
        count=len(columns),
        at=len(columns) - 1,
        side=store.spec.side,
        tars=f"patches-{{000000..{tars:06d}}}.tar",
    )
    return f"{store.rows:,} patches of {store.name}. In this folder:\n\n```python\n{code}\n```\n"


@contextmanager
def _appears_whole(target: Path, store: StoreVersion) -> Iterator[Path]:
    """Give a folder beside the target that takes its name if the block ends well."""
    prefix = f"{TEMPORARY}{target.name}-"
    temporary = target.with_name(f"{prefix}{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{prefix}*"):
            if left.stat().st_mtime < time.time() - ABANDONED_S:
                rmtree(left, ignore_errors=True)
        _check_room(target, store)
        temporary.mkdir()
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        temporary.rename(target)
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror or error}; nothing was exported") from error
    finally:
        rmtree(temporary, ignore_errors=True)


def _check_room(target: Path, store: StoreVersion) -> None:
    needed = store.rows * store.spec.side**2 * len(pixel_columns(store.spec))
    free = disk_usage(target.parent).free
    if needed > free:
        raise StoreError(
            f"{target}: its pixels take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "choose another disk. Nothing was exported"
        )
