"""What Prometheus is told of the work: every counter's name, help text and tags.

Who works calls `count`, which does nothing until `send_to` was called. pipeline/cluster.py sends
to Ray, whose endpoint puts `ray_` before each name. Rates are left to the reader: samples a second
are `rate(ray_qfactory_training_samples_total[1m])`.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Counter:
    """A sum that only grows."""

    name: str
    """Ends in its unit, where it has one, and `_total`."""
    help: str
    tags: tuple[str, ...]
    """Names of its labels, each with few values."""


Send = Callable[[Counter, float, Mapping[str, str]], None]

DATASET = ("dataset",)
TRAINING = ("recipe", "architecture", "dataset")

SHARDS = Counter("qfactory_shards_built_total", "Shards of patch stores written", DATASET)
PATCHES = Counter("qfactory_patches_built_total", "Patches in the shards written", DATASET)
REJECTS = Counter(
    "qfactory_images_rejected_total", "Source images that gave no patches to a shard", DATASET
)
STEPS = Counter("qfactory_training_steps_total", "Optimiser steps taken", TRAINING)
SAMPLES = Counter("qfactory_training_samples_total", "Patches trained on", TRAINING)
DATA_WAIT = Counter(
    "qfactory_training_data_wait_seconds_total",
    "Seconds that the first worker waited for its next batch",
    TRAINING,
)
CHECKPOINTS = Counter("qfactory_checkpoints_total", "Checkpoints written", TRAINING)
CHECKPOINT_TIME = Counter(
    "qfactory_checkpoint_seconds_total", "Seconds that checkpoints took", TRAINING
)
PHOTOGRAPHS = Counter(
    "qfactory_photographs_total", "Photographs of batches, by what became of them", ("state",)
)
FAILURES = Counter(
    "qfactory_failures_total",
    "Tries of a task that failed, by the type of error; trainings whose workers were lost",
    ("task", "reason"),
)
COUNTERS = (
    SHARDS,
    PATCHES,
    REJECTS,
    STEPS,
    SAMPLES,
    DATA_WAIT,
    CHECKPOINTS,
    CHECKPOINT_TIME,
    PHOTOGRAPHS,
    FAILURES,
)

_send: list[Send] = []


def send_to(send: Send | None) -> None:
    """Let `count` call this function; with None, nothing again."""
    _send[:] = [send] if send is not None else []


def count(counter: Counter, amount: float, tags: Mapping[str, str]) -> None:
    """Add to a counter; `tags` has a value for each of its labels."""
    if amount > 0:
        for send in _send:
            send(counter, amount, tags)


@contextmanager
def failures_counted(task: str) -> Iterator[None]:
    """Count an error, but not a cancellation, that leaves the block or the function decorated."""
    try:
        yield
    except CancelledError:
        raise
    except Exception as error:
        count(FAILURES, 1, {"task": task, "reason": type(error).__name__})
        raise
