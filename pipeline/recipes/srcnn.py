"""Recipes for SRCNN, trained on JPEG images exactly as AR-CNN is, with which it is compared."""

from pipeline.recipes.arcnn import PATCHES, VALIDATION_SET, paper_stage
from pipeline.recipes.base import Recipe
from pipeline.recipes.shared import fast_recipe, fast_stage

NETWORKS = ("srcnn", "srcnn-deep")
QFS = (10, 20)


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return tuple(
        recipe
        for network in NETWORKS
        for qf in QFS
        for recipe in (paper_recipe(network, qf), _fast(network, qf))
    )


def paper_recipe(network: str, qf: int) -> Recipe:
    """Return the recipe of AR-CNN's paper (Dong et al. 2015) for SRCNN or its deeper variant."""
    return Recipe(
        name=f"{network}-qf{qf}",
        architecture=network,
        options={"shrink_in_training": True, "init": "paper"},
        patches=PATCHES,
        qfs=(qf,),
        stages=(paper_stage(),),
        validation_set=VALIDATION_SET,
        source="Dong et al. 2015 (AR-CNN), sections 3.1 and 4.1.2; choices as in arcnn's recipe",
    )


def _fast(network: str, qf: int) -> Recipe:
    """Return a modern recipe for the same network: He initialisation, AdamW, cosine schedule."""
    return fast_recipe(
        network,
        qf,
        fast_stage(steps=20_000, batch=64, loss="centre_mse", optimizer="adamw", lr=1e-3),
        patches=PATCHES,
        options={"shrink_in_training": True, "init": "he"},
        source="The network and patches of Dong et al. 2015 with AdamW (chosen here)",
    )
