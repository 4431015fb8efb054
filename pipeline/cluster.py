"""Ray as the pipeline uses it: connect once, map a function over items, stop what was started."""

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.core.generated.autoscaler_pb2 import (
    GetClusterStatusReply,  # type: ignore[attr-defined]
    NodeStatus,  # type: ignore[attr-defined]
)
from ray.exceptions import AuthenticationError, RayError, RayTaskError
from ray.util import metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import prometheus
from pipeline.logs import tell, warnings_sent_to
from pipeline.timings import timed

T = TypeVar("T")
R = TypeVar("R")

ITEM_LENGTH = 600
ANSWER_S = 3.0
"""Seconds that the cluster's head has to tell its state."""
SILENCE_S = 60.0
"""Seconds without an answer after which the head is gone; Ray's nodes leave then."""
STOP_S = 0.5
"""Seconds between looks for a stop."""
_connecting = threading.Lock()
_joined = False
_known: GetClusterStatusReply | None = None
_heard = time.monotonic()


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
    global _joined, _known, _heard
    _joined, _known, _heard = address is not None, None, time.monotonic()
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
    return [dict(node.total_resources) for node in _living_nodes()]


def resources() -> dict[str, float]:
    """Return what all living nodes have together, free or not, by the resource's name."""
    return _sum(nodes())


def free_resources() -> dict[str, float]:
    """Return what no work has taken, of all nodes together, by the resource's name."""
    return _sum(dict(node.available_resources) for node in _living_nodes())


def check_head() -> None:
    """Raise ClusterError if the head that was joined is gone, and with it all that it knew."""
    _status()


def _living_nodes() -> list[Any]:
    connect(None)
    found = _status().cluster_resource_state.node_states
    return [node for node in found if node.status != NodeStatus.DEAD]


def _status() -> GetClusterStatusReply:
    """Return what the head says, or said last if it is silent. Raises ClusterError if it is gone.

    It is asked as Ray's autoscaler does: what `ray.nodes` and the like ask aborts the process when
    there is another head.
    """
    global _known, _heard
    head = ray.get_runtime_context().worker.gcs_client
    while True:
        try:
            reply = GetClusterStatusReply()
            reply.ParseFromString(head.get_cluster_status(ANSWER_S))
            _known, _heard = reply, time.monotonic()
        except RayError as error:
            is_another = isinstance(error, AuthenticationError)
            if is_another or time.monotonic() - _heard > SILENCE_S:
                raise ClusterError(
                    f"Ray's head at {head.address} was lost, and with it all that ran on the "
                    "cluster: run the same command again once `ray status` answers; it goes on "
                    "from what is saved"
                ) from error
        if _known is not None:
            return _known


def _sum(resources: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for one in resources:
        total.update(one)
    return dict(total)


def is_out_of_reach(resources: Mapping[str, float]) -> bool:
    """Tell whether a node with these, which were asked for, will never come, as far as is known.

    Ray's autoscaler says so, in its second version, of what none of its node types has.
    """
    state = _status().autoscaling_state
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
    return max(1, int(resources().get("CPU", 0)))


def cluster_gpus() -> int:
    """Return the GPUs of all nodes together."""
    return int(resources().get("GPU", 0))


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
    no cluster. Raises CancelledError once another thread has set `stop`, and ClusterError when the
    cluster's head is lost.
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
