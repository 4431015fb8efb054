"""What a version costs as its store grows: seconds and memory by the number of shards.

    python -m tests.benchmarks.versions

writes results/versions.json. Images and shards are made up, one a shard, and the shards' files are
empty: nothing here opens them. Each step runs in a process of its own, whose peak memory counts.
"""

import hashlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from pipeline.datasets.sources import ScannedImage, hashes_by_name
from pipeline.patches.build_store import build_store
from pipeline.patches.plan_store import plan_build
from storage.patches.schema import PatchSpec
from storage.patches.source_images import record_sources
from storage.patches.upkeep import gc
from storage.patches.version_parts import ShardEntry
from storage.patches.versions import (
    StoreVersion,
    open_head,
    open_store,
    publish,
    row_group_rows,
    shard_uri,
)
from tests.benchmarks.machine import machine

RESULT = Path(__file__).parent / "results" / "versions.json"
SHARDS = (10_000, 30_000, 100_000)
SPEC = PatchSpec(side=32, stride=10, qfs=(10,), degradation="patch")
SHARD_BYTES = 1 << 20


def images(count: int) -> tuple[ScannedImage, ...]:
    """Return made-up images, each of which fills a shard."""
    names = [f"n{number // 1300:05}/{number:07}.jpg" for number in range(count)]
    return tuple(
        ScannedImage(name=name, uri=name, sha256=sha256(name), height=375, width=500)
        for name in names
    )


def sha256(text: str) -> str:
    """Return the SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def first_version(store: str, count: int) -> None:
    """Publish a version of `count` shards."""
    scanned = images(count)
    tasks = plan_build(store, SPEC, scanned, shard_bytes=SHARD_BYTES).tasks
    assert len(tasks) == count
    Path(store, "shards").mkdir(parents=True)
    for task in tasks:
        Path(shard_uri(store, task.key)).touch()
    shards = (
        ShardEntry(key=task.key, rows=1645, bytes=0, sha256=sha256(task.key), images=1)
        for task in tasks
    )
    version = StoreVersion(
        uri=store,
        number=0,
        spec=SPEC,
        dataset="made up",
        dataset_fingerprint=record_sources(store, hashes_by_name(scanned), {}),
        row_group_rows=row_group_rows(SPEC),
        shards=tuple(shards),
        rejected=(),
        packages={},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        shard_bytes=SHARD_BYTES,
    )
    publish(version, {task.key: [image.name for image in task.images] for task in tasks})


def rebuild(store: str, count: int) -> None:
    """Bring the store up to date with all images; nothing is built."""
    assert build_store(store, SPEC, images(count), "made up").built == 0


STEPS: Mapping[str, Callable[[str, int], object]] = MappingProxyType(
    {
        "plan, publish the first version": first_version,
        "rebuild, nothing built": rebuild,
        "rebuild without one image": lambda store, count: rebuild(store, count - 1),
        "open the head": lambda store, count: open_head(store),
        "open with the list": lambda store, count: open_store(store),
        "gc, keeping two": lambda store, count: gc(store, keep=2, dry_run=True),
    }
)


def main() -> None:
    """Measure every step at every size and write the result."""
    found = {str(count): measured(count) for count in SHARDS}
    few, many = (found[str(count)] for count in (SHARDS[0], SHARDS[-1]))
    grown = math.log(SHARDS[-1] / SHARDS[0])
    result = {
        "command": "python -m tests.benchmarks.versions",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "shards": found,
        "exponents": {
            name: round(math.log(max(many[name]["s"], 1e-3) / max(few[name]["s"], 1e-3)) / grown, 2)
            for name in STEPS
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def measured(count: int) -> dict[str, dict[str, float]]:
    """Return seconds and MB of each step, and those of the version's files."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in STEPS:
            command = [sys.executable, "-m", "tests.benchmarks.versions", name, folder, str(count)]
            found[name] = json.loads(
                subprocess.run(command, check=True, capture_output=True).stdout
            )
        sizes = {p.suffix: p.stat().st_size / 1e6 for p in Path(folder, "store").glob("versions/*")}
        return {**found, "files": {f"MB {name}": round(size, 3) for name, size in sizes.items()}}


def one_step(name: str, folder: str, count: int) -> None:
    """Do a step and tell what it took; what the imports took is told apart."""
    imports, began = peak_mib(), time.perf_counter()
    STEPS[name](f"{folder}/store", count)
    seconds = round(time.perf_counter() - began, 4)
    found = {"s": seconds, "MiB_peak": peak_mib(), "MiB_of_imports": imports}
    sys.stdout.write(json.dumps(found))


def peak_mib() -> int:
    """Return the most memory that this process had, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    one_step(sys.argv[1], sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 1 else main()
