"""Networks scored beside JPEG, and what the gate compares of their scores."""

from collections.abc import Iterable, Sequence

from flows.planning.named_networks import OpenNetwork
from pipeline.evaluation.protocol import NamedImage, compare, evaluate
from pipeline.evaluation.scores import Comparison, EvaluationResult
from pipeline.images.degrade import Protocol
from storage.registry.gate import COMPARED, GateScores


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
    compared = {name: means[name] for name in COMPARED}
    return GateScores(dataset=result.dataset, qfs=tuple(qfs), **compared)
