"""The graph of recipes, without Prefect and Ray."""

import pytest

from flows.planning.recipe_graph import children_of, lineage, matching, ordered_recipes
from pipeline.recipes import RECIPES


def test_a_glob_means_all_recipes_that_it_matches():
    assert matching("arcnn-qf?0") == [f"arcnn-qf{qf}" for qf in (10, 20, 30, 40)]
    assert matching("*") == list(RECIPES)
    assert matching("arcnn-qf20") == ["arcnn-qf20"]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("arcnnn-qf1*", r"no recipe matches 'arcnnn-qf1\*'.*arcnn-qf10"),
        ("arcn-qf10", "unknown recipe 'arcn-qf10'.*arcnn-qf10"),
        ("@*", "no recipe matches.*quickres-qf10"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_what_is_near(pattern, told):
    with pytest.raises(ValueError, match=told):
        matching(pattern)


def test_every_recipe_comes_once_and_after_the_one_it_starts_from():
    ordered = [recipe.name for recipe in ordered_recipes(["*", "arcnn-qf10"])]
    assert sorted(ordered) == sorted(RECIPES)
    for name in ordered:
        before = [recipe.name for recipe in lineage(name)[1:]]
        assert all(ordered.index(start) < ordered.index(name) for start in before)


def test_what_a_transfer_needs_is_added():
    hard = "arcnn-qf10-from-qf20"
    assert [r.name for r in ordered_recipes([hard])] == ["arcnn-qf20", hard]
    assert hard in [r.name for r in children_of("arcnn-qf20", RECIPES.values())]


def test_steps_replace_those_of_every_recipe():
    assert {recipe.steps for recipe in ordered_recipes(["arcnn-qf10-from-qf20"], 7)} == {7}
