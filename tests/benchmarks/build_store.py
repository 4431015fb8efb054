"""How fast patches are made: one JPEG a patch against the mosaic, then a whole build.

    python -m tests.benchmarks.build_store FOLDER_OF_IMAGES

writes results/build_store.json: AR-CNN's patches (32x32, stride 10) at four quality factors.
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipeline import cluster
from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.images import jpeg
from pipeline.images.luma import read_luma
from pipeline.patches.build_store import build_store
from pipeline.patches.cut import compress_patches, patch_blocks
from storage import files
from storage.patches.schema import ORIGINAL, PatchSpec

SPEC = PatchSpec(side=32, stride=10, qfs=(10, 20, 30, 40), degradation="patch")
RESULT = Path(__file__).parent / "results" / "build_store.json"
QF = 10
ROUNDS = 3


def main() -> None:
    """Measure and write the result."""
    reference = f"folder:{sys.argv[1]}"
    images = list_images(reference, root=None, purpose="train")
    luma = read_luma(files.read_bytes(images[0].uri), images[0].name)
    patches = next(iter(patch_blocks(luma, SPEC))).pixels[ORIGINAL]
    one_by_one = fastest(lambda: np.stack([jpeg.compress(patch, QF)[0] for patch in patches]))
    mosaic = fastest(lambda: compress_patches(patches, QF))
    with tempfile.TemporaryDirectory() as folder:
        scanned = scan_images(images)
        start = time.perf_counter()
        report = build_store(f"{folder}/alone", SPEC, scanned, reference)
        alone = time.perf_counter() - start
        cluster.connect(None)
        start = time.perf_counter()
        build_store(f"{folder}/ray", SPEC, scanned, reference, parallel=cluster.ray_map)
        on_ray = time.perf_counter() - start
        start = time.perf_counter()
        build_store(f"{folder}/ray", SPEC, scanned, reference, parallel=cluster.ray_map)
        unchanged = time.perf_counter() - start
        cluster.disconnect()
    rows, size = report.version.rows, report.version.bytes
    raw = rows * SPEC.side**2 * (1 + len(SPEC.qfs))
    result = {
        "command": "python -m tests.benchmarks.build_store BSDS500/val",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": platform.processor() or "x86-64", "cores": os.cpu_count()},
        "images": len(images),
        "patches": rows,
        "microseconds_a_patch_and_qf": {
            "one_by_one": round(one_by_one / len(patches) * 1e6, 2),
            "mosaic": round(mosaic / len(patches) * 1e6, 2),
        },
        "build_seconds": {
            "one_process": round(alone, 2),
            "ray": round(on_ray, 2),
            "ray_unchanged": round(unchanged, 2),
        },
        "patches_per_second": {"one_process": round(rows / alone), "ray": round(rows / on_ray)},
        "store_bytes_to_pixels": round(size / raw, 3),
        "ratios": {
            "mosaic / one_by_one": round(one_by_one / mosaic, 1),
            "ray / one_process": round(alone / on_ray, 2),
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def fastest(function: Callable[[], object]) -> float:
    """Return the shortest of a few wall times, in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
