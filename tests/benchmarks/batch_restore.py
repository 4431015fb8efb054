"""Time restore-batch with one and two actors beside a plain loop, on BSDS500's test images.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.batch_restore
"""

import io
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

from flows.settings import settings
from pipeline import cluster
from pipeline.datasets import references
from pipeline.restoring.batch_file import NetworkSource, open_networks
from pipeline.restoring.batch_run import Batch
from pipeline.restoring.one_photograph import restore_jpeg
from pipeline.restoring.ray_data import restore_all
from storage import files
from storage.batches.batch_settings import UsedNetwork
from tests.benchmarks.metrics import processor

RESULTS = Path(__file__).parent / "results" / "batch_restore.json"
PROJECT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = PROJECT / "models" / "zoo" / "quickres-blind.safetensors"
PHOTOGRAPHS = 100
QFS = (10, 20, 30, 40)


def fill(folder: Path) -> None:
    """Write the photographs as JPEG files in colour, QF 10 to 40 in turn."""
    images = references.list_images(
        "bsds500:test", root=settings().datasets_root, purpose="evaluate"
    )
    for number, image in enumerate(images[:PHOTOGRAPHS]):
        picture = Image.open(io.BytesIO(files.read_bytes(image.uri))).convert("RGB")
        picture.save(folder / f"{number:03}.jpg", quality=QFS[number % len(QFS)])


def loop_seconds(photos: Path, outputs: Path, source: NetworkSource) -> float:
    """Restore the photographs one after the other in this process."""
    torch.set_num_threads(1)
    networks = open_networks([source])
    start = time.perf_counter()
    for photo in sorted(photos.iterdir()):
        restored = restore_jpeg(photo.read_bytes(), networks, kind="png")
        files.write_bytes(str(outputs / f"{photo.stem}.png"), restored.content)
    return time.perf_counter() - start


def batch_seconds(photos: Path, outputs: Path, source: NetworkSource, actors: int) -> dict:
    """Restore them with Ray Data; tell how long it took, and from the first batch that was done."""
    done = []
    start = time.perf_counter()
    batch = Batch(
        inputs=str(photos),
        outputs=str(outputs),
        networks=(source.network,),
        fetch=lambda used: source,
    )
    report = restore_all(
        batch,
        actors=actors,
        on_progress=lambda restored, failed, total: done.append((time.perf_counter(), restored)),
    )
    end = time.perf_counter()
    assert report.restored == PHOTOGRAPHS
    first = max(number for moment, number in done if moment - done[0][0] < 0.01)
    return {
        "seconds": round(end - start, 1),
        "seconds_until_first_batch": round(done[0][0] - start, 1),
        "images_a_second": round(PHOTOGRAPHS / (end - start), 2),
        "images_a_second_after_first_batch": round(
            (PHOTOGRAPHS - first) / (done[-1][0] - done[0][0]), 2
        ),
    }


def measure() -> dict[str, dict]:
    """Time the loop, one actor and two, one after the other."""
    name, sha256 = "quickres-blind", files.sha256_of(str(WEIGHTS))
    used = UsedNetwork(name=name, uri=name, qfs=(10, 40), sha256=sha256, asked=True)
    source = NetworkSource(network=used, content=WEIGHTS.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photographs"
        photos.mkdir()
        fill(photos)
        seconds = loop_seconds(photos, Path(folder) / "loop", source)
        results = {
            "plain loop, one process": {
                "seconds": round(seconds, 1),
                "images_a_second": round(PHOTOGRAPHS / seconds, 2),
            }
        }
        cluster.connect(None, cpus=2)
        for actors in (1, 2):
            found = batch_seconds(photos, Path(folder) / f"{actors}", source, actors)
            for path in (Path(folder) / "loop").iterdir():
                assert path.read_bytes() == (Path(folder) / f"{actors}" / path.name).read_bytes()
            found["times_the_loop"] = round(seconds / found["seconds"], 2)
            results[f"restore-batch, actors={actors}"] = found
        cluster.disconnect()
    return results


def main() -> None:
    """Measure, and write the results file."""
    load = os.getloadavg()[0]
    report = {
        "command": "OMP_NUM_THREADS=1 python -m tests.benchmarks.batch_restore",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "load_average_before": round(load, 1),
        "packages": {name: version(name) for name in ("torch", "ray", "pillow")},
        "what": (
            f"{PHOTOGRAPHS} BSDS500 test images, 481x321 in colour, JPEG QF 10 to 40, to PNG files "
            "with quickres-blind; one run; a torch thread a process; Ray was connected before"
        ),
        "results": measure(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
