"""Networks scored beside JPEG, trained ones only once; what the gate compares of scores."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress

from flows.planning.named_networks import OpenNetwork
from pipeline.datasets.references import SourceImage
from pipeline.datasets.sources import scan_images
from pipeline.evaluation.protocol import NamedImage, compare, evaluate
from pipeline.evaluation.scores import Comparison, EvaluationResult, from_json, to_json
from pipeline.images.degrade import Protocol, protocol_of
from pipeline.networks.code_fingerprint import code_fingerprint, evaluation_fingerprint
from pipeline.recipes import Recipe
from storage import files
from storage.files import StoreError
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


def scores_file(weights: str, recipe: Recipe, dataset: str, sources: Sequence[SourceImage]) -> str:
    """Return the URI, beside the weights, where a recipe's scores on a set's images are kept.

    It is another one for other weights or images, another protocol, and other code.
    """
    images = [(image.name, image.sha256 or image.reason) for image in scan_images(sources)]
    decisive = [
        dataset,
        files.sha256_of(weights),
        code_fingerprint(recipe.architecture),
        evaluation_fingerprint(),
        protocol_of(recipe.patches.degradation),
        recipe.evaluation_qfs,
        images,
    ]
    digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    return f"{weights.rpartition('/')[0]}/scores-{digest[:16]}.json"


def kept_scores(file: str) -> Comparison | None:
    """Return the scores of a file; None if there is none that can be read."""
    try:
        return from_json(files.read_bytes(file))
    except (OSError, ValueError):
        return None


def keep_scores(file: str, comparison: Comparison) -> None:
    """Write what `kept_scores` reads; where that cannot be, the next study scores again."""
    with suppress(OSError, StoreError):
        files.write_bytes(file, to_json(comparison))
