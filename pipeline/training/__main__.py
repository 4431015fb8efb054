"""`python -m pipeline.training RECIPE --store URI --out FOLDER`: train a recipe on this machine.

Needs neither Ray, Prefect nor MLflow.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from types import FrameType
from typing import get_args

from pipeline.datasets.leaks import refuse_shared_images
from pipeline.networks.devices import PrecisionChoice, best_device
from pipeline.recipes import get_recipe
from pipeline.training.job import ALONE, Record, TrainingError, TrainingJob, parse_seconds
from pipeline.training.loop import train
from pipeline.training.validation import validation_version
from storage.checkpoints import CheckpointError
from storage.files import StoreError
from storage.patches.source_images import source_hashes
from storage.patches.versions import open_store

logger = logging.getLogger(__name__)


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
        with _stopped_by_signals() as (stop, signals):
            world = replace(ALONE, device=best_device())
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


if __name__ == "__main__":
    main()
