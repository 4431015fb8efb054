"""What flows decide before and after the work: parameters, order, stores, leaks, tables."""

import numpy as np
import pytest
from prefect.exceptions import ParameterTypeError

from flows import reporting
from flows.build_patches import build_patches, default_store
from flows.data_steps import refuse_evaluation_images
from flows.evaluate import evaluate
from flows.study import build_versions, default_sets, ordered_recipes, study
from flows.train import train
from pipeline.datasets import evaluation_hashes
from pipeline.evaluate import compare
from pipeline.recipes import RECIPES, get_recipe
from storage.schema import PatchSpec

SPEC = PatchSpec(side=32, stride=10, qfs=(10,), degradation="patch")


@pytest.mark.parametrize(
    ("flow", "parameters", "told"),
    [
        (build_patches, {"side": 33}, "multiple of 8"),
        (build_patches, {"side": 232}, "224"),
        (build_patches, {"qf": [0]}, "greater than or equal to 1"),
        (build_patches, {"qf": []}, "at least 1"),
        (build_patches, {"stride": 0}, "greater than or equal to 1"),
        (build_patches, {"degradation": "both"}, "'image' or 'patch'"),
        (build_patches, {"dataset": "nix"}, "live1, classic5, div2k"),
        (train, {"recipe": "nix"}, "quickres-qf10"),
        (study, {"recipes": ["nix"]}, "quickres-qf10"),
        (study, {"steps": 0}, "greater than or equal to 1"),
        (study, {"workers": 0}, "greater than or equal to 1"),
        (evaluate, {"dataset": ["live1:nix"]}, "choose all"),
        (evaluate, {"qf": [101]}, "less than or equal to 100"),
    ],
)
def test_a_bad_parameter_is_refused_with_what_is_allowed(flow, parameters, told):
    with pytest.raises(ParameterTypeError, match=told):
        flow.validate_parameters(parameters)


def test_the_parameter_schema_offers_the_recipes_as_choices():
    items = study.parameters.properties["recipes"]["items"]
    assert items["enum"] == sorted(RECIPES)


def test_a_recipe_comes_after_the_one_it_starts_from():
    names = [recipe.name for recipe in ordered_recipes(["arcnn-qf10", "quickres-qf20"], None)]
    assert names == ["arcnn-qf20", "arcnn-qf10", "quickres-qf20"]


def test_steps_replace_those_of_every_recipe():
    assert {recipe.steps for recipe in ordered_recipes(["arcnn-qf10"], 7)} == {7}


def test_every_dataset_and_spec_get_a_store_of_their_own():
    other = PatchSpec(side=40, stride=10, qfs=(10,), degradation="patch")
    uris = {
        default_store(dataset, spec)
        for dataset in ("sample", "bsds500", "bsds500:val", "folder:/a/x", "folder:/b/x")
        for spec in (SPEC, other)
    }
    assert len(uris) == 10


def test_one_store_for_recipes_of_different_specs_is_refused():
    recipes = [get_recipe("arcnn-qf20"), get_recipe("quickres-qf10")]
    with pytest.raises(ValueError, match="2 different patch specs"):
        build_versions(recipes, "sample", (), "somewhere")


def test_training_images_of_an_evaluation_set_are_refused_by_content():
    sha256, name = next(iter(evaluation_hashes().items()))
    with pytest.raises(ValueError, match=name):
        refuse_evaluation_images("folder:x", {"renamed.png": sha256})
    with pytest.raises(ValueError, match=r"bsds500:test/1\.jpg"):
        refuse_evaluation_images("bsds500", {"1.jpg": "ab"}, evaluated={"ab": "bsds500:test/1.jpg"})
    refuse_evaluation_images("folder:x", {"own.png": "cd"})


def test_a_study_scores_on_held_out_images_by_default():
    assert default_sets("sample") == ("sample:test",)
    assert default_sets("bsds500") == ("live1", "classic5")


def test_the_table_shows_jpeg_the_network_and_the_gain():
    flat = np.full((16, 16), 100, np.uint8)
    noisy = np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8)
    comparison = compare(lambda luma: luma, [("a", flat), ("b", noisy)], "mine", [10])
    jpeg, network, gain = reporting.score_rows("same", comparison)
    assert [row[""] for row in (jpeg, network, gain)] == ["JPEG", "same", "gain"]
    assert jpeg["psnr"] == network["psnr"]
    assert gain["psnr"] == 0
