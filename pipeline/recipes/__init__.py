"""The recipes by name: those of the families, and `-fast` ones of every other network."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from models import ARCHITECTURES
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
from pipeline.recipes.shared import default_recipes

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


def _all() -> Iterator[Recipe]:
    trained = set()
    for family in FAMILIES:
        for recipe in family.recipes():
            trained.add(recipe.architecture)
            yield recipe
    for architecture in ARCHITECTURES:
        if architecture not in trained:
            yield from default_recipes(architecture)


RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _all()})


def get_recipe(name: str) -> Recipe:
    """Return the recipe called `name`. Raises ValueError that lists the known names."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {sorted(RECIPES)}")
    return RECIPES[name]
