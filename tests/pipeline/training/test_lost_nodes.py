"""Trainings on a cluster whose nodes die and come while they run."""

import os
import queue
import re
import signal
import socket
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline import cluster as connection
from pipeline.training import ray_train, ray_worker
from pipeline.training.job import TrainingError, World
from pipeline.training.loop import train
from pipeline.training.ray_train import cluster_room, run_training
from tests.support.processes import kill_a_training_worker, own_training_workers
from tests.support.training_recipes import (
    RECIPE,
    UNEVEN,
    assert_same_steps,
    make_job,
    make_store,
)

pytestmark = pytest.mark.slow

OF_SECONDS = replace(UNEVEN, stages=(replace(UNEVEN.stages[0], steps=1000),))


@pytest.fixture(scope="module")
def cluster():
    """A Ray of several nodes; its head, where this process is, has no core."""
    connection.disconnect()
    quickly = {"health_check_period_ms": 1000, "health_check_failure_threshold": 8}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quickly}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")  # for a node that is lost then
        made = Cluster(initialize_head=True, head_node_args=head)
    connection.connect(made.address)
    yield made
    connection.disconnect()
    made.shutdown()


@pytest.fixture
def add_node(cluster):
    """Return a function that adds a node of one core; after the test they are all gone."""
    yield lambda **resources: cluster.add_node(**{"num_cpus": 1, **resources})
    for node in [*cluster.worker_nodes]:
        cluster.remove_node(node, allow_graceful=False)


def run(job, folder, **options):
    return run_training(job, name="test", storage=str(folder / "ray"), **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("lost_nodes"))


def nodes_of_workers():
    tables = ray.util.placement_group_table().values()
    created = [table for table in tables if table["state"] == "CREATED"]
    return {node for table in created for node in table["bundles_to_node_id"].values()}


def test_without_nodes_threads_must_be_said_to_wait_for_them(cluster):
    with pytest.raises(ValueError, match="give --threads to wait until nodes have come"):
        cluster_room(1)
    assert cluster_room(2, threads=4).threads == 4
    assert cluster_room(1, gpus=1, accelerator_type="A100").trainings == ray_train.ASKING


def test_two_workers_take_the_steps_of_the_plain_loop_though_one_is_killed_and_nodes_are_lost(
    cluster, add_node, store, tmp_path
):
    nodes = [add_node() for _ in range(3)]
    notices, steps = [], []

    def lose_node(*, used):
        lost = next(n for n in nodes if (n.node_id in nodes_of_workers()) == used)
        nodes.remove(lost)
        if used:
            nodes.append(add_node())
        cluster.remove_node(lost, allow_graceful=False)

    losses = [kill_a_training_worker, partial(lose_node, used=False), partial(lose_node, used=True)]
    waiting = [*zip((150, 300, 450), losses, strict=True)]

    def lose(record):
        steps.append(record.step)
        if waiting and record.step >= waiting[0][0]:
            waiting.pop(0)[1]()

    plain = train(make_job(store, tmp_path / "plain", OF_SECONDS, precision="float32"))
    options = {"checkpoint_every_s": 0.2, "precision": "float32"}
    job = make_job(store, tmp_path / "out", OF_SECONDS, **options)
    result = run(job, tmp_path, workers=2, on_record=lose, on_notice=notices.append)
    assert waiting == []
    assert len([notice for notice in notices if "goes on from step" in notice]) == 2
    assert steps == [record.step for record in result.history]
    assert_same_steps(result, plain)


