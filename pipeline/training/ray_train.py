"""A training on Ray: pipeline.training.loop on one or more workers, watched from here.

A Ray task runs Ray Train's trainer, so that cancelling it is the Ctrl-C that Ray Train ends on and
frees its resources after; a mailbox holds what the workers report until the caller fetches it, and
tells them to stop with a checkpoint. One worker is the task itself (Ray Train's local mode), which
spares it six processes; Ray runs it anew when it dies, as Ray Train does with one of several. The
checkpoints are the loop's own.
"""

import pickle
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import ray
import ray.train
import ray.train.torch
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster import connect
from pipeline.training.capacity import Node, Room, room_for
from pipeline.training.job import Record, TrainingError, TrainingJob, TrainingResult, World
from pipeline.training.loop import train
from pipeline.training.worker_messages import Mailbox
from storage.checkpoints import CheckpointError
from storage.files import StoreError
from storage.patches.versions import open_store

POLL_S = 0.25
CHECKPOINT_S = 5.0
"""Seconds that workers have for the step they are at and a checkpoint when they are to stop."""
END_S = 2.0
CANCEL_S = 3.0
"""Seconds that `stop` may come after Ray is gone: what cancels a run ends both, in any order."""
FINAL_ERRORS = (StoreError, CheckpointError, TrainingError, ValueError)  # a retry would not help


News = Record | TrainingResult | Exception
"""What workers report: a step, what the training gave, or why it would fail again."""


def run_training(
    job: TrainingJob,
    *,
    workers: int,
    use_gpu: bool,
    name: str,
    storage: str,
    on_record: Callable[[Record], None] = lambda record: None,
    max_failures: int = 2,
    stop: Event | None = None,
) -> TrainingResult:
    """Train on the Ray cluster that this process has joined; one GPU a worker with `use_gpu`.

    `on_record` is called in this thread, once a record, however often workers die and go on from
    the last checkpoint; after more than `max_failures` failures the training fails. `storage` is
    where Ray Train keeps its own files of several workers; every node must reach it, the store and
    the checkpoints.
    Each worker asks Ray for its threads and its GPU; a training that does not fit beside what runs
    waits in Ray's queue. Without `job.threads` the workers get what `room_for` says, which does
    not depend on what runs. An exception in this thread, KeyboardInterrupt included, ends the Ray
    work, and so does `stop`, which any other thread may set; the workers then leave a checkpoint of
    the step they are at, if it takes no more than seconds.

    Raises what `pipeline.training.loop.train` raises, TrainingError when the workers keep failing,
    ValueError when the cluster is too small, and CancelledError after `stop`.
    """
    stop = stop or Event()
    threads = cluster_room(workers, use_gpu=use_gpu, threads=job.threads).threads
    job = replace(
        job,
        store=_absolute(job.store),
        version=open_store(job.store, job.version).number,
        validation_store=job.validation_store and _absolute(job.validation_store),
        checkpoints=_absolute(job.checkpoints),
        initial_weights=job.initial_weights and _absolute(job.initial_weights),
        threads=threads,
    )
    deadline = None if job.stop_after_s is None else time.time() + job.stop_after_s
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    beside = {"num_cpus": 0, "scheduling_strategy": here}  # the death of another node ends nothing
    mailbox = cast(ActorHandle, ray.remote(Mailbox).options(**beside).remote())
    settings = {"job": job, "deadline": deadline, "mailbox": mailbox}
    if workers == 1:
        fitting = _alone(settings, use_gpu=use_gpu, max_failures=max_failures)
    else:
        scaling = ScalingConfig(
            num_workers=workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": threads, **({"GPU": 1} if use_gpu else {})},
        )
        run = RunConfig(
            name=f"{name}-{uuid.uuid4().hex[:8]}",
            storage_path=_absolute(storage),
            failure_config=FailureConfig(max_failures=max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),
        )
        task = ray.remote(_fit).options(**beside, max_retries=0)
        fitting = task.remote(settings, scaling, run)
    try:
        return _watch(mailbox, fitting, job, on_record, stop)
    except RayError as error:
        if stop.wait(CANCEL_S):
            raise CancelledError(f"recipe {job.recipe.name}: stopped, and Ray with it") from error
        raise _failed(job, error) from error
    finally:
        _end(fitting, mailbox)
        ray.kill(mailbox)


