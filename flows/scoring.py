"""A network that a user named, scored beside JPEG; what the gate compares of scores."""

from collections.abc import Iterable, Sequence

from flows.networks import OpenNetwork
from pipeline.degrade import Protocol
from pipeline.evaluate import NamedImage, compare, evaluate
from pipeline.scores import Comparison, EvaluationResult
from storage.gate import GateScores


def score_beside_jpeg(
    opened: OpenNetwork,
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int],
    degradation: Protocol,
) -> Comparison | EvaluationResult:
    """Score a network beside JPEG on the same images, or JPEG alone if it is the network."""
    if opened.restorer is None:
        return evaluate(None, images, dataset, qfs, degradation)
    return compare(opened.restorer, images, dataset, qfs, degradation, opened.precision)


def gate_scores(result: EvaluationResult, qfs: Sequence[int]) -> GateScores:
    """Return what the gate compares: the means over the quality factors."""
    means = result.mean_over(qfs)
    return GateScores(
        dataset=result.dataset,
        qfs=tuple(qfs),
        psnr=means["psnr"],
        ssim=means["ssim"],
        psnr_b=means["psnr_b"],
    )
