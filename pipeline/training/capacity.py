"""How the cores and GPUs of a cluster are shared by trainings, and how many of them fit."""

from collections.abc import Sequence
from dataclasses import dataclass

GPU_WORKER_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one machine of a cluster has in all, free or not."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a training gets, and how many like it a cluster holds."""

    threads: int
    """CPU threads of each worker."""
    trainings: int
    """Trainings that the cluster holds at once; at least 1."""


def room_for(
    nodes: Sequence[Node], workers: int, *, gpus: float = 0, wanted: int | None = None
) -> Room:
    """Return what each of a training's workers gets on these nodes; a worker lies on one node.

    Without `wanted` threads a worker gets the most that all of its training's workers can have if
    the training is alone on the cluster, so that its weights are the same whatever runs beside it;
    with `gpus` each, or a share of one, at most GPU_WORKER_THREADS and no more than leaves some for
    every GPU. Raises ValueError when the nodes have too few cores or GPUs.
    """
    usable = [node for node in nodes if node.gpus >= gpus]
    threads = threads_a_worker([node.cpus for node in usable], workers, wanted)
    if not gpus:
        return Room(threads=threads, trainings=sum(n.cpus // threads for n in usable) // workers)
    if wanted is None:
        of_its_gpus = min(int(node.cpus * gpus / node.gpus) for node in usable)
        threads = max(1, min(threads, GPU_WORKER_THREADS, of_its_gpus))
    held = sum(min(node.cpus // threads, int(node.gpus / gpus)) for node in usable)
    if held < workers:
        raise ValueError(
            f"{workers} workers of {gpus:g} GPU and {threads} threads each do not fit on {usable}: "
            "choose fewer workers, fewer threads, or a larger cluster"
        )
    return Room(threads=threads, trainings=held // workers)


def threads_a_worker(node_cpus: Sequence[int], workers: int, wanted: int | None = None) -> int:
    """Return the most CPU threads that each of `workers` can have, or `wanted` if they fit.

    A worker lies on one node. Raises ValueError when the nodes have too few cores.
    """
    choices = range(max(node_cpus, default=0), 0, -1) if wanted is None else [wanted]
    for threads in choices:
        if sum(cpus // threads for cpus in node_cpus) >= workers:
            return threads
    each = f" of {wanted} threads" if wanted else ""
    raise ValueError(
        f"{workers} workers{each} do not fit on nodes with {list(node_cpus)} cores: choose fewer "
        "workers, fewer threads, or a larger cluster"
    )
