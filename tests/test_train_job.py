"""Trainings on a real Ray: the same results as without it, whatever happens to its workers."""

import os
import signal
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.losses import LOSSES
from pipeline import cluster
from pipeline.loader import PatchLoader
from pipeline.optimization import learning_rate, make_optimizer, set_learning_rate
from pipeline.train_job import run_training, threads_a_worker
from pipeline.training import train
from pipeline.training_job import TrainingError
from pipeline.training_start import initial_network
from storage.checkpoints import CheckpointError
from tests.training_recipes import RECIPE, STAGE, make_job, make_store

WORKER = "ray::RayTrainWorker"
LONG = replace(RECIPE, stages=(replace(STAGE, steps=3000),))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("train_job"))


@pytest.fixture(scope="module", autouse=True)
def ray_cluster():
    cluster.connect(None, cpus=2)
    yield
    cluster.disconnect()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(job, tmp_path, workers=1, **options):
    return run_training(
        job, workers=workers, use_gpu=False, name="test", storage=str(tmp_path / "ray"), **options
    )


def own_training_workers():
    """Process ids of the Ray Train workers among the descendants of this process."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                names[int(folder.name)] = (folder / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_ours(pid):
        while pid in parents:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False

    return [pid for pid, name in names.items() if name.startswith(WORKER) and is_ours(pid)]


def wait_until_no_workers(seconds=20):
    end = time.monotonic() + seconds
    while own_training_workers() and time.monotonic() < end:
        time.sleep(0.1)
    return own_training_workers() == []


def assert_same_weights(one, other):
    ours, theirs = load_file(one.weights), load_file(other.weights)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_one_worker_gives_the_weights_of_the_plain_loop_bit_for_bit(store, tmp_path):
    plain = train(make_job(store, tmp_path / "plain"))
    seen = []
    on_ray = run(make_job(store, tmp_path / "on_ray"), tmp_path, on_record=seen.append)
    assert_same_weights(on_ray, plain)
    assert seen == list(on_ray.history)
    assert [(r.step, r.loss) for r in seen] == [(r.step, r.loss) for r in plain.history]


@pytest.mark.slow
def test_two_workers_take_the_steps_of_one_with_both_their_batches(store, tmp_path):
    stage = replace(STAGE, augment=False, optimizer="sgd", lr=0.1)
    job = make_job(store, tmp_path / "two", replace(RECIPE, stages=(stage,)))
    trained = load_file(run(job, tmp_path, workers=2).weights)
    network = initial_network(job).train()
    optimizer = make_optimizer(stage, network)
    ranks = [PatchLoader(store, 10, 4, rank=rank, world=2, seed=(0, 0)) for rank in (0, 1)]
    for step, parts in enumerate(islice(zip(*(r.batches() for r in ranks), strict=True), 40)):
        original, degraded = (
            torch.cat([getattr(part, name) for part in parts])[:, None].float() / 255
            for name in ("original", "degraded")
        )
        set_learning_rate(optimizer, learning_rate(stage, step))
        optimizer.zero_grad()
        LOSSES[stage.loss](network(degraded), original).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_and_the_weights_are_those_of_an_undisturbed_run(
    store, tmp_path, workers
):
    recipe = replace(RECIPE, stages=(replace(STAGE, steps=400),))
    whole = run(make_job(store, tmp_path / "whole", recipe), tmp_path, workers)
    killed, steps = [], []

    def kill_one_at_step_150(record):
        steps.append(record.step)
        if record.step >= 150 and not killed:
            killed.append(own_training_workers()[-1])
            os.kill(killed[0], signal.SIGKILL)

    job = make_job(store, tmp_path / "broken", recipe, checkpoint_every_s=0.2)
    broken = run(job, tmp_path, workers, on_record=kill_one_at_step_150)
    assert killed
    assert steps == [record.step for record in whole.history]
    assert [r.loss for r in broken.history] == [r.loss for r in whole.history]
    assert_same_weights(broken, whole)


@pytest.mark.slow
def test_an_interrupt_in_the_driver_ends_the_workers(store, tmp_path):
    running = []

    def interrupt(record):
        running.extend(own_training_workers())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_job(store, tmp_path / "out", LONG), tmp_path, on_record=interrupt)
    assert running
    assert wait_until_no_workers()


@pytest.mark.slow
def test_an_error_that_a_retry_would_not_change_arrives_as_itself_at_once(store, tmp_path):
    train(make_job(store, tmp_path / "out"))
    other = make_job(store, tmp_path / "out", replace(RECIPE, name="other-qf10"))
    with pytest.raises(CheckpointError, match="of another training"):
        run(other, tmp_path)
    assert wait_until_no_workers()


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_training_with_what_to_do(store, tmp_path):
    def kill_all(record):
        for pid in own_training_workers():
            os.kill(pid, signal.SIGKILL)

    job = make_job(store, tmp_path / "out", LONG)
    with pytest.raises(TrainingError, match=r"failed too often.*Run it again to go on"):
        run(job, tmp_path, on_record=kill_all, max_failures=0)


def test_workers_that_do_not_fit_are_refused_before_anything_starts(store, tmp_path):
    with pytest.raises(ValueError, match="3 workers of 1 threads do not fit"):
        run(make_job(store, tmp_path / "out"), tmp_path, workers=3)


def test_workers_share_the_cores_of_the_nodes():
    assert threads_a_worker([2], 1) == 2
    assert threads_a_worker([2], 2) == 1
    assert threads_a_worker([16, 16], 3) == 8
    assert threads_a_worker([16, 4], 2) == 8
    assert threads_a_worker([4], 1, wanted=2) == 2
    with pytest.raises(ValueError, match="choose fewer workers"):
        threads_a_worker([2, 2], 5)
