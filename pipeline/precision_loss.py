"""What a network loses by computing in bfloat16: PSNR on images, in both precisions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import get_args

from pipeline.evaluate import NamedImage, evaluate_each
from pipeline.export import NetworkExport
from pipeline.precision import Precision
from pipeline.scores import EvaluationResult
from pipeline.tiles import Restorer, network_restorer

MIDDLE = 256
"""Side in pixels of what is taken of an image where a few tell enough."""

Scores = Mapping[Precision, EvaluationResult]


def in_both_precisions(
    restorer_in: Callable[[Precision], Restorer],
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int],
) -> Scores:
    """Score a network in float32 and in bfloat16 on the same images.

    `restorer_in` returns its restorer for a precision. Raises ValueError where the network does not
    compute in bfloat16, or gives values that are not finite.
    """
    precisions: tuple[Precision, ...] = get_args(Precision)
    restorers = [restorer_in(precision) for precision in precisions]
    return dict(zip(precisions, evaluate_each(restorers, images, dataset, qfs), strict=True))


def loss_db(scores: Scores) -> float:
    """Return the most PSNR that bfloat16 loses at one of the quality factors; below 0: a gain."""
    exact, rounded = scores["float32"].rows, scores["bfloat16"].rows
    pairs = zip(exact, rounded, strict=True)
    return max(before.metrics["psnr"] - after.metrics["psnr"] for before, after in pairs)


def middles(images: Iterable[NamedImage], side: int = MIDDLE) -> Iterator[NamedImage]:
    """Yield the middle of every image, at most `side` pixels high and wide."""
    for name, luma in images:
        top, left = (max(0, (length - side) // 2) for length in luma.shape)
        yield name, luma[top : top + side, left : left + side]


def program_loss_db(
    export: NetworkExport, images: Iterable[NamedImage], dataset: str, qfs: Sequence[int]
) -> float | None:
    """Return `loss_db` of a program as it is registered; None where it fails in a precision."""
    program, facts = export.program.module(), export.facts

    def restorer_in(precision: Precision) -> Restorer:
        return network_restorer(
            program,
            precision=precision,
            receptive_field=facts.receptive_field,
            multiple=facts.multiple,
            takes_table=facts.needs_table,
        )

    try:
        return loss_db(in_both_precisions(restorer_in, images, dataset, qfs))
    except ValueError:
        return None
