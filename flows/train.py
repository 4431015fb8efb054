"""The train flow: one recipe on a store that is there, evaluated and registered."""

from prefect import flow

from flows import reporting
from flows.build_patches import default_store
from flows.data_steps import refuse_evaluation_images
from flows.model_steps import (
    TrainedModel,
    TrainingPlan,
    check_batches,
    train_and_register,
    training_name,
)
from flows.parameters import RecipeName, Reference, References, Steps, Workers
from flows.runtime import open_tracker, ray_session
from flows.settings import git_commit, settings
from flows.study import default_sets, finished, hashes_of
from pipeline.recipes import Recipe, get_recipe
from pipeline.training_start import check_store
from pipeline.weights import load_weights
from storage import files
from storage.model_registry import ModelRegistry
from storage.patch_store import build_command, open_store
from storage.schema import StoreError
from storage.shard_writer import source_hashes


@flow(name="train", flow_run_name="{recipe}")
def train(
    recipe: RecipeName,
    dataset: Reference = "sample",
    store: str | None = None,
    steps: Steps | None = None,
    evaluate_on: References | None = None,
    initial_weights: str | None = None,
    workers: Workers | None = None,
    fresh: bool = False,
    allow_evaluation_images: bool = False,
) -> TrainedModel:
    """Train one recipe on a patch store, evaluate it and register the network.

    Args:
        recipe: what to train
        dataset: names the store, if `store` does not
        store: URI of the patch store
        steps: optimiser steps in all, in place of the recipe's own number
        evaluate_on: sets to score on; see the study flow
        initial_weights: URI of the safetensors that the first layers are taken from; by default
            those of the registered model of the recipe that this one starts from
        workers: training workers (default: QFACTORY_WORKERS)
        fresh: train from the start even if checkpoints of the same training exist
        allow_evaluation_images: whether images of an evaluation set may be trained on
    """
    chosen = get_recipe(recipe) if steps is None else get_recipe(recipe).with_steps(steps)
    uri = store or default_store(dataset, chosen.patches)
    if not files.exists(files.join(uri, "CURRENT")):
        raise StoreError(
            f"{uri}: there is no patch store; {build_command(uri, chosen.patches, dataset)}"
        )
    version = open_store(uri)
    check_store(chosen, version)
    plan = TrainingPlan(
        evaluate_on=tuple(evaluate_on or default_sets(version.dataset)),
        workers=workers or settings().workers,
        fresh=fresh,
    )
    refuse_evaluation_images(
        version.dataset,
        source_hashes(version),
        evaluated=hashes_of(plan.evaluate_on),
        allowed=allow_evaluation_images,
    )
    check_batches([chosen], plan.workers)
    start = initial_weights or registered_weights(chosen)
    if start is not None:
        load_weights(start)  # a missing or damaged file is refused before anything runs
    tracker = open_tracker()
    with (
        ray_session(),
        tracker,
        tracker.study("train", run_name=recipe, tags={"git_commit": git_commit()}) as parent,
        parent.run(recipe, key=training_name(chosen, version, start)) as run,
    ):
        model = train_and_register(chosen, version, run, plan, start)
        reporting.link_artifact(run)
    finished(recipe, (model,), tracker.unrecorded)
    return model


def registered_weights(recipe: Recipe) -> str | None:
    """Return the weights of the newest registered model of the recipe that this one starts from.

    None if it starts from scratch. Raises ValueError with the next step if there is no such model.
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
    return max(versions, key=lambda v: v.version).tags["weights"]
