"""What every flow needs around its body: a Ray connection that ends with it, and retry rules."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.schemas.objects import State

from flows.settings import settings
from pipeline import cluster
from storage.tracking import Tracker


@contextmanager
def ray_session() -> Iterator[None]:
    """Connect to Ray for the length of the block; whatever ends it stops the Ray work it started.

    Inside another session it does nothing.
    """
    if cluster.is_connected():
        yield
        return
    cluster.connect(settings().ray_address)
    try:
        yield
    finally:
        cluster.disconnect()


def open_tracker() -> Tracker:
    """Return the tracker of this process; what it cannot record is kept in the reports' folder."""
    return Tracker(
        settings().mlflow_uri,
        settings().artifact_root,
        keep_in=str(settings().reports / "unrecorded"),
    )


def is_transient(task: object, run: object, state: State) -> bool:
    """Tell Prefect whether to retry a failed task: if a network or disk failed, not the input."""
    try:
        state.result()
    except OSError:  # ConnectionError and TimeoutError are OSErrors too
        return True
    except Exception:
        return False
    return False
