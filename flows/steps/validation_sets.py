"""The validation sets of recipes: found, kept apart from the training images, cut into stores."""

from collections.abc import Mapping, Sequence

from flows.planning.store_places import default_store
from flows.settings import settings
from flows.steps.store_building import build_version
from pipeline.datasets import references
from pipeline.datasets.references import DatasetError
from pipeline.datasets.sources import ScannedImage, scan_images
from pipeline.patches.build_store import MAX_REJECTED_SHARE
from pipeline.recipes import Recipe
from storage.patches.versions import StoreVersion

MOST_IMAGES = 1000
"""Of a larger set so many are taken, spread over it: 12,000 of CAS-CNN's cut-outs of ImageNet."""

Sets = Mapping[str, tuple[ScannedImage, ...]]
"""Dataset reference -> its images."""


def find_validation_sets(recipes: Sequence[Recipe]) -> Sets:
    """Return the validation sets that the recipes look at.

    Raises DatasetError that names recipe and set, with the next step, where one is not there.
    """
    found: dict[str, tuple[ScannedImage, ...]] = {}
    for recipe in recipes:
        if recipe.looks_at is not None and recipe.looks_at not in found:
            found[recipe.looks_at] = _scanned(recipe.name, recipe.looks_at)
    return found


def build_validation(recipes: Sequence[Recipe], sets: Sets) -> dict[str, StoreVersion]:
    """Cut the validation sets; return the store version that a recipe looks at, by its name."""
    wanted = {r.name: (r.looks_at, r.validation_patches) for r in recipes if r.looks_at}
    built = {
        (reference, spec): build_version(
            default_store(f"validation-{reference}", spec),
            spec,
            sets[reference],
            reference,
            False,
            MAX_REJECTED_SHARE,
        )
        for reference, spec in dict.fromkeys(wanted.values())
    }
    return {name: built[key] for name, key in wanted.items()}


def _scanned(recipe: str, reference: str) -> tuple[ScannedImage, ...]:
    try:
        images = references.list_images(
            reference, root=settings().datasets_root, purpose="evaluate"
        )
    except DatasetError as error:
        raise DatasetError(f"{recipe} validates on {reference}: {error}") from error
    if not images:
        raise DatasetError(f"{recipe} validates on {reference}: there are no images in it")
    return scan_images(images[:: -(-len(images) // MOST_IMAGES)])
