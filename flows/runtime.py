"""What every flow needs around its body: Ray, MLflow, retries, progress, what to run again."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from shlex import join
from threading import Event
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run
from prefect.utilities.annotations import quote

from flows.console import Update, at_most_every, notes, shown, shows_progress
from flows.settings import settings
from pipeline import cluster
from pipeline.logs import about
from pipeline.prometheus import failures_counted
from pipeline.timings import timed
from storage.leases import held
from storage.shown import reason_of
from storage.tracking.tracker import Tracker

LOG_EVERY_S = 10.0
BEGIN_AGAIN_S = (2, 4, 8, 16, 32)
"""Seconds between the attempts of a task to begin, as Prefect's client waits between its own."""
COMMANDS = {"analyze": ("analyze", "recipes")}  # of flows that have another name there

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def ray_session(*, lazy: bool = False) -> Iterator[None]:
    """Connect to Ray for the length of the block; whatever ends it stops the Ray work it started.

    A `lazy` session leaves a Ray of this machine alone to whatever first needs it to start. Inside
    another session it does nothing.
    """
    if cluster.is_connected():
        yield
        return
    if settings().ray_address is not None or not lazy:
        cluster.connect(settings().ray_address)
    try:
        yield
    finally:
        cluster.disconnect()


@timed("open MLflow")
def open_tracker() -> Tracker:
    """Return the tracker of this process; what it cannot record is kept in the reports' folder."""
    return Tracker(
        settings().mlflow_uri,
        settings().artifact_root,
        keep_in=str(settings().reports / "unrecorded"),
    )


class PatientTask(Task[P, R]):
    """A task that waits for a Prefect server that is away when it begins.

    Prefect asks the server, by a new connection, whether the tags of a run leave room for one more,
    and gives up at once; what it asks later, by a connection that has worked, it asks again itself.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as Prefect's own
        """Run the task and return what it gives."""
        for pause in BEGIN_AGAIN_S:
            try:
                return super().__call__(*arguments, **options)
            except ConcurrencySlotAcquisitionError as error:
                logger.warning("%s begins again in %d s: %s", self.name, pause, reason_of(error))
                time.sleep(pause)
        return super().__call__(*arguments, **options)


def retried_task(
    name: str, *, run_name: str | None = None, whatever: bool = False
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task that is tried twice more where the error may pass; nothing is cached.

    `run_name` is the name of its runs, with the function's parameters in braces. `whatever` tries
    it again after any error.
    """
    return lambda function: PatientTask(
        _observed(name)(function),
        name=name,
        task_run_name=run_name,
        retries=2,
        retry_delay_seconds=5,
        retry_condition_fn=None if whatever else is_transient,
        cache_policy=NO_CACHE,
    )


def unwalked(value: R) -> R:
    """Mark an argument of a task so that Prefect takes it as it is.

    It otherwise looks for futures in all that a collection holds: 11 s for 100,000 images.
    """
    return cast(R, quote(value))  # the task is given the value


@contextmanager
def _observed(name: str) -> Iterator[None]:
    """Count failures of a task, and say of all records which run they are of."""
    run = {"flow_run_name": str(flow_run.name), "task_run_name": str(task_run.name)}
    with failures_counted(name), about(**run):
        yield


def is_transient(task: object, run: object, state: State) -> bool:
    """Tell Prefect whether to retry a failed task: if a network or disk failed, not the input."""
    try:
        state.result()
    except (FileNotFoundError, PermissionError):
        return False
    except OSError:  # ConnectionError and TimeoutError are OSErrors too
        return True
    except Exception:
        return False
    return False


def going_on() -> str:
    """Return the command that does the running flow again, without what would start it anew."""
    words = ["qfactory", *COMMANDS.get(str(flow_run.flow_name), (str(flow_run.flow_name),))]
    for name, value in flow_run.parameters.items():
        if value is None or value is False or name == "fresh":
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return join(words)


def say(text: str) -> None:
    """Tell the flow run's log, and the console if there is one, what happened."""
    get_run_logger().info(text)
    if shows_progress():
        notes.print(text, markup=False)


@contextmanager
def one_at_a_time(what: str, lease: str, stop: Event | None = None) -> Iterator[None]:
    """Hold a lease for the length of the block; say for whom this run waits, if it does."""
    with held(lease, on_wait=lambda who: say(f"{what} waits for {who}"), stop=stop):
        yield


@contextmanager
def progress(title: str, stop: Event | None = None) -> Iterator[Update]:
    """Give an `Update` for one piece of work inside a flow or task run.

    It raises CancelledError once another thread has set `stop`: work that tells how far it is ends
    there.
    """
    artifact = cast(UUID, create_progress_artifact(0.0, description=title))
    logger = get_run_logger()

    def log(done: float, total: float, text: str = "", /) -> None:
        percent = 100.0 * done / max(total, 1e-9)
        logger.info("%s: %.0f %% %s", title, percent, text)
        update_progress_artifact(artifact, percent, description=f"{title}: {text}")

    seldom = at_most_every(LOG_EVERY_S, log)
    with shown(title) as show:

        def update(done: float, total: float, text: str = "", /) -> None:
            if stop is not None and stop.is_set():
                raise CancelledError(f"{title}: stopped")
            show(done, total, text)
            seldom(done, total, text)

        yield update
