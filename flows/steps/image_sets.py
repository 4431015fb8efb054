"""The images of a study: those that it trains on, looks at on the way, and scores on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flows.planning.store_places import known_images
from flows.runtime import retried_task
from flows.settings import settings
from pipeline.cluster import ray_map
from pipeline.datasets import references
from pipeline.datasets.references import DatasetError
from pipeline.datasets.sources import SCAN_CHUNK, ScannedImage, scan_images
from pipeline.recipes import Recipe
from pipeline.timings import timed

HASHED_HERE = 512
"""So many images at most are hashed by the flow itself: for them Ray would take longer to start."""
MOST_IMAGES = 1000
"""Of a larger set so many are taken, spread over it: 12,000 of CAS-CNN's cut-outs of ImageNet."""

Sets = Mapping[str, tuple[ScannedImage, ...]]
"""Dataset reference -> its images."""


@retried_task("list and hash source images", run_name="list and hash {dataset}")
@timed("hash the images")
def scan_sources(dataset: str, *, rehash: bool = False) -> tuple[ScannedImage, ...]:
    """Return every source image of a dataset with its hash.

    What was hashed before is not read again, unless `rehash` distrusts what is remembered of it.
    """
    sources = references.list_images(dataset, root=settings().datasets_root, purpose="train")
    return scan_images(sources, _hash_all, known_in=known_images(dataset), rehash=rehash)


def find_validation_sets(recipes: Sequence[Recipe]) -> Sets:
    """Return the validation sets that the recipes look at.

    Raises DatasetError that names recipe and set, with the next step, where one is not there.
    """
    found: dict[str, tuple[ScannedImage, ...]] = {}
    for recipe in recipes:
        if recipe.looks_at is not None and recipe.looks_at not in found:
            found[recipe.looks_at] = _scanned(recipe.name, recipe.looks_at)
    return found


def _scanned(recipe: str, reference: str) -> tuple[ScannedImage, ...]:
    try:
        images = references.list_images(
            reference, root=settings().datasets_root, purpose="evaluate"
        )
    except DatasetError as error:
        raise DatasetError(f"{recipe} validates on {reference}: {error}") from error
    if not images:
        raise DatasetError(f"{recipe} validates on {reference}: there are no images in it")
    return scan_images(
        images[:: -(-len(images) // MOST_IMAGES)],
        known_in=known_images(f"validation-{reference}"),
    )


def _hash_all(function: Callable[[Any], Any], chunks: Sequence[Any]) -> Iterator[Any]:
    return (ray_map if len(chunks) * SCAN_CHUNK > HASHED_HERE else map)(function, chunks)


def default_sets(dataset: str) -> tuple[str, ...]:
    """Return the sets that a study scores on if none are named."""
    return ("sample:test",) if dataset.partition(":")[0] == "sample" else ("live1", "classic5")
