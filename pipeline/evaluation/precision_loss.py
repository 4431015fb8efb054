"""What a network loses by computing in bfloat16: PSNR on images, in both precisions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import get_args

from pipeline.evaluation.protocol import NamedImage, evaluate_each
from pipeline.networks.devices import Precision
from pipeline.networks.export import NetworkExport
from pipeline.networks.restorer import Restorer, network_restorer

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


def program_loss_db(
    export: NetworkExport, images: Iterable[NamedImage], qfs: Sequence[int]
) -> float | None:
    """Return `loss_db` of a program as it is registered; None where it fails in a precision."""
    program = export.program.module()

    def restorer_in(precision: Precision) -> Restorer:
        return network_restorer(program, precision=precision, facts=export.facts)

    try:
        return loss_db(in_both_precisions(restorer_in, images, qfs))
    except ValueError:
        return None
