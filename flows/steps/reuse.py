"""What the registry has already is not trained again."""

import json
from collections.abc import Iterable, Mapping

from flows.runtime import say
from flows.settings import settings
from flows.steps import recording
from flows.steps.scoring import TrainedModel, score_and_register
from flows.steps.training import TrainingPlan, train_network
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.networks.devices import PrecisionChoice
from pipeline.recipes import Recipe
from pipeline.training.job import Part, TrainingResult
from pipeline.training.start import training_tags
from storage import files
from storage.patches.versions import StoreVersion
from storage.registry.model_registry import ModelRegistry, RegisteredVersion, RegistryError
from storage.tracking.tracked_run import TrackedRun


def reuse_or_train(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    initial_weights: str | None,
) -> TrainedModel:
    """Score and register a recipe, its weights out of the registry if they are there."""
    recording.log_inputs(run, recipe, version)
    known = None
    if not plan.fresh:
        known = find_trained(recipe, version, initial_weights, plan.precision)
    if known is None:
        result = train_network(recipe, version, run, plan, initial_weights)
        return score_and_register(recipe, version, run, plan, result, initial_weights)
    found, result = known
    say(f"reused {recipe.name}: {found.uri} has the same recipe, patches, code and start")
    run.log_tags({"reused": found.uri})
    return score_and_register(recipe, version, run, plan, result, initial_weights, found)


def find_trained(
    recipe: Recipe,
    version: StoreVersion,
    initial_weights: str | None,
    precision: PrecisionChoice,
) -> tuple[RegisteredVersion, TrainingResult] | None:
    """Return the newest registered version of this very training whose weights file is whole.

    `precision` is that of the training; `auto` takes any. None if there is none, or if the registry
    cannot be asked.
    """
    wanted = training_tags(recipe, version, initial_weights)
    if precision != "auto":
        wanted["precision"] = precision
    try:
        versions = ModelRegistry(settings().mlflow_uri).versions(recipe.model_name)
    except RegistryError as error:
        say(f"WARNING: {recipe.name}: nothing can be reused, for {error}")
        return None
    for found in versions:
        tags = found.tags
        if wanted.items() <= tags.items() and _is_whole(tags["weights"], tags["weights_sha256"]):
            steps, seconds = int(tags["steps"]), float(tags["seconds"])
            return found, TrainingResult(
                weights=tags["weights"],
                steps=steps,
                seconds=seconds,
                history=(),
                parts=tuple(Part(**part) for part in json.loads(tags.get("training_parts", "[]"))),
                finished=True,
            )
    return None


def may_be_trained(recipes: Iterable[Recipe]) -> bool:
    """Tell whether the registry has all of these recipes by today's code, whatever the patches."""
    try:
        known = ModelRegistry(settings().mlflow_uri).list_models() if settings().has_mlflow else {}
    except RegistryError:
        return False
    wanted = {(r.model_name, r.fingerprint, code_fingerprint(r.architecture)) for r in recipes}
    return wanted <= {
        (name, found.tags.get("recipe_fingerprint"), found.tags.get("code_fingerprint"))
        for name, versions in known.items()
        for found in versions
    }


def are_trained(
    recipes: Iterable[Recipe], versions: Mapping[str, StoreVersion], precision: PrecisionChoice
) -> bool:
    """Tell whether `find_trained` finds all of these, each after what it starts from."""
    weights: dict[str, str] = {}
    for recipe in recipes:
        start = weights[recipe.init_from.recipe] if recipe.init_from is not None else None
        known = find_trained(recipe, versions[recipe.name], start, precision)
        if known is None:
            return False
        _, result = known
        weights[recipe.name] = result.weights
    return True


def _is_whole(weights: str, sha256: str) -> bool:
    try:
        return files.sha256_of(weights) == sha256
    except OSError:
        return False
