"""The train flow: one recipe on a store that is there, evaluated and registered."""

from concurrent.futures import CancelledError
from dataclasses import dataclass, replace

from prefect import flow

from flows.parameters import (
    Accelerator,
    GpusPerWorker,
    PrecisionChoice,
    RecipeName,
    Reference,
    References,
    Steps,
    StopAfter,
    Threads,
    Workers,
)
from flows.planning.store_places import chosen_store
from flows.reporting.pages import link_artifact
from flows.runtime import open_tracker, ray_session, say
from flows.settings import git_commit, settings
from flows.steps import recording
from flows.steps.checks import check_batches, check_networks, keep_apart, tell_competitors
from flows.steps.image_sets import default_sets, find_validation_sets
from flows.steps.scoring import TrainedModel, score_and_register
from flows.steps.store_building import build_validation
from flows.steps.study_results import notes_of
from flows.steps.training import TrainingPlan, train_network
from pipeline.datasets.leaks import evaluation_images
from pipeline.logs import about
from pipeline.networks.weights import load_weights
from pipeline.recipes import Recipe, get_recipe
from pipeline.training.job import parse_seconds
from pipeline.training.start import fitting_version, training_name
from storage.patches.source_images import source_hashes
from storage.patches.versions import StoreVersion
from storage.registry.model_registry import ModelRegistry
from storage.tracking.tracked_run import TrackedRun


@dataclass(frozen=True, kw_only=True)
class TrainingSlice:
    """A training that was stopped in time and goes on with the next call."""

    recipe: str
    steps: int
    """Optimiser steps done so far."""
    total: int
    """Of so many."""
    weights: str
    """URI of the weights so far, neither scored nor registered."""
    fresh: bool
    """Whether this call began anew; the next one must not."""

    def __str__(self) -> str:
        how = "the same command without --fresh" if self.fresh else "the same command"
        return f"{self.recipe}: {self.steps:,} of {self.total:,} steps done; {how} goes on"


class SliceError(CancelledError):
    """Leaves the MLflow run as one that was cut short, so that the next slice continues it."""

    def __init__(self, ended: TrainingSlice) -> None:
        super().__init__(str(ended))
        self.ended = ended


@flow(name="train", flow_run_name="{recipe}")
def train(
    recipe: RecipeName,
    dataset: Reference = "sample",
    store: str | None = None,
    steps: Steps | None = None,
    evaluate_on: References | None = None,
    initial_weights: str | None = None,
    workers: Workers | None = None,
    min_workers: Workers | None = None,
    threads: Threads | None = None,
    accelerator: Accelerator = "auto",
    gpus_per_worker: GpusPerWorker = 1.0,
    precision: PrecisionChoice = "auto",
    stop_after: StopAfter | None = None,
    fresh: bool = False,
    allow_evaluation_images: bool = False,
) -> TrainedModel | TrainingSlice:
    """Train one recipe on a patch store, evaluate it and register the network.

    Args:
        recipe: what to train
        dataset: names the store, if `store` does not
        store: name, path or URI of the patch store
        steps: optimiser steps in all, in place of the recipe's own number
        evaluate_on: sets to score on; see the study flow
        initial_weights: URI of the safetensors that the first layers are taken from; by default
            those of the registered model of the recipe that this one starts from
        workers: training workers (default: QFACTORY_WORKERS)
        min_workers: of a cluster, how few of them a training begins or goes on with while nodes
            come and go; the steps stay the same (default: all)
        threads: CPU threads of a worker (default: all that this training can have)
        accelerator: what to compute on: `auto` takes GPUs if enough of them are there now, `gpu` or
            a type such as `A100` waits for them, `cpu` leaves them alone
        gpus_per_worker: GPUs of a worker; a share such as 0.25 lets small networks, of one worker
            each, have a GPU in common
        stop_after: stop with a checkpoint after so long, such as 9m; the same command goes on, and
            the last slice is the one that is evaluated and registered
        precision: `auto` is bfloat16 where the device computes in it, else float32; a training that
            goes on keeps to what it began in
        fresh: train from the start even if checkpoints of the same training exist
        allow_evaluation_images: whether images of an evaluation set may be trained on
    """
    chosen = get_recipe(recipe) if steps is None else get_recipe(recipe).with_steps(steps)
    version = fitting_version(chosen, chosen_store(store, dataset, chosen.patches), dataset)
    plan = TrainingPlan(
        evaluate_on=tuple(evaluate_on or default_sets(version.dataset)),
        workers=workers or settings().workers,
        min_workers=min_workers,
        threads=threads,
        accelerator=accelerator,
        gpus_per_worker=gpus_per_worker,
        precision=precision,
        fresh=fresh,
        stop_after_s=parse_seconds(stop_after) if stop_after is not None else None,
    )
    validated = find_validation_sets([chosen])
    keep_apart(
        version.dataset,
        source_hashes(version),
        evaluation_images(settings().datasets_root, plan.evaluate_on),
        validated,
        allowed=allow_evaluation_images,
    )
    check_batches([chosen], plan.workers)
    start = initial_weights or registered_weights(chosen)
    if start is not None:
        load_weights(start)  # a missing or damaged file is refused before anything runs
    check_networks([chosen])
    tell_competitors([chosen])
    tracker = open_tracker()
    with (
        ray_session(),
        tracker,
        tracker.study("train", run_name=recipe, tags={"git_commit": git_commit()}) as parent,
    ):
        plan = replace(plan, validation=build_validation([chosen], validated))
        made = train_in(parent, chosen, version, plan, start)
    notes_of([made] if isinstance(made, TrainedModel) else [], tracker.unrecorded)
    return made


def train_in(
    parent: TrackedRun,
    recipe: Recipe,
    version: StoreVersion,
    plan: TrainingPlan,
    initial_weights: str | None,
) -> TrainedModel | TrainingSlice:
    """Train a recipe, or a slice of it, in its MLflow run below `parent`."""
    try:
        key = training_name(recipe, version, initial_weights)
        with about(recipe=recipe.name), parent.run(recipe.name, key=key) as run:
            link_artifact(run)
            recording.log_inputs(run, recipe, version)
            result = train_network(recipe, version, run, plan, initial_weights)
            if not result.finished:
                raise SliceError(
                    TrainingSlice(
                        recipe=recipe.name,
                        steps=result.steps,
                        total=recipe.steps,
                        weights=result.weights,
                        fresh=plan.fresh,
                    )
                )
            return score_and_register(recipe, version, run, plan, result, initial_weights)
    except SliceError as stopped:
        say(str(stopped))
        return stopped.ended


def registered_weights(recipe: Recipe) -> str | None:
    """Return the weights of the registered model of the recipe that this one starts from.

    The newest that was trained by the whole recipe as it is now, else the newest. None if this one
    starts from scratch. Raises ValueError with the next step if there is no such model.
    """
    if recipe.init_from is None:
        return None
    needed = recipe.init_from.recipe
    models = ModelRegistry(settings().mlflow_uri).list_models()
    versions = [v for found in models.values() for v in found if v.tags.get("recipe") == needed]
    if not versions:
        raise ValueError(
            f"{recipe.name} starts from {needed}, which is not registered: run `qfactory train "
            f"{needed}` first, or give --initial-weights"
        )
    whole = get_recipe(needed).fingerprint
    start = max(versions, key=lambda v: (v.tags.get("recipe_fingerprint") == whole, v.version))
    say(f"{recipe.name} starts from {start.uri}, {start.tags.get('steps')} steps of {needed}")
    return start.tags["weights"]
