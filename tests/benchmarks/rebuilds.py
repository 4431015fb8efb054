"""What a rebuild costs where nothing, or one image, has changed: CPU seconds and bytes read.

    python -m tests.benchmarks.rebuilds FOLDER_OF_IMAGES

cuts crops of 64x64 pixels, every 8th, out of the images, and writes results/rebuilds.json: each
build with what is remembered of images, and without it and in shards of 8 images, as it was before.
"""

import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.folders import YOUNG_S
from pipeline.datasets.references import list_images
from pipeline.datasets.sources import scan_images
from pipeline.patches import plan_store
from pipeline.patches.build_store import build_store
from storage.patches.schema import PatchSpec

SPEC = PatchSpec(side=32, stride=16, qfs=(10,), degradation="patch")
RESULT = Path(__file__).parent / "results" / "rebuilds.json"
COUNTS = (2_000, 20_000)
SIDE, STEP = 64, 8


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a store is brought up to date."""

    store: Path
    known_in: str | None

    def rebuild(self, photos: Path) -> dict[str, float | int]:
        """Bring the store up to date; return what it took."""
        read, before = bytes_read(), time.process_time()
        images = list_images(f"folder:{photos}", root=None, purpose="train")
        listed = time.process_time()
        scanned = scan_images(images, known_in=self.known_in)
        hashed = time.process_time()
        report = build_store(str(self.store), SPEC, scanned, "crops")
        return {
            "cpu_s_list": round(listed - before, 2),
            "cpu_s_hash": round(hashed - listed, 2),
            "cpu_s_build": round(time.process_time() - hashed, 2),
            "MB_read": round((bytes_read() - read) / 1e6, 2),
            "shards": len(report.version.shards),
            "shards_written": report.built,
        }


def main() -> None:
    """Measure and write the result."""
    result = {
        "command": "python -m tests.benchmarks.rebuilds BSDS500/train",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": platform.processor() or "x86-64", "cores": os.cpu_count()},
        "images": {str(count): measured(Path(sys.argv[1]), count) for count in COUNTS},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def measured(sources: Path, count: int) -> dict[str, object]:
    """Return what each build of so many crops takes, before and now."""
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        size = make_crops(sources, photos, count)
        time.sleep(YOUNG_S + 1)
        ways = {
            "before": Way(store=Path(folder, "before"), known_in=None),
            "now": Way(store=Path(folder, "now"), known_in=f"{folder}/known.parquet"),
        }
        wanted = plan_store.target_of_new_store
        plan_store.target_of_new_store = lambda spec, images: None  # type: ignore[assignment]
        first = {"before": ways["before"].rebuild(photos)}
        plan_store.target_of_new_store = wanted
        first["now"] = ways["now"].rebuild(photos)
        unchanged = {name: way.rebuild(photos) for name, way in ways.items()}
        changed = sorted(photos.iterdir())[count // 2]
        Image.open(changed).transpose(Image.Transpose.ROTATE_180).save(changed)
        one = {name: way.rebuild(photos) for name, way in ways.items()}
    return {
        "MB_of_images": round(size / 1e6, 1),
        "first_build": first,
        "unchanged": unchanged,
        "one_image_changed": one,
    }


def make_crops(sources: Path, folder: Path, count: int) -> int:
    """Write the first crops of the images; return their bytes."""
    folder.mkdir()
    crops = (
        (f"{path.stem}-{y:03}-{x:03}.png", pixels[y : y + SIDE, x : x + SIDE])
        for path in sorted(sources.glob("*.jpg"))
        for pixels in [np.asarray(Image.open(path).convert("L"))]
        for y in range(0, pixels.shape[0] - SIDE, STEP)
        for x in range(0, pixels.shape[1] - SIDE, STEP)
    )
    for name, crop in islice(crops, count):
        Image.fromarray(crop).save(folder / name)
    return sum(path.stat().st_size for path in folder.iterdir())


def bytes_read() -> int:
    """Return how many bytes this process has read, from the page cache too."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


if __name__ == "__main__":
    main()
