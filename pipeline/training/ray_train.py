"""A training on Ray: pipeline.training.loop on one or more workers, watched from here.

A Ray task runs Ray Train's trainer, so that cancelling it is the Ctrl-C that Ray Train ends on and
frees its resources after; a mailbox holds what the workers report until the caller fetches it, and
tells them to stop with a checkpoint. One worker is the task itself (Ray Train's local mode), which
spares it six processes. The checkpoints are the loop's own: when workers are lost, new ones are
asked for and go on from the last.
"""

import logging
import pickle
import random
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import LoggingConfig, RunConfig, ScalingConfig

from pipeline.cluster import (
    ClusterError,
    beside_the_driver,
    check_head,
    free_resources,
    is_out_of_reach,
    may_grow,
    nodes,
    resources,
)
from pipeline.logs import tell
from pipeline.prometheus import FAILURES, count
from pipeline.training.capacity import GPU_WORKER_THREADS, Node, Room, room_for
from pipeline.training.job import Record, TrainingJob, TrainingResult
from pipeline.training.ray_worker import Begun, News, fit, made_with
from pipeline.training.start import normalises_batch
from pipeline.training.worker_messages import Mailbox
from storage.checkpoints import checkpoint_steps
from storage.patches.versions import open_store

POLL_S = 0.25
CHECKPOINT_S = 5.0
"""Seconds that workers have for the step they are at and a checkpoint when they are to stop."""
END_S = 2.0
CANCEL_S = 3.0
"""Seconds that `stop` may come after Ray is gone: what cancels a run ends both, in any order."""
WAIT_TOLD_S = 20.0
"""Seconds of waiting after which it is said for what; then whenever they have tripled."""
SILENT_S = 120.0
"""Seconds without a sign of any worker, once they have begun, after which they are lost: Ray Train
waits for ever for a larger group if a node is lost just as it begins."""
ASKING = 16
"""Trainings that ask a cluster at once, if it may grow."""
RESIZE_S = 60.0
"""Seconds at least between looks for more workers; a larger group begins at the last checkpoint."""
MOST_FAILURES = 2
"""Losses of workers in a row, without a new checkpoint between, after which a training goes on."""
LONGEST_PAUSE_S = 60.0
"""Seconds at most, on average, between the loss of workers and the request for new ones."""

logger = logging.getLogger(__name__)


class _LostError(Exception):
    """Workers, nodes or servers failed, not the work; the message is the reason."""


