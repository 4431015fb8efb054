"""Image folders and stores for tests: real files, made on the spot."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.references import list_images
from pipeline.datasets.sources import ScannedImage, scan_images
from pipeline.patches.build_store import BuildReport, build_store
from storage import files
from storage.patches.schema import PatchSpec

SPEC = PatchSpec(side=32, stride=16, qfs=(10, 40), degradation="patch")

SHARD_BYTES = 8 * 12 * 3 * 32 * 32
"""Of 8 images of `image_folder`."""


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Return (height, width) uint8 that looks like clouds, so that JPEG changes it."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(height, width)).cumsum(0).cumsum(1)
    return np.clip(smooth / np.abs(smooth).max() * 127 + 128, 0, 255).astype(np.uint8)


def image_folder(folder: Path, count: int = 20, size: tuple[int, int] = (70, 90)) -> Path:
    """Fill a folder with `count` different grey PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        texture_file(folder / f"{number:03}.png", *size, seed=number)
    return folder


def texture_file(path: Path, height: int, width: int, seed: int = 0) -> None:
    """Write a grey image of `texture`."""
    Image.fromarray(texture(height, width, seed)).save(path)


def build(
    folder: Path,
    store: Path | str,
    spec: PatchSpec = SPEC,
    *,
    shard_bytes: int | None = SHARD_BYTES,
    **options,
) -> BuildReport:
    """Build a store of a folder without Ray."""
    scanned, reference = scan(folder), f"folder:{folder}"
    return build_store(str(store), spec, scanned, reference, shard_bytes=shard_bytes, **options)


def scan(folder: Path) -> tuple[ScannedImage, ...]:
    """Hash the images of a folder."""
    return scan_images(list_images(f"folder:{folder}", root=None, purpose="train"))


def fail_midway(uri: str) -> None:
    """Start to write a file and raise RuntimeError before its end."""
    with files.open_atomic(uri) as file:
        file.write(b"half")
        raise RuntimeError("midway")
