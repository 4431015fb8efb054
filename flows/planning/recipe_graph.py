"""The graph of the recipes' transfers: which recipes are meant, and in which order they come."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pipeline.recipes import RECIPES, Recipe, get_recipe

WILDCARDS = "*?["


def matching(pattern: str) -> list[str]:
    """Return the names of the recipes that a name or a glob such as `arcnn-*` means.

    Raises ValueError that lists the names that are near it, or all of them.
    """
    found = [name for name in RECIPES if name == pattern or fnmatchcase(name, pattern)]
    if not found:
        near = get_close_matches(pattern.strip(WILDCARDS), RECIPES, n=8, cutoff=0.5)
        what = "no recipe matches" if is_glob(pattern) else "unknown recipe"
        raise ValueError(f"{what} {pattern!r}: choose one of {near or sorted(RECIPES)}")
    return found


def is_glob(pattern: str) -> bool:
    """Tell whether a text is a pattern rather than a name."""
    return any(character in pattern for character in WILDCARDS)


def ordered_recipes(patterns: Sequence[str], steps: int | None = None) -> list[Recipe]:
    """Return the recipes that patterns mean, each after the one that it starts from.

    Recipes that a transfer needs and nobody asked for are added, in front. `steps` replaces the
    number of each recipe. Raises ValueError for an unknown recipe, for transfers in a circle, and
    where `steps` are too few.
    """
    ordered: dict[str, Recipe] = {}
    for pattern in patterns:
        for name in matching(pattern):
            for recipe in reversed(lineage(name)):
                ordered.setdefault(recipe.name, recipe)
    recipes = ordered.values()
    return [*recipes] if steps is None else [recipe.with_steps(steps) for recipe in recipes]


def lineage(name: str) -> list[Recipe]:
    """Return a recipe, the one that it starts from, the one that this starts from, and so on."""
    line = [get_recipe(name)]
    while (start := line[-1].init_from) is not None:
        line.append(get_recipe(start.recipe))
        if line[-1] in line[:-1]:
            raise ValueError(f"transfers in a circle: {' from '.join(r.name for r in line)}")
    return line


def children_of(name: str, among: Iterable[Recipe]) -> list[Recipe]:
    """Return the recipes that start from the weights of the one called `name`."""
    return [r for r in among if r.init_from is not None and r.init_from.recipe == name]