def run_training(
    job: TrainingJob,
    *,
    workers: int,
    min_workers: int | None = None,
    gpus: float = 0,
    accelerator_type: str | None = None,
    device: str | None = None,
    name: str,
    storage: str,
    on_record: Callable[[Record], None] = lambda record: None,
    on_notice: Callable[[str], None] = logger.warning,
    stop: Event | None = None,
) -> TrainingResult:
    """Train on the Ray cluster that this process has joined.

    Each worker asks Ray for its threads and for `gpus`, a share of one if it is the only worker,
    on a node with this type of accelerator; a training that does not fit beside what runs waits in
    Ray's queue, also for nodes that the cluster does not have yet. Without `job.threads` the
    workers get what `room_for` says, which does not depend on what runs. They compute on what they
    are given, or on `device`: `cpu` tries on a machine without GPUs what Ray does with them.

    With `min_workers` it also goes on with fewer, as nodes come and go; the steps are the same (see
    `pipeline.training.loop`). Ray Train reserves them by what nodes have in all, not by what other
    work leaves. A network that normalises its batch waits for all workers.

    `on_record` is called in this thread, once a record, however often workers are lost, and
    `on_notice` with what people would want to know: what is waited for, and what was lost. Lost
    are workers whose process or node died, or that a store or another worker failed; the training
    then goes on from the last checkpoint, unless that happened more than MOST_FAILURES times in
    a row without a new one. What would only fail again ends it at once. `storage` is where Ray
    Train keeps its own files of several workers; every node must reach it, the store and the
    checkpoints.

    An exception in this thread, KeyboardInterrupt included, ends the Ray work, and so does `stop`,
    which any other thread may set; the workers then leave a checkpoint of the step they are at, if
    it takes no more than seconds.

    Raises what `pipeline.training.loop.train` raises, ClusterError when workers are lost too
    often or the cluster's head is, ValueError when the cluster is too small, and CancelledError
    after `stop`.
    """
    stop = stop or Event()
    least = min_workers or workers
    if least < workers and normalises_batch(job.recipe):
        least = workers
        on_notice(
            f"{job.recipe.name} waits for {workers} workers, no fewer: its network normalises the "
            "batch, of which a worker sees its share"
        )
    room = cluster_room(workers, gpus=gpus, accelerator_type=accelerator_type, threads=job.threads)
    job = replace(
        job,
        store=_absolute(job.store),
        version=open_store(job.store, job.version).number,
        validation_store=job.validation_store and _absolute(job.validation_store),
        checkpoints=_absolute(job.checkpoints),
        initial_weights=job.initial_weights and _absolute(job.initial_weights),
        threads=room.threads,
    )
    scaling = ScalingConfig(
        num_workers=workers if least == workers else (least, workers),
        elastic_resize_monitor_interval_s=RESIZE_S,
        use_gpu=gpus > 0,
        resources_per_worker={"CPU": room.threads, **({"GPU": gpus} if gpus else {})},
        accelerator_type=accelerator_type,
    )
    deadline = None if job.stop_after_s is None else time.time() + job.stop_after_s
    told = _once(on_record)
    failures, saved = 0, _saved_step(job, 0)
    while True:
        try:
            run = RunConfig(
                name=f"{name}-{uuid.uuid4().hex[:8]}",
                storage_path=_absolute(storage),
                logging_config=LoggingConfig(log_level="WARNING"),
            )
            return _attempt(job, deadline, device, scaling, run, told, on_notice, stop)
        except _LostError as lost:
            count(FAILURES, 1, {"task": "train", "reason": "workers lost"})
            before, saved = saved, _saved_step(job, saved)
            failures = 1 if saved > before else failures + 1
            if failures <= MOST_FAILURES:
                on_notice(f"{job.recipe.name} goes on from step {saved:,}, after: {lost}")
            pause = min(LONGEST_PAUSE_S, CANCEL_S * 2 ** (failures - 1)) * random.uniform(1, 1.5)
            if stop.wait(pause):
                raise CancelledError(f"recipe {job.recipe.name}: stopped") from lost
            if failures > MOST_FAILURES:
                raise ClusterError(
                    f"recipe {job.recipe.name}: its Ray workers were lost too often without a "
                    f"checkpoint between, lastly by: {lost}. Run it again to go on from the "
                    f"checkpoints in {job.checkpoints}"
                ) from lost


def _attempt(
    job: TrainingJob,
    deadline: float | None,
    device: str | None,
    scaling: ScalingConfig,
    run: RunConfig,
    on_record: Callable[[Record], None],
    on_notice: Callable[[str], None],
    stop: Event,
) -> TrainingResult:
    """Ask for workers and train on them; raise _LostError when they fail, and the work does not."""
    mailbox = cast(ActorHandle, ray.remote(Mailbox).options(**beside_the_driver()).remote())
    settings = {
        "job": job,
        "deadline": deadline,
        "device": device,
        "mailbox": mailbox,
        "node": ray.get_runtime_context().get_node_id(),
        "made_with": made_with(job.recipe.architecture),
    }
    if scaling.max_workers == 1:
        task = ray.remote(fit).options(
            name=f"train {job.recipe.name}",
            num_cpus=job.threads,
            num_gpus=_each(scaling).get("GPU", 0),
            accelerator_type=scaling.accelerator_type,
            max_retries=0,
        )
        fitting = task.remote(settings, ScalingConfig(num_workers=0), None)  # in the task itself
    else:
        task = ray.remote(fit).options(**beside_the_driver(), max_retries=0)
        fitting = task.remote(settings, scaling, run)
    try:
        return _watch(mailbox, fitting, job, scaling, on_record, on_notice, stop)
    except RayError as error:
        lines = str(error).strip().splitlines()
        raise _LostError(lines[-1] if lines else type(error).__name__) from error
    finally:
        _end(fitting, mailbox)
        ray.kill(mailbox)


def _saved_step(job: TrainingJob, known: int) -> int:
    """Return the step of the newest checkpoint; what is known where that cannot be asked now."""
    try:
        return max(checkpoint_steps(job.checkpoints), default=0)
    except OSError:
        return known


def _once(on_record: Callable[[Record], None]) -> Callable[[Record], None]:
    """Return `on_record` for records that are later than all before, as restarts repeat some."""
    step = 0

    def told(record: Record) -> None:
        nonlocal step
        if record.step > step:
            step = record.step
            on_record(record)

    return told


