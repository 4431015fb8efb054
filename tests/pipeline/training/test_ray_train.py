"""Trainings on a real Ray: the same results as without it, whatever happens to its workers."""

import os
import signal
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event, Timer

import pytest
import torch
from safetensors.torch import load_file

from pipeline.cluster import ClusterError
from pipeline.training import ray_train
from pipeline.training.loop import train
from pipeline.training.ray_train import run_training
from storage.checkpoints import CheckpointError
from tests.support.processes import kill_a_training_worker, own_training_workers
from tests.support.training_recipes import RECIPE, STAGE, make_job, make_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

LONGER = replace(RECIPE, stages=(replace(STAGE, steps=400),))
LONG = replace(RECIPE, stages=(replace(STAGE, steps=100_000),))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("train_job"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(job, tmp_path, workers=1, **options):
    return run_training(job, workers=workers, name="test", storage=str(tmp_path / "ray"), **options)


def wait_until_no_workers(seconds=100):
    end = time.monotonic() + seconds
    while own_training_workers() and time.monotonic() < end:
        time.sleep(0.1)
    return own_training_workers() == []


def assert_same_weights(one, other):
    ours, theirs = load_file(one.weights), load_file(other.weights)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_one_worker_gives_the_weights_of_the_plain_loop_bit_for_bit_though_it_was_killed(
    store, tmp_path
):
    plain = train(make_job(store, tmp_path / "plain", LONGER))
    seen, killed = [], []

    def kill_once(record):
        seen.append(record)
        if record.step >= 150 and not killed:
            killed.append(kill_a_training_worker())

    job = make_job(store, tmp_path / "on_ray", LONGER, checkpoint_every_s=0.2)
    on_ray = run(job, tmp_path, on_record=kill_once)
    assert killed
    assert_same_weights(on_ray, plain)
    assert [record.step for record in seen] == [record.step for record in on_ray.history]
    assert [(r.step, r.loss) for r in seen] == [(r.step, r.loss) for r in plain.history]


def test_trainings_run_side_by_side_and_all_end_when_they_are_told_to(store, tmp_path):
    stop, started = Event(), Barrier(2)

    def stop_when_both_run(record):
        if not stop.is_set():
            started.wait(300)
            assert len(own_training_workers()) == 2
            started.wait(300)
            stop.set()

    def training(name):
        job = make_job(store, tmp_path / name, LONG)
        with pytest.raises(CancelledError, match="stopped at step"):
            run(job, tmp_path, on_record=stop_when_both_run, stop=stop)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(training, ("one", "other")))
    assert wait_until_no_workers()


def test_an_error_that_a_retry_would_not_change_arrives_as_itself_at_once(store, tmp_path):
    train(make_job(store, tmp_path / "out"))
    other = make_job(store, tmp_path / "out", replace(RECIPE, name="other-qf10"))
    with pytest.raises(CheckpointError, match="of another training"):
        run(other, tmp_path)
    assert wait_until_no_workers()


def test_workers_that_keep_dying_end_the_training_with_what_to_do(store, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_train, "MOST_FAILURES", 0)

    def kill_all(record):
        for pid in own_training_workers():
            os.kill(pid, signal.SIGKILL)

    job = make_job(store, tmp_path / "out", LONG)
    with pytest.raises(ClusterError, match=r"lost too often.*Run it again to go on"):
        run(job, tmp_path, on_record=kill_all)


def test_a_run_that_is_cancelled_counts_as_stopped_though_its_workers_die_first(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_train, "MOST_FAILURES", 0)
    stop = Event()

    def kill_all(record):
        for pid in own_training_workers():
            os.kill(pid, signal.SIGKILL)
        Timer(1.5, stop.set).start()

    job = make_job(store, tmp_path / "out", LONG)
    with pytest.raises(CancelledError, match="recipe small-qf10: stopped"):
        run(job, tmp_path, on_record=kill_all, stop=stop)


def test_workers_that_do_not_fit_are_refused_before_anything_starts(store, tmp_path):
    with pytest.raises(ValueError, match="3 workers of 1 threads do not fit"):
        run(make_job(store, tmp_path / "out"), tmp_path, workers=3)
