"""Which recipes are trained side by side to see what one choice does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from pipeline.recipes import get_recipe
from pipeline.recipes.arcnn import CONVERGENCE
from pipeline.recipes.base import Recipe
from pipeline.recipes.dcrn import ABLATIONS, ablations

TRANSFERS = MappingProxyType(
    {
        "fig6": "from the shallow network to a deeper one, and five layers by He et al.'s rule",
        "fig7": "from quality factor 20 to 10",
        "fig8": "from plain JPEG to rescaled and recompressed",
    }
)
VALIDATION_SHARE = 0.02
LOOKS = 40  # validations within a training, about
LEAST_STEPS = 10  # between two of them


@dataclass(frozen=True, kw_only=True)
class RecipeComparison:
    """Recipes that differ in one thing."""

    title: str
    source: str
    """Paper and figure or table."""
    recipes: tuple[Recipe, ...]


def _convergence(figure: str) -> RecipeComparison:
    drawn, _, variant = figure.partition("-")
    return RecipeComparison(
        title=f"AR-CNN{variant and f', {variant}'}: {TRANSFERS[drawn]}",
        source=f"Dong et al. 2015, figure {drawn[3]}",
        recipes=tuple(get_recipe(name) for name in CONVERGENCE[figure]),
    )


def _ablation(study: str) -> RecipeComparison:
    return RecipeComparison(
        title=f"DCRN: {study.replace('-', ' ')}",
        source="Lee et al. 2021, tables 3 and 4, figure 5",
        recipes=ablations(study),
    )


COMPARISONS: Mapping[str, RecipeComparison] = MappingProxyType(
    {
        **{f"arcnn-{figure}": _convergence(figure) for figure in CONVERGENCE},
        **{f"dcrn-{study}": _ablation(study) for study in (*ABLATIONS, "loss")},
    }
)


def get_comparison(name: str) -> RecipeComparison:
    """Return the comparison called `name`. Raises ValueError that lists the known names."""
    if name not in COMPARISONS:
        raise ValueError(f"unknown comparison {name!r}: choose one of {sorted(COMPARISONS)}")
    return COMPARISONS[name]


def on_a_budget(recipes: Sequence[Recipe], steps: int) -> list[Recipe]:
    """Return the recipes, those that they start from in front, as a comparison trains them.

    Each takes `steps` in all, and looks at its PSNR about 40 times: on its validation set, or on
    patches that it holds out.
    """
    ordered: dict[str, Recipe] = {}

    def add(recipe: Recipe) -> None:
        if recipe.init_from is not None:
            add(get_recipe(recipe.init_from.recipe))
        ordered.setdefault(recipe.name, _validated(recipe.with_steps(steps)))

    for recipe in recipes:
        add(recipe)
    return list(ordered.values())


def _validated(recipe: Recipe) -> Recipe:
    every = min(recipe.steps, max(LEAST_STEPS, recipe.steps // LOOKS))
    stages = tuple(replace(stage, validate_every=every) for stage in recipe.stages)
    share = 0.0 if recipe.validation_set else recipe.validation_share or VALIDATION_SHARE
    return replace(recipe, stages=stages, validation_share=share)
