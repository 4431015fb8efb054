"""Train a recipe: pure torch, on one process or as one of several, from the last checkpoint on.

On a CPU everything is a function of the job: the same job gives the same losses and weights bit
for bit, whether or not it was interrupted, with the same number of threads and workers.

`python -m pipeline.training RECIPE --store URI --out FOLDER` needs neither Ray, Prefect nor MLflow.
"""

import argparse
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from types import FrameType
from typing import get_args

import torch

from pipeline.datasets.leaks import refuse_shared_images
from pipeline.networks.devices import PrecisionChoice
from pipeline.recipes import get_recipe
from pipeline.training.job import ALONE, Record, TrainingError, TrainingJob, TrainingResult, World
from pipeline.training.loop import Training
from pipeline.training.start import fitting_version
from pipeline.training.validation import validation_version
from storage.checkpoints import CheckpointError
from storage.files import StoreError
from storage.patches.shard_writer import source_hashes
from storage.patches.versions import open_store

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}

logger = logging.getLogger(__name__)


def train(
    job: TrainingJob,
    *,
    world: World = ALONE,
    on_record: Callable[[Record], None] = lambda record: None,
    stop: Event | None = None,
) -> TrainingResult:
    """Train a recipe to its end; continue where an earlier call stopped.

    After `stop_after_s`, or once another thread has set `stop` on any rank, it stops with a
    checkpoint.

    With `world.size` above 1 torch's default process group must be there; every rank makes the
    same call. Rank 0 writes checkpoints and calls `on_record`, first with the records of the calls
    before. Raises StoreError for a store that is unusable or does not fit, CheckpointError for
    checkpoints that are damaged or of another job, TrainingError for a loss that is not finite.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    store = fitting_version(job.recipe, job.store, number=job.version)
    cuda = world.device.type == "cuda"
    with torch.random.fork_rng(devices=[world.device] if cuda else []):
        return Training(job, store, world, on_record, stop or Event()).run()


def parse_seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `9m` or `1.5h`. Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise ValueError(f"duration {text!r}: write it as 90s, 9m or 1.5h")
    return float(found[1]) * SECONDS[found[2]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says, logging every record.

    Ctrl-C or SIGTERM stops with a checkpoint (exit code 130 or 143), a second one at once.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.training", description=main.__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--store", required=True, help="URI of the patch store")
    parser.add_argument("--version", type=int, help="store version; the current one if not given")
    parser.add_argument("--validation-store", help="URI of the patches of its validation set")
    parser.add_argument("--out", required=True, help="folder of the checkpoints and the weights")
    parser.add_argument("--steps", type=int, help="shorten or lengthen the recipe to this")
    parser.add_argument("--for", dest="duration", type=_duration, help="stop after, such as 9m")
    parser.add_argument("--checkpoint-every", type=_duration, default=60.0, metavar="TIME")
    parser.add_argument("--initial-weights", help="trained weights to take the first layers from")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--precision", choices=get_args(PrecisionChoice), default="auto")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        recipe = get_recipe(options.recipe)
        job = TrainingJob(
            recipe=recipe if options.steps is None else recipe.with_steps(options.steps),
            store=options.store,
            version=options.version,
            validation_store=options.validation_store,
            checkpoints=options.out,
            checkpoint_every_s=options.checkpoint_every,
            initial_weights=options.initial_weights,
            stop_after_s=options.duration,
            threads=options.threads,
            precision=options.precision,
        )
        if job.validation_store is not None:
            _check_validation(job)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with _stopped_by_signals() as (stop, signals):
            world = replace(ALONE, device=device)
            result = train(job, world=world, on_record=_log, stop=stop)
    except (ValueError, StoreError, CheckpointError, TrainingError) as error:
        parser.exit(1, f"{error}\n")
    for part in result.parts:
        logger.info("%d steps in %s on %s", part.steps, part.precision, part.processor)
    state = "finished" if result.finished else "stopped, run again to go on,"
    logger.info("%s after %d steps: %s", state, result.steps, result.weights)
    if signals and not result.finished:
        sys.exit(128 + signals[0])


@contextmanager
def _stopped_by_signals() -> Iterator[tuple[Event, list[int]]]:
    """Give an event that SIGINT or SIGTERM sets, once, and the signals that came."""
    stop, came = Event(), []

    def ask(number: int, _: FrameType | None) -> None:
        came.append(number)
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_validation(job: TrainingJob) -> None:
    """Refuse a validation set that does not fit the recipe, or whose images are trained on."""
    validation, store = validation_version(job), open_store(job.store, job.version)
    refuse_shared_images(validation.dataset, source_hashes(validation), source_hashes(store))


def _duration(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _log(record: Record) -> None:
    logger.info(
        "step %7d  loss %.6f  lr %.2e  %8.0f patches/s  %7.1f s",
        record.step,
        record.loss,
        record.lr,
        record.samples_per_s,
        record.seconds,
    )
