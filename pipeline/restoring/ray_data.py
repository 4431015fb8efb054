"""Restore a folder or bucket of JPEG photographs with Ray Data: resumable, with a manifest.

An actor a GPU, or a core, opens the networks once and takes small batches of file names. It
publishes each output atomically and tells of it in a part of the manifest, at once or, of small
photographs, every PART_SECONDS. So a run that is killed does again, of each actor, the photograph
that it was at and those it finished in the last PART_SECONDS; the next run goes on from there.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy, DataContext

from pipeline.cluster import (
    beside_the_driver,
    cluster_cpus,
    cluster_gpus,
    connect,
    may_grow,
    tell_prometheus,
)
from pipeline.prometheus import PHOTOGRAPHS, count
from pipeline.restoring.batch_file import (
    BatchJob,
    NetworkSource,
    failure,
    open_networks,
    rejection,
    restore_file,
)
from pipeline.restoring.batch_plan import Photo
from pipeline.restoring.batch_run import Batch, RestoredBatch, prepare, report
from pipeline.restoring.ledger import Ledger
from pipeline.restoring.one_photograph import Network
from storage.batches.manifest import FileResult, append
from storage.files import StoreError

PART_SECONDS = 0.2
"""Of finished work that an actor keeps to itself, at most."""
BATCH = 16
"""Photographs that an actor takes at once, at most."""
BATCHES_AN_ACTOR = 8
ATTEMPTS = 3
"""How often a photograph is tried whose actor dies of it."""
DEADLY = "its worker died each time: out of memory, or a fault of a library"
NO_TEXT = "its name is no UTF-8: rename it"
STOPS = {error.__name__: error for error in (StoreError, ConnectionError, ValueError)}
"""What ends a run: it says nothing of a photograph, but of disk, network, or processor."""

Opener = Callable[[Sequence[NetworkSource]], Sequence[Network]]
OnProgress = Callable[[int, int, int], None]
"""Told how many photographs were restored, how many failed, and how many there are to do."""


def restore_all(
    batch: Batch,
    *,
    actors: int | None = None,
    on_progress: OnProgress = lambda done, failed, total: None,
    opener: Opener = open_networks,
) -> RestoredBatch:
    """Restore every JPEG of a batch, but what was finished by earlier runs.

    The nodes of the Ray that this process has joined must reach inputs and outputs; the networks
    travel to them. Without one, a local Ray is started if anything is to be done. The process may
    be stopped at any time.

    Args:
        batch: what to restore, to where, and how
        actors: how many photographs are restored at once; by default one a GPU where all
            networks compute on it, else one a core, and more as a cluster grows
        on_progress: called after every photograph, in steps of a batch
        opener: what an actor opens the networks with

    Raises ValueError for inputs, outputs or networks that cannot be used and for outputs of other
    settings or for a precision that a node lacks, StoreError when nothing can be written, and
    ConnectionError when an object store does not answer.
    """
    prepared = prepare(batch)
    todo, job = prepared.plan.todo, prepared.job
    states: Counter[str] = Counter()
    if todo:
        connect(None)
    if unnameable := [photo for photo in todo if not photo.nameable]:
        append(job.outputs, [rejection(photo, job, NO_TEXT) for photo in unnameable])
        states["rejected"] = len(unnameable)
        count(PHOTOGRAPHS, len(unnameable), {"state": "rejected"})
    if nameable := [photo for photo in todo if photo.nameable]:
        for state in _map(nameable, job, prepared.sources, opener, actors):
            states[state] += 1
            on_progress(states["done"], states["failed"] + states["rejected"], len(todo))
    return report(batch, prepared, states)


class _Worker:
    """An actor of Ray Data: takes batches of photographs, gives the state of each.

    Ray starts an actor that died again, with the batches that it had. What they have finished
    already is not done again, and a photograph that kills its actor each time fails.
    """

    def __init__(
        self,
        job: BatchJob,
        sources: Sequence[NetworkSource],
        opener: Opener,
        ledger: Any,  # noqa: ANN401 - handle of a Ledger
    ) -> None:
        torch.set_num_threads(1)
        tell_prometheus()
        self._job, self._sources, self._opener, self._ledger = job, sources, opener, ledger
        self._networks: Sequence[Network] = ()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return each photograph's state; last, where the run must stop, the error and its text."""
        rows: list[tuple[str, str]] = []
        try:
            rows.extend((state, "") for state in self._states(_photos_of(batch)))
        except tuple(STOPS.values()) as error:
            kind = next(name for name, stop in STOPS.items() if isinstance(error, stop))
            rows.append((kind, str(error)))
        columns = zip(("state", "stop"), zip(*rows, strict=True), strict=True)
        return {name: np.array(values, dtype=object) for name, values in columns}

    def _states(self, photos: Sequence[Photo]) -> Iterator[str]:
        self._networks = self._networks or self._opener(self._sources)
        fresh: list[FileResult] = []
        told = time.monotonic()
        for photo in photos:
            attempt, state = ray.get(self._ledger.begin.remote(photo.name))
            if fresh and attempt > 1:  # it has killed an actor before
                self._publish(fresh)
                fresh, told = [], time.monotonic()
            if not state:
                fresh.append(self._restore(photo, attempt))
                state = fresh[-1].state
            if fresh and time.monotonic() - told > PART_SECONDS:
                self._publish(fresh)
                fresh, told = [], time.monotonic()
            yield state
        if fresh:
            self._publish(fresh)

    def _restore(self, photo: Photo, attempt: int) -> FileResult:
        if attempt > ATTEMPTS:
            return failure(photo, self._job, DEADLY)
        return restore_file(photo, self._job, self._networks)

    def _publish(self, results: Sequence[FileResult]) -> None:
        append(self._job.outputs, results)
        states = {result.input: result.state for result in results}
        ray.get(self._ledger.finish.remote(states))
        for state, number in Counter(states.values()).items():
            count(PHOTOGRAPHS, number, {"state": state})


