"""What a training is: what decides its weights, and the name that is the same for the same ones."""

import hashlib

from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.recipes import Recipe
from storage import files
from storage.patches.versions import StoreVersion


def training_tags(
    recipe: Recipe, version: StoreVersion, initial_weights: str | None
) -> dict[str, str]:
    """Return what decides a training's weights: recipe, patches, code, and where it starts from."""
    start = "none" if initial_weights is None else files.sha256_of(initial_weights)
    return {
        "recipe_fingerprint": recipe.fingerprint,
        "store_content": version.content,
        "code_fingerprint": code_fingerprint(recipe.architecture),
        "initial_weights": start,
    }


def training_name(recipe: Recipe, version: StoreVersion, initial_weights: str | None) -> str:
    """Return a name that is the same for the same training, and for no other."""
    tags = training_tags(recipe, version, initial_weights)
    digest = hashlib.sha256(" ".join(tags[name] for name in sorted(tags)).encode())
    return f"{recipe.name}-{digest.hexdigest()[:12]}"
