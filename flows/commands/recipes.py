"""Commands about recipes: no Prefect, no Ray."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.markup import escape
from rich.tree import Tree

from flows.console import notes, out, print_json, show_rows
from flows.planning.recipe_graph import children_of, matching, ordered_recipes
from flows.settings import settings
from pipeline.recipes import Recipe, get_recipe
from storage.registry.model_registry import ModelRegistry
from storage.registry.registered_version import RegistryError


def list_recipes(*patterns: str, json: bool = False) -> None:
    """List the recipes.

    Args:
        patterns: names or quoted globs such as 'arcnn-*'; all recipes by default
        json: print one JSON array of rows and nothing else
    """
    names = dict.fromkeys(name for p in patterns or ["*"] for name in matching(p))
    rows = [_row(get_recipe(name)) for name in names]
    show_rows(rows, json=json, spare=("stride", "side", "JPEG of"))


def show_recipe(name: str) -> None:
    """Print every setting of a recipe as JSON.

    Args:
        name: the recipe
    """
    print_json(asdict(get_recipe(name)))


def graph(*patterns: str) -> None:
    """Show the transfers as trees, and the newest registered model of each recipe.

    Args:
        patterns: names or quoted globs such as 'arcnn-*'; all recipes by default. What a recipe
            starts from is shown too
    """
    recipes = ordered_recipes(patterns or ["*"])
    models = newest_models()
    for recipe in recipes:
        if recipe.init_from is None:
            out.print(_grown(Tree(_label(recipe, models)), recipe, recipes, models))


def newest_models() -> dict[str, str]:
    """Return the newest registered model of every recipe that has one, `models:/NAME/VERSION`.

    Empty where nothing was registered yet, or the registry cannot be reached.
    """
    if not settings().has_mlflow:
        return {}
    try:
        models = ModelRegistry(settings().mlflow_uri).list_models()
    except RegistryError as error:
        notes.print(f"[yellow]WARNING[/] {escape(str(error))}")
        return {}
    oldest_first = (v for versions in models.values() for v in reversed(versions))
    return {v.tags["recipe"]: v.uri for v in oldest_first if "recipe" in v.tags}


def _row(recipe: Recipe) -> dict[str, str | int]:
    patches = recipe.patches
    return {
        "recipe": recipe.name,
        "network": recipe.architecture,
        "QF": _short(recipe.qfs),
        "side": patches.side,
        "stride": patches.stride,
        "JPEG of": patches.degradation,
        "steps": recipe.steps,
        "starts from": recipe.init_from.recipe if recipe.init_from is not None else "",
    }


def _short(qfs: Sequence[int]) -> str:
    return str(qfs[0]) if len(qfs) == 1 else f"{qfs[0]} to {qfs[-1]}"


def _taken(layers: int | None) -> str:
    if layers is None:
        return "all layers"
    return "the first layer" if layers == 1 else f"the first {layers} layers"


def _grown(tree: Tree, recipe: Recipe, recipes: Sequence[Recipe], models: dict[str, str]) -> Tree:
    for child in children_of(recipe.name, recipes):
        _grown(tree.add(_label(child, models)), child, recipes, models)
    return tree


def _label(recipe: Recipe, models: dict[str, str]) -> str:
    taken = f" [dim]takes {_taken(recipe.init_from.layers)}[/]" if recipe.init_from else ""
    found = f" [green]{models[recipe.name]}[/]" if recipe.name in models else ""
    return f"{recipe.name}{taken}{found}"