def _map(
    photos: Sequence[Photo],
    job: BatchJob,
    sources: Sequence[NetworkSource],
    opener: Opener,
    wanted: int | None,
) -> Iterator[str]:
    """Yield the state of every photograph as batches of them are finished, in any order."""
    actors = wanted or _room(sources)
    largest = min(BATCH, math.ceil(len(photos) / (BATCHES_AN_ACTOR * actors)))
    batches = math.ceil(len(photos) / largest)
    least = min(actors, batches)
    gpu = _uses_gpus(sources)
    ledger = ray.remote(Ledger).options(**beside_the_driver(), max_restarts=-1, max_task_retries=-1)
    with _quiet():
        records = [{f.name: getattr(photo, f.name) for f in fields(Photo)} for photo in photos]
        dataset = ray.data.from_items(records, override_num_blocks=batches).map_batches(
            _Worker,
            fn_constructor_args=(job, sources, opener, ledger.remote()),
            batch_size=None,
            compute=ActorPoolStrategy(
                min_size=least,
                max_size=batches if wanted is None and may_grow() else least,
                max_tasks_in_flight_per_actor=2,
            ),
            num_cpus=None if gpu else 1,
            num_gpus=1 if gpu else None,
        )
        for rows in dataset.iter_batches(batch_size=None, batch_format="numpy"):
            for state, stop in zip(rows["state"], rows["stop"], strict=True):
                if stop:
                    raise STOPS[state](stop)
                yield str(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data's bars and log lines off the terminal."""
    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, logger.level
    context.enable_progress_bars = context.print_on_execution_start = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start, level = before
        logger.setLevel(level)


def _photos_of(batch: dict[str, np.ndarray]) -> list[Photo]:
    columns = (batch[name].tolist() for name in ("name", "uri", "bytes", "stamp"))
    return [
        Photo(name=name, uri=uri, bytes=size, stamp=stamp)
        for name, uri, size, stamp in zip(*columns, strict=True)
    ]


def _room(sources: Sequence[NetworkSource]) -> int:
    """Return how many actors the cluster has room for."""
    return cluster_gpus() if _uses_gpus(sources) else cluster_cpus()


def _uses_gpus(sources: Sequence[NetworkSource]) -> bool:
    """Tell whether GPUs are used: one program, on the CPU, would keep them and cores waiting."""
    return cluster_gpus() > 0 and not any(s.facts for s in sources)
