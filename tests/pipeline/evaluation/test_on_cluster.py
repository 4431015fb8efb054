"""Scores by tasks of a real Ray are those of one process."""

import socket
from concurrent.futures import CancelledError
from dataclasses import replace
from threading import Event

import pytest
from torch import nn

from pipeline.cluster import ClusterError
from pipeline.datasets.references import list_images
from pipeline.evaluation import on_cluster
from pipeline.evaluation.on_cluster import compare_on_cluster
from pipeline.evaluation.protocol import compare, load_images
from pipeline.evaluation.scores import Comparison
from pipeline.networks.restorer import network_restorer
from tests.support.small_networks import awake

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def sources():
    return list_images("sample", root=None, purpose="evaluate")


def untimed(found: Comparison) -> Comparison:
    images = tuple(replace(score, seconds=0.0) for score in found.restored.per_image)
    return replace(found, restored=replace(found.restored, per_image=images))


def test_tasks_give_the_scores_of_one_process_bit_for_bit_in_the_order_of_the_images(sources):
    network, done = awake("quickres"), []
    found = compare_on_cluster(network, sources, "sample", [10, 40], "image", on_image=done.append)
    alone = compare(network_restorer(network), load_images(sources), "sample", [10, 40])
    assert untimed(found) == untimed(alone)
    assert done == [1, 2, 3]


def test_what_a_network_does_wrong_is_told_as_in_one_process(sources):
    with pytest.raises(ValueError, match="a restoration network keeps the shape of its input"):
        compare_on_cluster(nn.AvgPool2d(2), sources, "sample", [10], "image")


def test_a_node_whose_scores_may_be_others_is_refused_by_its_name(sources, monkeypatch):
    monkeypatch.setattr(on_cluster, "evaluation_fingerprint", lambda: "of other libraries")
    with pytest.raises(ClusterError, match=f"node {socket.gethostname()} has code, a torch or a"):
        compare_on_cluster(nn.Identity(), sources, "sample", [10], "image")


def test_scoring_that_waits_for_a_gpu_ends_when_it_is_told_to(sources):
    stop = Event()
    stop.set()
    with pytest.raises(CancelledError):
        compare_on_cluster(nn.Identity(), sources, "sample", [10], "image", gpus=0.5, stop=stop)
