"""The recipes by name."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.recipes import (
    arcnn,
    cascnn,
    dcrn,
    ddcn,
    dmcnn,
    dncnn,
    idcn,
    memnet,
    quickres,
    rdn,
    srcnn,
    svoboda,
    tnrd,
    unet,
)
from pipeline.recipes.base import Recipe, Stage, Transfer

__all__ = ["RECIPES", "Recipe", "Stage", "Transfer", "get_recipe"]

FAMILIES = (
    arcnn,
    cascnn,
    dcrn,
    ddcn,
    dmcnn,
    dncnn,
    idcn,
    memnet,
    quickres,
    rdn,
    srcnn,
    svoboda,
    tnrd,
    unet,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for family in FAMILIES for recipe in family.recipes()}
)


def get_recipe(name: str) -> Recipe:
    """Return the recipe called `name`. Raises ValueError that lists the known names."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {sorted(RECIPES)}")
    return RECIPES[name]
