"""Ray as the pipeline uses it: connect once, map a function over items, stop what was started."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.exceptions import RayError, RayTaskError
from ray.util import metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import prometheus
from pipeline.logs import tell, warnings_sent_to
from pipeline.timings import timed

T = TypeVar("T")
R = TypeVar("R")

ITEM_LENGTH = 600
ANSWER_S = 5.0
"""Seconds that the cluster has to tell its state."""
STOP_S = 0.5
"""Seconds between looks for a stop."""
_connecting = threading.Lock()
_joined = False


class ClusterError(Exception):
    """The cluster cannot do a piece of work; the message names it."""


def connect(address: str | None, *, cpus: int | None = None) -> None:
    """Join the Ray cluster at `address`, or start a local one of `cpus` cores; once a process.

    What needs a cluster starts a local one where this was not called. Raises ConnectionError that
    names the address when no cluster answers there.
    """
    with _connecting:
        if not ray.is_initialized():
            _connect(address, cpus)


@timed("start Ray")
def _connect(address: str | None, cpus: int | None) -> None:
    options = {"include_dashboard": False, "num_cpus": cpus} if address is None else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,
            **options,
        )
    except (ConnectionError, RuntimeError) as error:
        where = address or "this machine"
        raise ConnectionError(
            f"no Ray cluster at {where}: {error}. Start one with `ray start --head`, give its "
            "token in RAY_AUTH_TOKEN_PATH, or unset RAY_ADDRESS for a local one"
        ) from error
    global _joined
    _joined = address is not None
    _handle_sigterm(handler)
    tell_prometheus()


def _handle_sigterm(handler: object) -> None:
    """Take SIGTERM back from Ray, whose own handler aborts the process 3 seconds after it.

    They are too few for a flow that ends its trainings and its MLflow runs. `handler` is the one
    from before Ray, by which Prefect cancels; where there was none, the Python half of Ray's
    stays. Handlers can only be set in the main thread, where a deployment's flow runs.
    """
    if threading.current_thread() is threading.main_thread():
        chosen = handler if callable(handler) else signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, chosen)


def may_grow() -> bool:
    """Tell whether nodes may come and go: in a cluster that was joined, not on this machine."""
    return _joined


def is_connected() -> bool:
    """Tell whether this process has joined a cluster."""
    return ray.is_initialized()


@timed("stop Ray")
def disconnect() -> None:
    """Leave the cluster; every task and actor that this process started ends."""
    if ray.is_initialized():
        prometheus.send_to(None)
        ray.shutdown()


def tell_prometheus() -> None:
    """Let what this process counts reach the endpoint of its node; workers call it themselves."""
    prometheus.send_to(_count)


def _count(counter: prometheus.Counter, amount: float, tags: Mapping[str, str]) -> None:
    _counter(counter).inc(amount, dict(tags))


@cache
def _counter(counter: prometheus.Counter) -> metrics.Counter:
    return metrics.Counter(counter.name, counter.help, counter.tags)


def nodes() -> list[dict[str, float]]:
    """Return what each living node has in all, free or not, by the resource's name."""
    connect(None)
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def is_out_of_reach(resources: Mapping[str, float]) -> bool:
    """Tell whether a node with these, which were asked for, will never come, as far as is known.

    Ray's autoscaler says so, in its second version, of what none of its node types has.
    """
    reply = GetClusterStatusReply()
    try:
        gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
        reply.ParseFromString(gcs.get_cluster_status(ANSWER_S))
    except RayError:
        return False
    state = reply.autoscaling_state
    asked = [*state.infeasible_resource_requests]
    asked += [one for gang in state.infeasible_gang_resource_requests for one in gang.requests]
    return any(dict(one.resources_bundle) == dict(resources) for one in asked)


def beside_the_driver() -> dict[str, Any]:
    """Return the options of an actor or task that needs nothing and lives as long as this process.

    Without them Ray puts it on any node, whose end would be its own.
    """
    node = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def cluster_cpus() -> int:
    """Return the cores of all nodes together, at least 1."""
    connect(None)
    return max(1, int(ray.cluster_resources().get("CPU", os.cpu_count() or 1)))


def cluster_gpus() -> int:
    """Return the GPUs of all nodes together."""
    connect(None)
    return int(ray.cluster_resources().get("GPU", 0))


def ray_map(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    gpus: float = 0,
    stop: threading.Event | None = None,
) -> Iterator[R]:
    """Yield `function(item)` for every item, in the order in which they finish.

    Each task has a core and `gpus`, 1 or a share of one. A task whose worker dies runs again by
    itself, so the function must be idempotent. Only a few tasks a core are in flight, more as the
    cluster grows. When the caller stops early or a task fails, the rest is cancelled. No items need
    no cluster. Raises CancelledError once another thread has set `stop`.
    """
    if not items:
        return
    connect(None)
    task = ray.remote(_call).options(
        num_gpus=gpus, max_retries=4, retry_exceptions=[ConnectionError, TimeoutError]
    )
    shared = ray.put(function)
    waiting = iter(items)
    running: dict[ray.ObjectRef, T] = {}
    try:
        while True:
            in_flight = 2 * cluster_cpus() + 2
            for item in islice(waiting, max(0, in_flight - len(running))):
                running[task.remote(shared, item)] = item
            if not running:
                return
            done = _first_done(list(running), stop)
            item = running.pop(done)
            try:
                result, records = ray.get(done)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                raise ClusterError(
                    f"Ray lost the worker of one task again and again ({type(error).__name__}): "
                    f"{str(item)[:ITEM_LENGTH]}"
                ) from error
            tell(records)
            yield result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _first_done(running: list[ray.ObjectRef], stop: threading.Event | None) -> ray.ObjectRef:
    while not (done := ray.wait(running, timeout=STOP_S)[0]):
        if stop is not None and stop.is_set():
            raise CancelledError("stopped")
    return done[0]


def _call(function: Callable[[T], R], item: T) -> tuple[R, list[logging.LogRecord]]:
    tell_prometheus()
    records: list[logging.LogRecord] = []
    with warnings_sent_to(records.append):
        return function(item), records
