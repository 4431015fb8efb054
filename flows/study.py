"""The study flow: from images to registered networks, with a table at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows import reporting
from flows.build_patches import default_store
from flows.data_steps import build_version, refuse_evaluation_images, scan_sources
from flows.model_steps import (
    TrainedModel,
    TrainingPlan,
    check_batches,
    train_and_register,
    training_name,
)
from flows.parameters import Name, RecipeNames, Reference, References, Steps, Workers
from flows.progress import say
from flows.runtime import open_tracker, ray_session
from flows.settings import git_commit, settings
from pipeline import datasets
from pipeline.build_store import MAX_REJECTED_SHARE
from pipeline.recipes import Recipe, get_recipe
from pipeline.sources import ScannedImage, scan_images
from storage.patch_store import StoreVersion
from storage.schema import PatchSpec


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study made."""

    name: str
    models: tuple[TrainedModel, ...]
    rows: tuple[reporting.Row, ...]
    """The table: JPEG, network and gain for every recipe and set."""
    notes: tuple[str, ...]
    """What was not recorded or registered, and where it is instead."""


@flow(name="study", flow_run_name="{name}")
def study(
    dataset: Reference = "sample",
    recipes: RecipeNames = ["quickres-qf10"],  # noqa: B006 - pydantic copies it
    steps: Steps | None = None,
    evaluate_on: References | None = None,
    name: Name = "study",
    store: str | None = None,
    workers: Workers | None = None,
    fresh: bool = False,
    allow_evaluation_images: bool = False,
) -> StudyResult:
    """Build the patch store, train every recipe, evaluate and register the networks.

    Args:
        dataset: what to train on
        recipes: what to train; a recipe that starts from another one's layers comes after it
        steps: optimiser steps of each recipe in all, in place of the recipe's own number
        evaluate_on: sets to score on, the first decides on promotion; by default LIVE1 and
            Classic5, or the held-out photographs for `sample`
        name: name of the MLflow experiment
        store: URI of the patch store; by default one is named after the dataset and the spec
        workers: training workers (default: QFACTORY_WORKERS)
        fresh: train from the start even if checkpoints of the same training exist
        allow_evaluation_images: whether images of an evaluation set may be trained on
    """
    ordered = ordered_recipes(recipes, steps)
    plan = TrainingPlan(
        evaluate_on=tuple(evaluate_on or default_sets(dataset)),
        workers=workers or settings().workers,
        fresh=fresh,
    )
    check_batches(ordered, plan.workers)
    evaluated = hashes_of(plan.evaluate_on)
    with ray_session():
        scanned = scan_sources(dataset, allow_evaluation_images)
        refuse_evaluation_images(
            dataset,
            {image.name: image.sha256 for image in scanned},
            evaluated=evaluated,
            allowed=allow_evaluation_images,
        )
        versions = build_versions(ordered, dataset, scanned, store)
        tracker = open_tracker()
        with tracker, tracker.study(name, tags={"git_commit": git_commit()}) as parent:
            parent.log_params({"dataset": dataset, "recipes": " ".join(recipes)})
            models: dict[str, TrainedModel] = {}
            for recipe in ordered:
                version = versions[recipe.patches]
                start = models[recipe.init_from.recipe].weights if recipe.init_from else None
                key = training_name(recipe, version, start)
                with parent.run(recipe.name, key=key) as run:
                    models[recipe.name] = train_and_register(recipe, version, run, plan, start)
                    reporting.link_artifact(run)
        return finished(name, tuple(models.values()), tracker.unrecorded)


def ordered_recipes(names: Sequence[str], steps: int | None) -> list[Recipe]:
    """Return the recipes in an order in which every network finds the one that it starts from.

    Recipes that a transfer needs and nobody asked for are added, in front.
    """
    ordered: dict[str, Recipe] = {}

    def add(name: str) -> None:
        recipe = get_recipe(name)
        if recipe.init_from is not None:
            add(recipe.init_from.recipe)
        ordered.setdefault(name, recipe if steps is None else recipe.with_steps(steps))

    for name in names:
        add(name)
    return list(ordered.values())


def default_sets(dataset: str) -> tuple[str, ...]:
    """Return the sets that a study scores on if none are named."""
    return ("sample:test",) if dataset.partition(":")[0] == "sample" else ("live1", "classic5")


def hashes_of(sets: Sequence[str]) -> dict[str, str]:
    """Return SHA-256 -> name of every image of the sets. Raises if a set is not there."""
    root = settings().datasets_root
    return {
        image.sha256: f"{reference}/{image.name}"
        for reference in sets
        for image in scan_images(datasets.list_images(reference, root=root, purpose="evaluate"))
        if image.sha256
    }


def build_versions(
    recipes: Sequence[Recipe],
    dataset: str,
    scanned: tuple[ScannedImage, ...],
    store: str | None,
) -> dict[PatchSpec, StoreVersion]:
    """Build one store for each patch spec among the recipes.

    Raises ValueError for several specs and one store.
    """
    specs = list(dict.fromkeys(recipe.patches for recipe in recipes))
    if store is not None and len(specs) > 1:
        raise ValueError(
            f"store {store}: these recipes need {len(specs)} different patch specs; leave --store "
            "away and each gets a store of its own"
        )
    return {
        spec: build_version(
            store or default_store(dataset, spec), spec, scanned, dataset, False, MAX_REJECTED_SHARE
        )
        for spec in specs
    }


def finished(name: str, models: tuple[TrainedModel, ...], unrecorded: Sequence[str]) -> StudyResult:
    """Leave the study's table as an artifact and return the result."""
    rows = tuple(
        row
        for model in models
        for comparison in model.scores.values()
        for row in reporting.score_rows(model.recipe, comparison)
    )
    create_table_artifact(list(rows), key="study", description=f"Results of study {name}")
    notes = tuple(f"not recorded in MLflow: {what}" for what in unrecorded)
    notes += tuple(model.note for model in models if model.note)
    for note in notes:
        say(f"WARNING: {note}")
    return StudyResult(name=name, models=models, rows=rows, notes=notes)
