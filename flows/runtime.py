"""What every flow needs around its body: Ray, MLflow, retry rules, the command that goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from shlex import join

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.settings import settings
from pipeline import cluster
from pipeline.timings import timed
from storage.tracking.tracker import Tracker

COMMANDS = {"analyze": ("analyze", "recipes")}  # of flows that have another name there


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


def is_transient(task: object, run: object, state: State) -> bool:
    """Tell Prefect whether to retry a failed task: if a network or disk failed, not the input."""
    try:
        state.result()
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