def cluster_room(
    workers: int,
    *,
    gpus: float = 0,
    accelerator_type: str | None = None,
    threads: int | None = None,
) -> Room:
    """Return what `room_for` says of the cluster that this process has joined.

    A cluster that was joined may grow: as many as ASKING trainings ask at once, so that an
    autoscaler sees them, and where there is no room for even one, what was asked for is waited for.
    Raises ValueError where that cannot be: on this machine, or without `threads` for workers on
    CPUs, whose weights depend on them.
    """
    there = [
        Node(cpus=int(has.get("CPU", 0)), gpus=int(has.get("GPU", 0)))
        for has in nodes()
        if accelerator_type is None or f"accelerator_type:{accelerator_type}" in has
    ]
    try:
        room = room_for(there, workers, gpus=gpus, wanted=threads)
    except ValueError as error:
        if not may_grow():
            raise
        if not threads and not gpus:
            raise ValueError(f"{error}; give --threads to wait until nodes have come") from None
        room = Room(threads=threads or GPU_WORKER_THREADS, trainings=1)
    return replace(room, trainings=max(ASKING, room.trainings)) if may_grow() else room


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
        return cast(bool, ray.get(mailbox.stop.remote(), timeout=1))
    except RayError:
        return False


def _watch(
    mailbox: ActorHandle,
    fitting: ray.ObjectRef,
    job: TrainingJob,
    scaling: ScalingConfig,
    on_record: Callable[[Record], None],
    on_notice: Callable[[str], None],
    stop: Event,
) -> TrainingResult:
    """Hand on what the workers report until the training has ended; say what they wait for."""
    asked = time.time()
    begun, step, result, tell_at = 0, 0, None, asked + WAIT_TOLD_S
    while not stop.is_set():
        check_head()
        done = bool(ray.wait([fitting], timeout=POLL_S)[0])
        for news in _taken(mailbox, begun):
            if isinstance(news, TrainingResult):
                result = news
            elif isinstance(news, Begun):
                begun = _begun(news, begun, scaling, job, on_notice)
            else:
                step = news.step
                on_record(news)
        if done and result is not None:
            return result
        if done:
            ray.get(fitting)
            raise _LostError("the workers ended without a result")
        if not begun and time.time() > tell_at:
            tell_at = time.time() + 2 * (time.time() - asked)
            on_notice(f"{job.recipe.name} {_waiting(scaling, asked)}")
    raise CancelledError(f"recipe {job.recipe.name}: stopped at step {step}")


def _begun(
    news: Begun,
    before: int,
    scaling: ScalingConfig,
    job: TrainingJob,
    on_notice: Callable[[str], None],
) -> int:
    """Return how many workers have begun; say it when their number, which may vary, is another."""
    if scaling.elasticity_enabled and news.workers != before:
        on_notice(f"{job.recipe.name} trains on {news.workers} workers")
    return news.workers


def _taken(mailbox: ActorHandle, begun: int) -> Iterator[Begun | Record | TrainingResult]:
    letters, silent_s = ray.get(mailbox.take.remote())
    for letter in letters:
        news: News = pickle.loads(letter)
        if isinstance(news, Exception):
            raise news
        if isinstance(news, logging.LogRecord):
            tell([news])
        else:
            yield news
    if begun and silent_s > SILENT_S:
        raise _LostError(f"no worker gave a sign for {silent_s:.0f} s")


def _each(scaling: ScalingConfig) -> dict[str, float]:
    return cast(dict[str, float], scaling.resources_per_worker)


def _waiting(scaling: ScalingConfig, since: float) -> str:
    """Tell what a training has asked for that has not begun, and what of it the cluster has."""
    each, kind, never = _each(scaling), "", ""
    wanted_node = dict(each)
    if scaling.accelerator_type:
        kind = f" on {scaling.accelerator_type}"
        wanted_node[f"accelerator_type:{scaling.accelerator_type}"] = 0.001  # as Ray asks for it
    if is_out_of_reach(wanted_node):
        never = (
            ": no node type of the cluster has that, so it will not begin. Choose another "
            "accelerator, or add such nodes"
        )
    cluster, free = resources(), free_resources()
    there = ", ".join(f"{free.get(n, 0):g} of {cluster.get(n, 0):g} {n} free" for n in each)
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in each.items())
    least, most = scaling.min_workers, scaling.max_workers
    many = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"has not begun since {time.strftime('%H:%M:%S', time.localtime(since))}: it asks for "
        f"{many} x {wanted}{kind}; in the cluster {there}{never}"
    )


def _absolute(uri: str) -> str:
    """Make a local path absolute: workers have a working directory of their own."""
    return uri if "://" in uri else str(Path(uri).absolute())
