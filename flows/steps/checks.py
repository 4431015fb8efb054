"""What is checked, and told, before anything is built: a fault costs seconds."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from flows.runtime import say
from flows.settings import settings
from pipeline.datasets.leaks import refuse_evaluation_images, refuse_shared_images
from pipeline.datasets.sources import ScannedImage, hashes_by_name
from pipeline.loading.epoch_plan import share_of_batch
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.networks.contract import check_network
from pipeline.recipes import Recipe
from pipeline.timings import timed
from storage.registry.model_registry import ModelRegistry, RegisteredVersion, RegistryError


def keep_apart(
    dataset: str,
    training: Mapping[str, str],
    evaluated: Mapping[str, str],
    validated: Mapping[str, tuple[ScannedImage, ...]] | None = None,
    *,
    allowed: bool,
) -> None:
    """Raise ValueError when images of `dataset` are trained on that are evaluated or validated on.

    Args:
        dataset: what is trained on
        training: its images' names -> SHA-256
        evaluated: see `pipeline.datasets.leaks.evaluation_images`
        validated: the recipes' validation sets by reference
        allowed: whether evaluation images may be trained on; it is said which are
    """
    told = refuse_evaluation_images(dataset, training, evaluated, allowed=allowed)
    if told is not None:
        say(f"WARNING: {told}")
    for reference, images in (validated or {}).items():
        refuse_shared_images(reference, hashes_by_name(images), training)


@timed("check networks")
def check_networks(recipes: Iterable[Recipe]) -> None:
    """Raise NetworkError unless every recipe's network can be trained, exported and tiled.

    One that passed is not checked again in this workspace until code or options change.
    """
    for recipe in recipes:
        what = json.dumps([code_fingerprint(recipe.architecture), recipe.options], default=str)
        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        passed = settings().root / "checked" / f"{recipe.architecture}-{digest}"
        if not passed.exists():
            say(f"checking network {recipe.architecture}")
            check_network(recipe.architecture, recipe.options)
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()


def check_batches(recipes: Iterable[Recipe], workers: int) -> None:
    """Raise ValueError unless every batch has a patch for each of the workers."""
    for recipe in recipes:
        for stage in recipe.stages:
            share_of_batch(stage.batch, workers)


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
