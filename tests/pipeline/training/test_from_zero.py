"""What a cluster without a single node does when a build and trainings ask for theirs."""

import re
import socket
from concurrent.futures import CancelledError
from threading import Event

import pytest
import torch

from pipeline import cluster as connection
from pipeline.training import ray_train
from pipeline.training.job import TrainingError
from pipeline.training.ray_train import run_training
from tests.support.autoscaled_ray import autoscaled_ray
from tests.support.store_images import build, image_folder
from tests.support.training_recipes import make_job

pytestmark = pytest.mark.slow


@pytest.fixture
def no_nodes(tmp_path):
    connection.disconnect()
    with autoscaled_ray(tmp_path) as address:
        connection.connect(address)
        yield
        connection.disconnect()


def test_a_build_and_a_training_get_their_nodes_and_what_no_node_type_offers_is_named(
    no_nodes, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_train, "WAIT_TOLD_S", 1.0)
    assert ["CPU" in node for node in connection.nodes()] == [False]
    photos = image_folder(tmp_path / "photos")
    store = build(photos, tmp_path / "store", parallel=connection.ray_map).version
    notices, stop = [], Event()
    job = make_job(store, tmp_path / "out")
    options = {"workers": 1, "name": "test", "storage": str(tmp_path / "ray")}
    if not torch.cuda.is_available():
        with pytest.raises(
            TrainingError, match=f"node {socket.gethostname()} has a GPU for Ray that"
        ):
            run_training(job, gpus=1, on_notice=notices.append, **options)
    trained = run_training(job, gpus=1, device="cpu", on_notice=notices.append, **options)
    assert trained.finished
    assert "has not begun" in notices[0]
    assert "no node type" not in notices[0]

    def stop_when_named(notice):
        if "no node type" in notice:
            notices.append(notice)
            stop.set()

    job = make_job(store, tmp_path / "other")
    wanted = {"gpus": 1, "accelerator_type": "A100", "stop": stop, "on_notice": stop_when_named}
    with pytest.raises(CancelledError):
        run_training(job, **wanted, **options)
    assert re.search(
        r"on A100; .*: no node type of the cluster has that, so it will not begin", notices[-1]
    )
