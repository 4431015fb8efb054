"""Score a network on a Ray cluster, a task an image: what `compare` gives in one process."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event

from torch import nn

from pipeline.cluster import ClusterError, ray_map
from pipeline.datasets.references import SourceImage
from pipeline.evaluation.protocol import (
    load_images,
    log_rejection,
    results_of,
    score_images,
)
from pipeline.evaluation.scores import Comparison, ImageScore
from pipeline.images.degrade import Protocol
from pipeline.networks.code_fingerprint import evaluation_fingerprint
from pipeline.networks.devices import best_device
from pipeline.networks.restorer import network_restorer


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """What a task gives back of one image."""

    jpeg: list[ImageScore]
    restored: list[ImageScore]
    rejected: list[tuple[str, str]]


def compare_on_cluster(
    network: nn.Module,
    sources: Sequence[SourceImage],
    dataset: str,
    qfs: Sequence[int],
    degradation: Protocol,
    *,
    gpus: float = 0,
    on_image: Callable[[int], object] = lambda done: None,
    stop: Event | None = None,
) -> Comparison:
    """Score JPEG itself and the network, in float32, on images that every node can read.

    Each task asks for a core and for `gpus`, 1 or a share of one. `on_image` is told how many
    images are done. Raises what `compare` raises, ClusterError when workers are lost again and
    again or a node would find other scores, and CancelledError once another thread has set `stop`.
    """
    score = partial(_score, network, tuple(qfs), degradation, evaluation_fingerprint())
    scored: dict[int, _Scored] = {}
    for number, found in ray_map(score, list(enumerate(sources)), gpus=gpus, stop=stop):
        scored[number] = found
        for image, reason in found.rejected:
            log_rejection(image, reason)
        on_image(len(scored))
    in_order = [scored[number] for number in range(len(sources))]
    before, after = results_of(
        dataset,
        degradation,
        [
            [score for image in in_order for score in image.jpeg],
            [score for image in in_order for score in image.restored],
        ],
    )
    return Comparison(jpeg=before, restored=after)


def _score(
    network: nn.Module,
    qfs: Sequence[int],
    degradation: Protocol,
    fingerprint: str,
    item: tuple[int, SourceImage],
) -> tuple[int, _Scored]:
    if evaluation_fingerprint() != fingerprint:
        raise ClusterError(
            f"node {socket.gethostname()} has code, a torch or a JPEG library that may give other "
            "scores: install there what the flow's process has"
        )
    number, source = item
    rejected: list[tuple[str, str]] = []
    images = load_images([source], on_reject=lambda *told: rejected.append(told))
    restorer = network_restorer(network, best_device())
    before, after = score_images([None, restorer], images, qfs, degradation)
    return number, _Scored(jpeg=before, restored=after, rejected=rejected)
