"""Recipes trained side by side: what is independent at once; a failure stops what needs it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from threading import Event
from typing import Generic, TypeVar

from flows.reporting.pages import link_artifact
from flows.runtime import say
from flows.steps.reuse import reuse_or_train
from flows.steps.scoring import TrainedModel
from flows.steps.training import TrainingPlan
from pipeline.logs import about
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.recipes import Recipe
from pipeline.training.start import training_name
from storage.patches.versions import StoreVersion
from storage.tracking.tracked_run import TrackedRun

T = TypeVar("T")

WAKE_S = 0.5
"""Seconds between looks for Ctrl-C: Polars, which MLflow imports where it is installed, has
interrupted system calls restarted, so that a thread which waits without end never sees it."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T]):
    """How one piece of work went; exactly one of the three is there."""

    value: T | None = None
    """What it returned."""
    error: Exception | None = None
    """What it raised."""
    skipped_for: str | None = None
    """The piece whose failure left this one without what it needs."""


def train_all(
    recipes: Sequence[Recipe],
    versions: Mapping[str, StoreVersion],
    parent: TrackedRun,
    plan: TrainingPlan,
    *,
    at_once: int,
) -> dict[str, Outcome[TrainedModel]]:
    """Train, score and register the recipes, each in an MLflow run of its own below `parent`.

    `at_once` is how many trainings the cluster holds; more would only wait in Ray's queue, each
    with processes of its own. What does not fit beside other people's work waits there all the
    same. An exception in this thread ends all of them.
    """
    named = {recipe.name: recipe for recipe in recipes}

    def work(name: str, start: TrainedModel | None) -> TrainedModel:
        recipe, version = named[name], versions[name]
        initial_weights = start.weights if start is not None else None
        key = training_name(recipe, version, initial_weights)
        try:
            with about(recipe=name), parent.run(name, key=key) as run:
                model = reuse_or_train(recipe, version, run, plan, initial_weights)
                link_artifact(run)
        except Exception as error:
            if not plan.stop.is_set():
                say(f"{name} failed: {error}")
            raise
        return model

    for recipe in recipes:  # kept for the threads: Python 3.11 cannot parse in several at once
        code_fingerprint(recipe.architecture)
    needs = {r.name: r.init_from.recipe if r.init_from is not None else None for r in recipes}
    return walk(needs, work, at_once=at_once, stop=plan.stop)


def walk(
    needs: Mapping[str, str | None],
    work: Callable[[str, T | None], T],
    *,
    at_once: int,
    stop: Event,
) -> dict[str, Outcome[T]]:
    """Call `work(name, what its need returned)` for every name, `at_once` of them side by side.

    `needs` names for every piece the one that it needs, which comes before it, or None. Every call
    has a thread of its own and a copy of this thread's context. An exception in this thread, such
    as KeyboardInterrupt, sets `stop`, on which the calls must return or raise soon; it goes on
    when they have.
    """
    outcomes: dict[str, Outcome[T]] = {}
    running: dict[Future[T], str] = {}
    waiting = dict(needs)
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="side-by-side")
    try:
        while waiting or running:
            for name, need in [*waiting.items()]:
                if need is not None and need not in outcomes:
                    continue
                del waiting[name]
                before: Outcome[T] = outcomes[need] if need is not None else Outcome()
                failed = need if before.error is not None else before.skipped_for
                if failed is not None:
                    outcomes[name] = Outcome(skipped_for=failed)
                else:
                    call = pool.submit(copy_context().run, work, name, before.value)
                    running[call] = name
            for call in wait(running, WAKE_S, FIRST_COMPLETED).done:
                outcomes[running.pop(call)] = _outcome(call)
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return {name: outcomes[name] for name in needs}


def _outcome(call: Future[T]) -> Outcome[T]:
    try:
        return Outcome(value=call.result())
    except Exception as error:
        return Outcome(error=error)
