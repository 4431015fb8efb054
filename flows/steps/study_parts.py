"""What a study is made of: its evaluation sets, its stores, and its recipes side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flows.planning.side_by_side import Outcome, walk
from flows.planning.store_places import default_store
from flows.reporting.pages import link_artifact
from flows.runtime import say
from flows.settings import settings
from flows.steps.one_recipe import TrainedModel, TrainingPlan, reuse_or_train
from flows.steps.store_building import build_version
from pipeline.datasets.sources import ScannedImage
from pipeline.logs import about
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.patches.build_store import MAX_REJECTED_SHARE
from pipeline.recipes import Recipe
from pipeline.training.start import check_store, training_name
from storage import files
from storage.patches.schema import PatchSpec
from storage.patches.versions import StoreVersion, open_store
from storage.tracking.tracked_run import TrackedRun


def default_sets(dataset: str) -> tuple[str, ...]:
    """Return the sets that a study scores on if none are named."""
    return ("sample:test",) if dataset.partition(":")[0] == "sample" else ("live1", "classic5")


def build_versions(
    recipes: Sequence[Recipe],
    dataset: str,
    scanned: tuple[ScannedImage, ...],
    store: str | None,
) -> dict[str, StoreVersion]:
    """Bring the store of each recipe up to date and return its version, by the recipe's name.

    Recipes of one patch spec share a store; with `store`, all do.
    """
    named = settings().store_uri(store) if store is not None else None
    shared = spec_for(named, recipes) if named is not None else None
    specs = {recipe.name: shared or recipe.patches for recipe in recipes}
    built = {
        spec: build_version(
            named or default_store(dataset, spec), spec, scanned, dataset, False, MAX_REJECTED_SHARE
        )
        for spec in dict.fromkeys(specs.values())
    }
    return {name: built[spec] for name, spec in specs.items()}


def spec_for(store: str, recipes: Sequence[Recipe]) -> PatchSpec:
    """Return the patch spec of a store that is to serve all the recipes.

    A store that is there keeps its own; a new one gets every quality factor of the recipes. Raises
    StoreError where the store does not fit a recipe, and ValueError where no store fits all.
    """
    if files.exists(files.join(store, "CURRENT")):
        version = open_store(store)
        for recipe in recipes:
            check_store(recipe, version)
        return version.spec
    qfs = tuple(sorted({qf for recipe in recipes for qf in recipe.patches.qfs}))
    specs = {replace(r.patches, qfs=qfs if r.patches.qfs else ()) for r in recipes}
    if len(specs) > 1:
        raise ValueError(
            f"store {store}: these recipes need {len(specs)} different patch specs; leave --store "
            "away and each gets a store of its own"
        )
    return specs.pop()


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