def cluster_room(workers: int, *, use_gpu: bool, threads: int | None = None) -> Room:
    """Return what `room_for` says of the cluster that this process has joined."""
    connect(None)
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [Node(cpus=int(n.get("CPU", 0)), gpus=int(n.get("GPU", 0))) for n in alive]
    return room_for(nodes, workers, use_gpu=use_gpu, wanted=threads)


def _alone(settings: dict[str, Any], *, use_gpu: bool, max_failures: int) -> ray.ObjectRef:
    """Start a task that is the only worker itself, by Ray Train's local mode."""
    job = settings["job"]
    task = ray.remote(_fit).options(
        name=f"train {job.recipe.name}",
        num_cpus=job.threads,
        num_gpus=int(use_gpu),
        max_retries=max_failures,
        retry_exceptions=True,
    )
    return task.remote(settings, ScalingConfig(num_workers=0), None)


def _fit(settings: dict[str, Any], scaling: ScalingConfig, run: RunConfig | None) -> None:
    ray.train.torch.TorchTrainer(
        _train_on_worker, train_loop_config=settings, scaling_config=scaling, run_config=run
    ).fit()


def _end(fitting: ray.ObjectRef, mailbox: ActorHandle) -> None:
    """Make a training leave that still runs: with a checkpoint, else without, else by force."""
    if _has_left(fitting, 0) or (_tell(mailbox) and _has_left(fitting, CHECKPOINT_S)):
        return
    ray.cancel(fitting)
    if not _has_left(fitting, END_S):
        ray.cancel(fitting, force=True)


def _has_left(fitting: ray.ObjectRef, seconds: float) -> bool:
    return bool(ray.wait([fitting], timeout=seconds)[0])


def _tell(mailbox: ActorHandle) -> bool:
    """Tell the workers to stop; return whether any of them listens yet."""
    try:
        return cast(int, ray.get(mailbox.stop.remote(), timeout=1)) > 0
    except RayError:
        return False


def _train_on_worker(settings: dict[str, Any]) -> None:
    job, deadline, mailbox = settings["job"], settings["deadline"], settings["mailbox"]
    if deadline is not None:
        job = replace(job, stop_after_s=max(0.0, deadline - time.time()))
    context = ray.train.get_context()
    world = World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
    )

    def report(news: News) -> ray.ObjectRef:
        return mailbox.put.remote(pickle.dumps(news))

    def report_step(record: Record) -> None:
        report(record)

    try:
        result = train(job, world=world, on_record=report_step, stop=_stop_from(mailbox))
    except FINAL_ERRORS as error:
        ray.get(report(error))
        if world.size > 1:
            raise  # which ends the others; one alone would be tried again
        return
    if world.rank == 0:
        ray.get(report(result))


def _stop_from(mailbox: ActorHandle) -> Event:
    """Return an event that is set once the mailbox says so."""
    stop = Event()

    def listen() -> None:
        with suppress(RayError):  # the mailbox is gone
            ray.get(mailbox.wait_for_stop.remote())
            stop.set()

    Thread(target=listen, daemon=True).start()
    return stop


def _watch(
    mailbox: ActorHandle,
    fitting: ray.ObjectRef,
    job: TrainingJob,
    on_record: Callable[[Record], None],
    stop: Event,
) -> TrainingResult:
    """Hand records on until the training has ended; those that a restart repeats only once."""
    step, result = 0, None
    while not stop.is_set():
        done = bool(ray.wait([fitting], timeout=POLL_S)[0])
        for letter in ray.get(mailbox.take.remote()):
            news: News = pickle.loads(letter)
            if isinstance(news, Exception):
                raise news
            if isinstance(news, TrainingResult):
                result = news
            elif news.step > step:
                step = news.step
                on_record(news)
        if done and result is not None:
            return result
        if done:
            ray.get(fitting)
            raise _failed(job, RuntimeError("the workers ended without a result"))
    raise CancelledError(f"recipe {job.recipe.name}: stopped at step {step}")


def _failed(job: TrainingJob, error: Exception) -> TrainingError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return TrainingError(
        f"recipe {job.recipe.name}: its Ray workers failed too often, lastly with: {reason}. "
        f"Run it again to go on from the checkpoints in {job.checkpoints}"
    )


def _absolute(uri: str) -> str:
    """Make a local path absolute: workers have a working directory of their own."""
    return uri if "://" in uri else str(Path(uri).absolute())
