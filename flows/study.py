"""The study flow: from images to registered networks, with a table at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from prefect import flow

from flows.parameters import (
    Accelerator,
    GpusPerWorker,
    Name,
    PrecisionChoice,
    RecipePatterns,
    Reference,
    References,
    Steps,
    Threads,
    Workers,
)
from flows.planning.recipe_graph import ordered_recipes
from flows.runtime import open_tracker, ray_session
from flows.settings import git_commit, settings
from flows.steps.checks import check_batches, check_networks, keep_apart, tell_competitors
from flows.steps.image_sets import default_sets, find_validation_sets, scan_sources
from flows.steps.publishing import WrittenReport
from flows.steps.reuse import are_trained, may_be_trained
from flows.steps.scoring import TrainedModel
from flows.steps.side_by_side import Outcome, train_all
from flows.steps.store_building import build_validation, build_versions
from flows.steps.study_report import report_study
from flows.steps.study_results import StudyError, StudyResult, raise_failures, study_result
from flows.steps.training import TrainingPlan, room_of
from pipeline.datasets.leaks import evaluation_images
from pipeline.datasets.sources import hashes_by_name
from pipeline.recipes import Recipe
from storage.tracking.tracked_run import TrackedRun


@flow(name="study", flow_run_name="{name}")
def study(
    dataset: Reference = "sample",
    recipes: RecipePatterns = ["unet-quick-qf10"],  # noqa: B006 - pydantic copies it
    steps: Steps | None = None,
    evaluate_on: References | None = None,
    name: Name = "study",
    store: str | None = None,
    workers: Workers | None = None,
    min_workers: Workers | None = None,
    threads: Threads | None = None,
    accelerator: Accelerator = "auto",
    gpus_per_worker: GpusPerWorker = 1.0,
    precision: PrecisionChoice = "auto",
    fresh: bool = False,
    allow_evaluation_images: bool = False,
) -> StudyResult:
    """Build the patch store, train the recipes that are new, evaluate and register the networks.

    A recipe that the registry has, trained on the same patches by the same code, is not trained
    again. Recipes that do not start from each other are trained side by side as Ray has room. One
    that fails stops only those that start from it; the study then ends with StudyError.

    Args:
        dataset: what to train on
        recipes: what to train, names or quoted globs such as 'arcnn-*'; those that a recipe starts
            from are added, and come before it
        steps: optimiser steps of each recipe in all, in place of the recipe's own number
        evaluate_on: sets to score on, the first decides on promotion; by default LIVE1 and
            Classic5, or the held-out photographs for `sample`
        name: name of the MLflow experiment
        store: name, path or URI of the patch store; by default it is named after the dataset and
            the spec
        workers: training workers (default: QFACTORY_WORKERS)
        min_workers: of a cluster, how few of them a training begins or goes on with while nodes
            come and go; the steps stay the same (default: all)
        threads: CPU threads of a worker (default: all that a training alone can have); fewer let
            more trainings run side by side
        accelerator: what to compute on: `auto` takes GPUs if enough of them are there now, `gpu` or
            a type such as `A100` waits for them, `cpu` leaves them alone
        gpus_per_worker: GPUs of a worker; a share such as 0.25 lets small networks, of one worker
            each, have a GPU in common
        precision: `auto` is bfloat16 where the device computes in it, else float32; a training that
            goes on keeps to what it began in
        fresh: train from the start whatever the registry and earlier checkpoints hold
        allow_evaluation_images: whether images of an evaluation set may be trained on
    """
    plan = TrainingPlan(
        evaluate_on=tuple(evaluate_on or default_sets(dataset)),
        workers=workers or settings().workers,
        min_workers=min_workers,
        threads=threads,
        accelerator=accelerator,
        gpus_per_worker=gpus_per_worker,
        precision=precision,
        fresh=fresh,
    )
    return run_study(
        ordered_recipes(recipes, steps),
        plan,
        dataset=dataset,
        name=name,
        params={"dataset": dataset, "recipes": " ".join(recipes)},
        store=store,
        allow_evaluation_images=allow_evaluation_images,
    )


def run_study(
    ordered: Sequence[Recipe],
    plan: TrainingPlan,
    *,
    dataset: str,
    name: str,
    params: Mapping[str, object],
    store: str | None = None,
    allow_evaluation_images: bool = False,
    summarise: Callable[[TrackedRun, Mapping[str, Outcome[TrainedModel]]], None] | None = None,
) -> StudyResult:
    """Train the recipes, each after what it starts from, in one MLflow experiment.

    `params` are recorded in its parent run. When all recipes are done, `summarise` adds to that
    run what takes the place of the report, and decides what failures mean. Without it StudyError,
    with the result, is raised when a recipe failed.
    """
    check_batches(ordered, plan.workers)
    validated = find_validation_sets(ordered)
    evaluated = evaluation_images(settings().datasets_root, plan.evaluate_on)
    check_networks(ordered)
    if plan.register:
        tell_competitors(ordered)
    with ray_session(lazy=True):
        if plan.fresh or not may_be_trained(ordered):
            room_of(plan)  # refused now rather than after the store is built
        scanned = scan_sources(dataset)
        hashes = hashes_by_name(scanned)
        keep_apart(dataset, hashes, evaluated, validated, allowed=allow_evaluation_images)
        versions = build_versions(ordered, dataset, scanned, store)
        plan = replace(plan, validation=build_validation(ordered, validated))
        tracker = open_tracker()
        outcomes: dict[str, Outcome[TrainedModel]] = {}
        written = WrittenReport()
        try:
            with tracker, tracker.study(name, tags={"git_commit": git_commit()}) as parent:
                parent.log_params(params)
                reused = not plan.fresh and are_trained(ordered, versions, plan.precision)
                at_once = 1 if reused else room_of(plan).trainings
                outcomes = train_all(ordered, versions, parent, plan, at_once=at_once)
                if summarise is not None:
                    summarise(parent, outcomes)
                else:
                    if any(o.value for o in outcomes.values()) and not plan.stop.is_set():
                        written = report_study(parent, name, ordered, versions, outcomes)
                    raise_failures(outcomes)
        except StudyError as error:
            error.result = study_result(name, outcomes, tracker.unrecorded, written)
            raise
        return study_result(name, outcomes, tracker.unrecorded, written)
