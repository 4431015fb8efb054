"""What the comparisons train, and the chart of how they converge."""

from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from pipeline.charts import draw_curves
from pipeline.recipes.comparisons import COMPARISONS, get_comparison, on_a_budget


def differing(one, other):
    """Names of the settings in which two recipes differ, but for name and source."""
    ours, theirs = asdict(one), asdict(other)
    return {name for name in ours if ours[name] != theirs[name]} - {"name", "source"}


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_compared_recipes_differ_in_one_thing(name):
    first, *others = COMPARISONS[name].recipes
    assert others
    for other in others:
        assert len(differing(first, other)) == 1, (first.name, other.name)


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_on_a_budget_all_train_equally_long_after_what_they_start_from(name):
    recipes = on_a_budget(COMPARISONS[name].recipes, 400)
    done = set()
    for recipe in recipes:
        assert recipe.steps == 400
        assert recipe.init_from is None or recipe.init_from.recipe in done
        assert all(stage.validate_every == 10 for stage in recipe.stages)
        assert recipe.validation_share > 0
        done.add(recipe.name)
    assert {recipe.name for recipe in COMPARISONS[name].recipes} <= done


def test_an_unknown_comparison_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'arcnn-fig9'.*'arcnn-fig6'.*'dcrn-width'"):
        get_comparison("arcnn-fig9")


def test_a_chart_shows_every_curve_in_its_own_colour(tmp_path):
    path = tmp_path / "curves.png"
    curves = {"up": [(0, 20.0), (10, 28.0)], "flat": [(0, 24.0), (10, 24.0)]}
    draw_curves(curves, path, title="t", x_label="steps", y_label="dB")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    assert sum((counts > 200) & (np.ptp(colours, axis=1) > 80)) >= 2
