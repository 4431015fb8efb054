"""Trainings on a real Ray: the same results as without it, whatever happens to its workers."""

import os
import signal
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, Timer

import pytest
import torch
from safetensors.torch import load_file

from pipeline.cluster import ClusterError
from pipeline.training.loop import train
from pipeline.training.ray_train import run_training
from storage.checkpoints import CheckpointError
from tests.support.training_recipes import (
    RECIPE,
    STAGE,
    UNEVEN,
    assert_same_steps,
    make_job,
    make_store,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

WORKERS = ("ray::RayTrainWorker", f"ray::train {RECIPE.name}")
LONGER = replace(RECIPE, stages=(replace(STAGE, steps=400),))
LONG = replace(RECIPE, stages=(replace(STAGE, steps=100_000),))


class Killer:
    """Kills one training worker at the first record from a step on."""

    def __init__(self, step):
        self.step, self.killed = step, False

    def __call__(self, record):
        if record.step >= self.step and not self.killed:
            self.killed = True
            os.kill(own_training_workers()[-1], signal.SIGKILL)


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

    return [pid for pid, name in names.items() if name.startswith(WORKERS) and is_ours(pid)]


def wait_until_no_workers(seconds=20):
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
    seen, kill = [], Killer(step=150)
    job = make_job(store, tmp_path / "on_ray", LONGER, checkpoint_every_s=0.2)
    on_ray = run(job, tmp_path, on_record=lambda record: (seen.append(record), kill(record)))
    assert kill.killed
    assert_same_weights(on_ray, plain)
    assert [record.step for record in seen] == [record.step for record in on_ray.history]
    assert [(r.step, r.loss) for r in seen] == [(r.step, r.loss) for r in plain.history]


def test_two_workers_one_killed_take_the_steps_of_the_plain_loop(store, tmp_path):
    recipe, kill = replace(UNEVEN, stages=(replace(UNEVEN.stages[0], steps=400),)), Killer(step=150)
    plain = train(make_job(store, tmp_path / "plain", recipe, precision="float32"))
    job = make_job(store, tmp_path / "two", recipe, checkpoint_every_s=0.2, precision="float32")
    on_ray = run(job, tmp_path, workers=2, on_record=kill)
    assert kill.killed
    assert_same_steps(on_ray, plain)


def test_trainings_run_side_by_side_and_all_end_when_they_are_told_to(store, tmp_path):
    stop, started = Event(), Barrier(2)

    def stop_when_both_run(record):
        if not stop.is_set():
            started.wait(60)
            assert len(own_training_workers()) == 2
            started.wait(60)
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


def test_workers_that_keep_dying_end_the_training_with_what_to_do(store, tmp_path):
    def kill_all(record):
        for pid in own_training_workers():
            os.kill(pid, signal.SIGKILL)

    job = make_job(store, tmp_path / "out", LONG)
    with pytest.raises(ClusterError, match=r"lost too often.*Run it again to go on"):
        run(job, tmp_path, on_record=kill_all, max_failures=0)


def test_a_run_that_is_cancelled_counts_as_stopped_though_its_workers_die_first(store, tmp_path):
    stop = Event()

    def kill_all(record):
        for pid in own_training_workers():
            os.kill(pid, signal.SIGKILL)
        Timer(1.5, stop.set).start()

    job = make_job(store, tmp_path / "out", LONG)
    with pytest.raises(CancelledError, match="recipe small-qf10: stopped"):
        run(job, tmp_path, on_record=kill_all, max_failures=0, stop=stop)


def test_workers_that_do_not_fit_are_refused_before_anything_starts(store, tmp_path):
    with pytest.raises(ValueError, match="3 workers of 1 threads do not fit"):
        run(make_job(store, tmp_path / "out"), tmp_path, workers=3)
