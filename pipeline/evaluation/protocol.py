"""Score a network, or JPEG itself, as the papers do: compress, restore, compare, average.

The protocol: luma, grey JPEG at Pillow's default settings, output rounded to uint8, no border
cropped, every metric averaged over the images. The degradation `rescaled` reduces the images first
(pipeline/images/degrade.py); its results are marked and never stand beside those of the standard
protocol.

`python -m pipeline.evaluation WEIGHTS --root DATASETS` needs neither Ray, Prefect nor MLflow.
"""

import argparse
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from pipeline.datasets import references
from pipeline.evaluation.scores import Comparison, EvaluationResult, ImageScore
from pipeline.images import jpeg
from pipeline.images.degrade import (
    STANDARD,
    Pair,
    Protocol,
    before_jpeg,
    check_protocol,
    rescaled_shape,
)
from pipeline.images.luma import ImageRejected, read_luma
from pipeline.images.metrics import METRICS, MIN_SIDE
from pipeline.networks.devices import Precision, PrecisionChoice, best_device, choose_precision
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import load_network
from storage import files

logger = logging.getLogger(__name__)

NamedImage = tuple[str, np.ndarray]
"""An image's name and its luma, (H, W) uint8."""
WARM_UP_PIXELS = 64
"""Side of the piece of the first image that is restored once before the clock starts."""


def evaluate(
    restorer: Restorer | None,
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int],
    degradation: Protocol = STANDARD,
) -> EvaluationResult:
    """Compress every image at every quality factor, restore it, and score it.

    Args:
        restorer: see `network_restorer`; None scores JPEG itself. It is given the table of the
            quality factor that it is scored at.
        images: read once and one at a time, so it may be a generator (or a progress bar over it).
        dataset: the name that stands in the rows.
        qfs: JPEG quality factors, 1 to 100.
        degradation: `image` is the papers' protocol, `rescaled` reduces each image first; one that
            would be below 8x8 pixels then is left out, with a warning.

    Raises ValueError for no images, no or unknown quality factors, another degradation, an image
    below 8x8 pixels, or a restorer that does not keep shape and type.
    """
    return evaluate_each([restorer], images, dataset, qfs, degradation)[0]


def compare(
    restorer: Restorer,
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int],
    degradation: Protocol = STANDARD,
    precision: Precision = "float32",
) -> Comparison:
    """Score JPEG itself and the restorer on the same images; see `evaluate`.

    `precision` is what the restorer computes in; the result tells it.
    """
    before, after = evaluate_each([None, restorer], images, dataset, qfs, degradation)
    return Comparison(jpeg=before, restored=replace(after, precision=precision))


def score(
    network: nn.Module | Restorer,
    dataset: str,
    qf: int | Sequence[int],
    *,
    root: str | Path | None = None,
    device: str | torch.device | None = None,
    degradation: Protocol = STANDARD,
    precision: Precision = "float32",
) -> Comparison:
    """Score a network from anywhere on a dataset, beside JPEG.

    Args:
        network: a torch module on (N, 1, H, W) float32 in [0, 1], or a function of luma and the
            JPEG's quantisation table (see `Restorer`).
        dataset: a reference such as `classic5`, `live1`, `bsds500:test` or `folder:PATH`.
        qf: JPEG quality factor or factors, 1 to 100.
        root: folder that holds the fetched datasets; `sample` and `folder:PATH` need none.
        device: where a module computes, such as `cuda`; None leaves it where it is.
        degradation: see `evaluate`.
        precision: what a module computes in, see `pipeline.networks.devices`; of a function, what
            it says of itself.
    """
    restorer = network
    if isinstance(network, nn.Module):
        restorer = network_restorer(network, device, precision=precision)
    sources = references.list_images(dataset, root=root, purpose="evaluate")
    qfs = [qf] if isinstance(qf, int) else qf
    return compare(restorer, load_images(sources), dataset, qfs, degradation, precision)


def log_rejection(image: str, reason: str) -> None:
    """Warn that an image takes no part in an evaluation."""
    logger.warning("%s is left out of the evaluation: %s", image, reason)


