"""Flow runs of the command line: each is marked as its process's own, and none stays behind."""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from uuid import UUID

import httpx
from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException
from prefect.states import Crashed

from flows.cli import temporary_server
from flows.cli.stopping import wake_waiting_threads
from storage.tracking.living_processes import is_gone, owner

P = ParamSpec("P")
R = TypeVar("R")

OWNER = "owner:"
"""Begins the tag that says whose run it is."""
UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]

logger = logging.getLogger(__name__)


def run_flow(flow: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """Run a flow for a command, marked as its own, on the command's own server if it has one.

    Before that, runs of commands on this machine that ended without a word are closed.
    """
    wake_waiting_threads()
    temporary_server.wait()
    try:
        with get_client(sync_client=True) as client:
            close_abandoned_runs(client)
    except (httpx.HTTPError, PrefectException) as error:
        logger.warning("runs of commands that were killed are not closed: %s", error)
    with tags(f"{OWNER}{owner()}"):
        return flow(*arguments, **options)


def abandoned_runs(client: SyncPrefectClient) -> list[UUID]:
    """Return the ids of unfinished flow runs whose command on this machine is gone."""
    unfinished = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
    found = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=unfinished))
    return [
        run.id
        for run in found
        if any(is_gone(tag.removeprefix(OWNER)) for tag in run.tags if tag.startswith(OWNER))
    ]


def close_abandoned_runs(client: SyncPrefectClient) -> list[UUID]:
    """Set what `abandoned_runs` returns to Crashed, with their task runs, and return it."""
    abandoned = abandoned_runs(client)
    if not abandoned:
        return []
    ended = Crashed(message="its command was killed")
    running = TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))
    for task_run in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=abandoned)),
        task_run_filter=TaskRunFilter(state=running),
    ):
        client.set_task_run_state(task_run.id, ended, force=True)
    for run_id in abandoned:
        client.set_flow_run_state(run_id, ended, force=True)
    return abandoned
