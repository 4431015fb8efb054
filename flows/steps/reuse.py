"""What the registry has of a study already, and who will compete for its champions."""

import json
from collections.abc import Iterable, Mapping, Sequence

from flows.runtime import say
from flows.settings import settings
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.networks.devices import PrecisionChoice
from pipeline.recipes import Recipe
from pipeline.training.job import Part, TrainingResult
from pipeline.training.start import training_tags
from storage import files
from storage.patches.versions import StoreVersion
from storage.registry.model_registry import (
    ModelRegistry,
    RegisteredVersion,
    RegistryError,
)


def tell_competitors(recipes: Sequence[Recipe]) -> None:
    """Say which recipes will share a registered model, and its champion, with other recipes."""
    try:
        registry = ModelRegistry(settings().mlflow_uri)
        known = registry.list_models() if settings().has_mlflow else {}
    except RegistryError:
        known = {}  # the training warns of it when it looks for what can be reused
    for recipe in recipes:
        if others := competitors(recipe, recipes, known.get(recipe.model_name, ())):
            say(
                f"{recipe.name} will be a version of {recipe.model_name} and compete for @champion "
                f"with {', '.join(others)}; `registered_as` in a recipe names a model of its own"
            )


def competitors(
    recipe: Recipe, trained: Iterable[Recipe], versions: Iterable[RegisteredVersion]
) -> list[str]:
    """Return the names of other recipes whose networks have the registered model of this one.

    `trained` are the recipes of the same study, `versions` those that are registered already.
    """
    others = {other.name for other in trained if other.model_name == recipe.model_name}
    others |= {version.tags.get("recipe", "unknown") for version in versions}
    return sorted(others - {recipe.name})


def find_trained(
    recipe: Recipe,
    version: StoreVersion,
    initial_weights: str | None,
    precision: PrecisionChoice = "auto",
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
