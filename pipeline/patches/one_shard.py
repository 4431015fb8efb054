"""One shard of a store: images are cut, compressed and written, as a function of its task alone."""

import hashlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version

import numpy as np
from PIL import features

from pipeline.datasets.sources import ScannedImage
from pipeline.images.jpeg import quantization_table
from pipeline.images.luma import ImageRejected, read_luma
from pipeline.patches.cut import patch_blocks, shape_to_cut
from storage import files
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_writer import open_shard_writer
from storage.patches.version_parts import Rejected, ShardEntry


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Everything that one shard needs: a function of this alone."""

    key: str
    spec: PatchSpec
    images: tuple[ScannedImage, ...]
    store_uri: str


def shard_key(spec: PatchSpec, images: Sequence[ScannedImage]) -> str:
    """Return the name of a shard: a hash of the spec, the sources, and the JPEG library."""
    lines = [spec.fingerprint, jpeg_library(), *(f"{i.sha256} {i.name}" for i in images)]
    if spec.degradation == "rescaled":
        lines.append(f"pillow {package_version('pillow')}")  # its filters make the patches too
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def build_shard(task: ShardTask) -> ShardEntry:
    """Cut, compress and write one shard; the same task always gives the same bytes.

    An image that cannot be used is listed as rejected in the shard. Raises StoreError when an
    image has changed since it was scanned, and on a machine whose libraries give other pixels.
    """
    if shard_key(task.spec, task.images) != task.key:
        raise StoreError(
            f"{socket.gethostname()} has {jpeg_library()} and pillow {package_version('pillow')}, "
            "which give other pixels than what the build was begun with: install there what "
            "infra/constraints.txt names, then run the same command again"
        )
    tables = {qf: quantization_table(qf).ravel().tolist() for qf in task.spec.qfs}
    with open_shard_writer(task.store_uri, task.key, task.spec, tables) as writer:
        for image in task.images:
            writer.add_source(image.name, image.sha256)
            try:
                luma = read_luma(_read_unchanged(image), image.name)
                _check_fits(luma, task.spec)
            except ImageRejected as error:
                writer.reject(Rejected(image=image.name, reason=str(error)))
                continue
            for block in patch_blocks(luma, task.spec):
                writer.add(image.name, block.y, block.x, block.pixels)
        return writer.finish(task.key)


def jpeg_library() -> str:
    """Return the name and version of what compresses here: with another, pixels differ."""
    turbo = features.version_feature("libjpeg_turbo")
    return f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version_codec('jpg')}"


def _read_unchanged(image: ScannedImage) -> bytes:
    try:
        data = files.read_bytes(image.uri)
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise StoreError(
            f"{image.name} changed while the store was built; run the build again, with --rehash "
            "if it says so twice"
        )
    return data


def _check_fits(luma: np.ndarray, spec: PatchSpec) -> None:
    height, width = shape_to_cut(luma.shape, spec)
    if min(height, width) < spec.side:
        found = f"{width}x{height}"
        if spec.degradation == "rescaled":
            found = f"{luma.shape[1]}x{luma.shape[0]}, rescaled to {found}"
        raise ImageRejected(f"smaller than a patch: {found} < {spec.side}x{spec.side}")