def load_images(
    sources: Iterable[references.SourceImage],
    *,
    on_reject: Callable[[str, str], None] = log_rejection,
) -> Iterator[NamedImage]:
    """Yield name and luma of every source that can be evaluated, one at a time.

    Files that cannot be read, images that `pipeline.images.luma` rejects and those below 8x8 pixels
    are given to `on_reject` (name, reason) and left out.
    """
    for source in sources:
        try:
            luma = read_luma(files.read_bytes(source.uri), source.name)
        except (ImageRejected, OSError) as error:
            on_reject(source.name, str(error))
            continue
        if min(luma.shape) < MIN_SIDE:
            height, width = luma.shape
            on_reject(source.name, f"too small: {width}x{height}, {MIN_SIDE}x{MIN_SIDE} needed")
            continue
        yield source.name, luma


def jpeg_table(qf: int) -> np.ndarray:
    """Return the quantisation table that a restorer is given at `qf`, (8, 8) uint8."""
    return jpeg.quantization_table(qf).astype(np.uint8)


def evaluate_each(
    restorers: Sequence[Restorer | None],
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int],
    degradation: Protocol = STANDARD,
) -> list[EvaluationResult]:
    """Return what `evaluate` does for each restorer; every JPEG is made once for all of them."""
    scores = score_images(restorers, images, qfs, degradation)
    return results_of(dataset, degradation, scores)


def score_images(
    restorers: Sequence[Restorer | None],
    images: Iterable[NamedImage],
    qfs: Sequence[int],
    degradation: Protocol = STANDARD,
) -> list[list[ImageScore]]:
    """Return each restorer's scores, of every image at each quality factor; see `evaluate`."""
    check_protocol(degradation)
    qfs = list(dict.fromkeys(qfs))
    if not qfs or not all(1 <= qf <= 100 for qf in qfs):
        raise ValueError(f"QFs {qfs}: choose one or more from 1 to 100")
    scores: list[list[ImageScore]] = [[] for _ in restorers]
    for name, pair in _pairs(images, degradation):
        for qf in qfs:
            compressed, size = jpeg.compress(pair.source, qf)
            for restorer, found in zip(restorers, scores, strict=True):
                if restorer is not None and not found:
                    warm_up = compressed[:WARM_UP_PIXELS, :WARM_UP_PIXELS]
                    restorer(warm_up, jpeg_table(qf))
                found.append(_score(restorer, name, qf, pair.original, compressed, size))
    return scores


def results_of(
    dataset: str, degradation: Protocol, scores: Sequence[Sequence[ImageScore]]
) -> list[EvaluationResult]:
    """Return the result of each restorer. Raises ValueError if no image was scored."""
    if not scores[0]:
        raise ValueError(f"{dataset}: there is no image to evaluate")
    return [
        EvaluationResult(dataset=dataset, degradation=degradation, per_image=tuple(found))
        for found in scores
    ]


def _pairs(images: Iterable[NamedImage], degradation: Protocol) -> Iterator[tuple[str, Pair]]:
    """Yield what each image becomes before it is compressed."""
    for name, luma in images:
        if degradation == "rescaled":
            height, width = rescaled_shape(*luma.shape)
            if min(height, width) < MIN_SIDE:
                log_rejection(name, f"too small: {width}x{height} when rescaled")
                continue
        yield name, before_jpeg(luma, degradation)


def _score(
    restorer: Restorer | None,
    name: str,
    qf: int,
    original: np.ndarray,
    compressed: np.ndarray,
    size: int,
) -> ImageScore:
    restored, seconds = compressed, 0.0
    if restorer is not None:
        start = time.perf_counter()
        restored = restorer(compressed, jpeg_table(qf))
        seconds = time.perf_counter() - start
    return ImageScore(
        image=name,
        qf=qf,
        pixels=original.size,
        metrics={name: one.measure(original, restored) for name, one in METRICS.items()},
        bpp=8 * size / original.size,
        seconds=seconds,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the scores of trained weights beside JPEG's, on a GPU if there is one."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluation", description=main.__doc__)
    parser.add_argument("weights", help="path or URI of a safetensors file")
    parser.add_argument("--dataset", nargs="+", default=["live1", "classic5"])
    parser.add_argument("--root", help="folder that holds LIVE1/, Classic5/, BSDS500/")
    parser.add_argument("--qf", nargs="+", type=int, help="default: those it was trained for")
    parser.add_argument("--precision", choices=get_args(PrecisionChoice), default="float32")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = best_device()
    try:
        precision = choose_precision(options.precision, device)
        origin, network = load_network(options.weights)
        for dataset in options.dataset:
            qfs = options.qf or origin.qfs
            found = score(
                network, dataset, qfs, root=options.root, device=device, precision=precision
            )
            logger.info("%s\n%s", origin.recipe, found)
    except (ValueError, references.DatasetError) as error:
        parser.exit(1, f"{error}\n")
