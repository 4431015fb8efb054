"""What the comparisons train."""

from dataclasses import asdict

import pytest

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
        found = differing(first, other)
        if name.startswith("arcnn-fig6"):  # depth: how five layers begin is part of it
            assert "architecture" in found <= {"architecture", "options", "init_from"}
        else:
            assert len(found) == 1, (first.name, other.name)


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_on_a_budget_all_train_equally_long_after_what_they_start_from(name):
    recipes = on_a_budget(COMPARISONS[name].recipes, 400)
    done = set()
    for recipe in recipes:
        assert recipe.steps == 400
        assert recipe.init_from is None or recipe.init_from.recipe in done
        assert all(stage.validate_every == 10 for stage in recipe.stages)
        assert bool(recipe.validation_share) != bool(recipe.validation_set)
        done.add(recipe.name)
    assert {recipe.name for recipe in COMPARISONS[name].recipes} <= done


def test_an_unknown_comparison_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'arcnn-fig9'.*'arcnn-fig6'.*'dcrn-width'"):
        get_comparison("arcnn-fig9")