def test_one_of_two_workers_goes_on_when_a_node_is_lost_and_takes_the_steps_of_the_plain_loop(
    cluster, add_node, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_train, "RESIZE_S", 1.0)
    recipe = replace(UNEVEN, stages=(replace(UNEVEN.stages[0], steps=20_000),))
    nodes, told, seen, stop = [add_node(num_gpus=1) for _ in range(2)], [], [], Event()

    def sizes():
        return [int(found[1]) for found in (re.search(r"trains on (\d)", t) for t in told) if found]

    def lose_a_node(record):
        seen.append(record)
        if len(nodes) == 2 and sizes()[-1] == 2:  # they may have begun before Ray knew both
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        elif len(nodes) == 1 and sizes()[-1] == 1:
            stop.set()

    with pytest.raises(CancelledError):
        run(
            make_job(store, tmp_path / "out", recipe, checkpoint_every_s=0.2),
            tmp_path,
            workers=2,
            min_workers=1,
            gpus=1,
            device="cpu",
            on_record=lose_a_node,
            on_notice=told.append,
            stop=stop,
        )
    assert sizes()[-2:] == [2, 1]
    plain = []

    def until_there(record):
        plain.append(record)
        if len(plain) == len(seen):
            raise CancelledError

    with pytest.raises(CancelledError):
        train(make_job(store, tmp_path / "plain", recipe), on_record=until_there)
    assert [record.step for record in seen] == [record.step for record in plain]
    assert [record.loss for record in seen] == pytest.approx([r.loss for r in plain], rel=1e-4)


def test_workers_that_give_no_sign_are_lost_and_others_go_on(
    add_node, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_train, "SILENT_S", 10.0)
    notices, frozen = [], []
    for _ in range(2):
        add_node()

    def freeze(record):
        if not frozen:
            frozen.extend(own_training_workers())
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)

    job = make_job(store, tmp_path / "out", OF_SECONDS)
    result = run(job, tmp_path, workers=2, on_record=freeze, on_notice=notices.append)
    assert len(frozen) == 2
    assert any("no worker gave a sign" in notice for notice in notices)
    assert result.steps == OF_SECONDS.steps


def test_four_small_trainings_share_a_gpu_and_a_fifth_says_that_it_waits_for_it(
    add_node, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_train, "WAIT_TOLD_S", 0.5)
    add_node(num_cpus=5, num_gpus=1)
    notices, begun = queue.Queue(), queue.Queue()
    stops = {name: Event() for name in "abcde"}

    def training(name):
        def tell(record):
            if not stops[name].is_set():
                begun.put(name)
                stops[name].wait()

        with pytest.raises(CancelledError):
            run(
                make_job(store, tmp_path / name / "out", OF_SECONDS),
                tmp_path / name,
                workers=1,
                gpus=0.25,
                device="cpu",
                on_record=tell,
                on_notice=lambda notice: notices.put((name, notice)),
                stop=stops[name],
            )

    with ThreadPoolExecutor(5) as threads:
        trainings = threads.map(training, stops)
        try:
            at_once = {begun.get(timeout=300) for _ in range(4)}
            (waiting,) = {*stops} - at_once
            while (told := notices.get(timeout=300)) and told[0] != waiting:
                pass
            asked = "asks for 1 x 1 CPU and 0.25 GPU; in the cluster 1 of 5 CPU free, 0 of 1"
            assert asked in told[1]
            assert begun.empty()
            stops[at_once.pop()].set()
            assert begun.get(timeout=300) == waiting
        finally:
            for stop in stops.values():
                stop.set()
        list(trainings)


def test_a_node_with_other_versions_is_refused_by_its_name(store, tmp_path):
    job = make_job(store, tmp_path)
    wanted = ray_worker.made_with(RECIPE.architecture)
    ray_worker.check_node(job, wanted)
    told = rf"node {socket.gethostname()} has torch .* instead of 1\.0, which may give other"
    with pytest.raises(TrainingError, match=told):
        ray_worker.check_node(job, {**wanted, "torch": "1.0"})


@pytest.mark.parametrize(
    ("error", "alone", "of_two"),
    [
        (ConnectionError("S3 is away"), True, True),
        (FileNotFoundError("weights"), False, False),
        (PermissionError("store"), False, False),
        (TrainingError("diverged"), False, False),
        (TypeError("a mistake"), False, False),
        (RuntimeError("Connection closed by peer"), False, True),
    ],
)
def test_what_other_workers_may_do_better_is_told_from_what_fails_again(error, alone, of_two):
    found = [ray_worker.may_pass(error, World(size=size)) for size in (1, 2)]
    assert found == [alone, of_two]
