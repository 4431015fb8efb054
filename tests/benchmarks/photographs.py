"""Colour photographs after JPEG and after `qfactory restore`: RGB PSNR, image by image.

Usage: QFACTORY_DATASETS=FOLDER OMP_NUM_THREADS=1 python -m tests.benchmarks.photographs [EVERY]

EVERY takes every so-manieth of the 200 BSDS500 test images (default: 1, all of them).
"""

import io
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from flows.planning.restoring_networks import available_networks
from flows.settings import settings
from pipeline.datasets.references import list_images
from pipeline.restoring.one_photograph import Network, choose_network, restore_jpeg
from pipeline.served.photographs import padded, png_of, read_photograph
from pipeline.served.quantization_cells import SHARE
from storage import files
from tests.benchmarks.metrics import processor

RESULTS = Path(__file__).parent / "results" / "photographs.json"
QFS = (10, 20, 30, 40)
SUBSAMPLINGS = ("4:4:4", "4:2:0")
EVERY_OF_THE_OTHERS = 5
"""Of the images, so-manieth are also restored in the other ways, to compare."""

Way = Callable[[bytes, list[Network]], bytes]


def restored(data: bytes, networks: list[Network]) -> bytes:
    """Restore as the command does: luma full-range, changes kept within the quantisation cells."""
    return restore_jpeg(data, networks, kind="png").content


def full_range(data: bytes, networks: list[Network]) -> bytes:
    """Give the network full-range luma as it is, and take what it makes of it."""
    photograph = read_photograph(data)
    network = choose_network(networks, photograph.table)
    return png_of(photograph, network.restorer(padded(photograph.luma), photograph.table))


def studio_range(data: bytes, networks: list[Network]) -> bytes:
    """Map luma to 16..235, which networks are trained on, and what the network gives back."""
    photograph = read_photograph(data)
    network = choose_network(networks, photograph.table)
    studio = np.rint(16 + photograph.luma * (219 / 255)).astype(np.uint8)
    given = network.restorer(padded(studio), photograph.table).astype(np.float64)
    change = (given - studio) * (255 / 219)
    luma = np.clip(np.rint(photograph.luma + change), 0, 255).astype(np.uint8)
    return png_of(photograph, luma)


OTHERS: dict[str, Way] = {"full_range": full_range, "studio_range": studio_range}


def rgb_psnr(original: np.ndarray, content: bytes) -> float:
    """Return the PSNR in dB over all pixels and channels."""
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    error = np.square(original.astype(np.float64) - shown).mean()
    return float(10 * np.log10(255**2 / error))


def measure(every: int) -> tuple[list[dict[str, object]], int, str]:
    """Return a row a quality factor and subsampling, how many images, and the network's name."""
    networks = list(available_networks())
    images = list_images("bsds500:test", root=settings().datasets_root, purpose="evaluate")[::every]
    gains: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    used = set()
    for number, image in enumerate(images):
        picture = Image.open(io.BytesIO(files.read_bytes(image.uri))).convert("RGB")
        original = np.asarray(picture)
        for qf in QFS:
            for subsampling in SUBSAMPLINGS:
                file = io.BytesIO()
                picture.save(file, "JPEG", quality=qf, subsampling=subsampling)
                data, found = file.getvalue(), gains[qf, subsampling]
                used.add(choose_network(networks, read_photograph(data).table).name)
                before = rgb_psnr(original, data)
                found["jpeg"].append(before)
                found["restored"].append(rgb_psnr(original, restored(data, networks)) - before)
                for name, way in OTHERS.items() if number % EVERY_OF_THE_OTHERS == 0 else ():
                    found[name].append(rgb_psnr(original, way(data, networks)) - before)
    rows = [_row(qf, subsampling, found) for (qf, subsampling), found in gains.items()]
    return rows, len(images), ", ".join(sorted(used))


def _row(qf: int, subsampling: str, found: dict[str, list[float]]) -> dict[str, object]:
    gains = found["restored"]
    same = gains[::EVERY_OF_THE_OTHERS]
    compared = {"as_restored": same, **{name: found[name] for name in OTHERS}}
    return {
        "qf": qf,
        "subsampling": subsampling,
        "images": len(gains),
        "jpeg_db": round(fmean(found["jpeg"]), 3),
        "mean_gain_db": round(fmean(gains), 3),
        "least_gain_db": round(min(gains), 3),
        "images_that_lose": sum(gain < 0 for gain in gains),
        "compared_on": len(same),
        **{f"{name}_gain_db": round(fmean(values), 3) for name, values in compared.items()},
    }


def main() -> None:
    """Measure, print a table, and write the results file."""
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rows, count, network = measure(every)
    report = {
        "command": f"OMP_NUM_THREADS=1 python -m tests.benchmarks.photographs {every}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "packages": {"torch": torch.__version__, "pillow": Image.__version__},
        "what": f"RGB PSNR of {count} of the 200 BSDS500 test images, JPEG by Pillow, against the "
        f"restored PNG. full_range and studio_range: the network alone on every "
        f"{EVERY_OF_THE_OTHERS}th of them; as_restored: the same images, full-range, with changes "
        f"limited to {SHARE} quantisation steps",
        "network": network,
        "results": rows,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    table = Table(*rows[0], title=network)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
