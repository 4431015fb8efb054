"""The recipes by name."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.recipes import arcnn, quickres
from pipeline.recipes.base import Recipe, Stage, Transfer

__all__ = ["RECIPES", "Recipe", "Stage", "Transfer", "get_recipe"]

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            *(arcnn.paper_recipe(qf) for qf in arcnn.QFS),
            *(arcnn.fast_recipe(qf) for qf in arcnn.QFS),
            *(quickres.quick_recipe(qf) for qf in quickres.QFS),
        )
    }
)


def get_recipe(name: str) -> Recipe:
    """Return the recipe called `name`. Raises ValueError that lists the known names."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {sorted(RECIPES)}")
    return RECIPES[name]
