"""Progress of flow runs: log lines and a Prefect artifact, and the console where there is one."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from threading import Event
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from flows.console import Update, at_most_every, notes, shown, shows_progress

LOG_EVERY_S = 10.0


def say(text: str) -> None:
    """Tell the flow run's log, and the console if there is one, what happened."""
    get_run_logger().info(text)
    if shows_progress():
        notes.print(text, markup=False)


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
