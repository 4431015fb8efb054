"""What a network loses by computing in bfloat16: PSNR on images, in both precisions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import torch

from pipeline.evaluation.protocol import NamedImage, evaluate_each
from pipeline.networks.devices import Precision, choose_precision
from pipeline.networks.export import NetworkExport
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.served.good_jpegs import GOOD_QF

MIDDLE = 256
"""Side in pixels of what is taken of an image where a few tell enough."""

Scores = Mapping[Precision, Mapping[int, float]]
"""The mean PSNR over the images, dB, by the quality factor."""


def in_both_precisions(
    restorer_in: Callable[[Precision], Restorer], images: Iterable[NamedImage], qfs: Sequence[int]
) -> Scores:
    """Score a network in float32 and in bfloat16 on the same images.

    `restorer_in` returns its restorer for a precision. Raises ValueError for no images, and where
    the network does not compute in bfloat16 or gives values that are not finite.
    """
    precisions: tuple[Precision, ...] = get_args(Precision)
    restorers = [restorer_in(precision) for precision in precisions]
    results = evaluate_each(restorers, images, "the precisions", qfs)
    return {
        precision: {row.qf: row.metrics["psnr"] for row in result.rows}
        for precision, result in zip(precisions, results, strict=True)
    }


def loss_db(scores: Scores) -> float:
    """Return the most PSNR that bfloat16 loses at one of the quality factors; below 0: a gain."""
    return max(scores["float32"][qf] - after for qf, after in scores["bfloat16"].items())


def middles(images: Iterable[NamedImage], side: int = MIDDLE) -> Iterator[NamedImage]:
    """Yield the middle of every image, at most `side` pixels high and wide."""
    for name, luma in images:
        top, left = (max(0, (length - side) // 2) for length in luma.shape)
        yield name, luma[top : top + side, left : left + side]


def with_loss(
    export: NetworkExport, images: Iterable[NamedImage], qfs: Sequence[int]
) -> NetworkExport:
    """Measure what a program loses by bfloat16, if this processor computes in it.

    On the middles of the images, at the lowest and the highest of the network's quality factors
    that photographs are restored at. Of a program that fails in a precision nothing is told.
    """
    if choose_precision("auto", torch.device("cpu")) == "float32":
        return export
    used = [qf for qf in sorted(qfs) if qf <= GOOD_QF] or qfs
    program = export.program.module()

    def restorer_in(precision: Precision) -> Restorer:
        return network_restorer(program, precision=precision, facts=export.facts)

    try:
        scores = in_both_precisions(restorer_in, middles(images), sorted({used[0], used[-1]}))
    except ValueError:
        return export
    return replace(export, facts=replace(export.facts, bfloat16_loss_db=loss_db(scores)))
