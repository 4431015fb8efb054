"""Validation sets: there or refused by name, never trained on, and what the PSNR is measured on."""

import math
import re
import shutil
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from flows.settings import settings
from flows.steps.checks import keep_apart
from flows.steps.image_sets import MOST_IMAGES, find_validation_sets
from pipeline.datasets import references
from pipeline.datasets.references import DatasetError
from pipeline.loading.loader import PatchLoader
from pipeline.networks.weights import load_network
from pipeline.recipes import RECIPES, get_recipe
from pipeline.recipes.comparisons import get_comparison, on_a_budget
from pipeline.training.__main__ import main
from pipeline.training.loop import train
from storage.files import StoreError
from tests.support.store_images import build, image_folder
from tests.support.training_recipes import RECIPE, STAGE, make_job, make_store

LOOKING = replace(STAGE, validate_every=40)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    """A folder of two images, the recipe that validates on them, and the store of their patches."""
    folder = tmp_path_factory.mktemp("validation")
    photos = image_folder(folder / "photos", 2, size=(100, 130))
    recipe = replace(RECIPE, stages=(LOOKING,), validation_set=f"folder:{photos}")
    return photos, recipe, build(photos, folder / "store", recipe.validation_patches).version


@pytest.fixture
def datasets_at(tmp_path, monkeypatch):
    monkeypatch.setenv("QFACTORY_DATASETS", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.parametrize(
    ("prefixes", "reference"),
    [
        (("arcnn-qf", "arcnn-deep-qf", "arcnn-rescaled-qf", "srcnn-qf"), "bsds500:val"),
        (("cascnn-qf",), "imagenet:val"),
        (("dcrn-qf",), "classic5"),
    ],
)
def test_the_papers_recipes_name_their_validation_sets(prefixes, reference):
    found = {recipe.validation_set for n, recipe in RECIPES.items() if n.startswith(prefixes)}
    assert found == {reference}
    assert references.parse(reference).dataset is not None


@pytest.mark.parametrize("name", ["arcnn-fig6", "arcnn-fig7", "arcnn-fig8", "dcrn-loss"])
def test_convergence_of_the_papers_recipes_is_looked_at_on_their_validation_set(name):
    recipes = on_a_budget(get_comparison(name).recipes, 400)
    sets = {recipe.looks_at for recipe in recipes}
    assert sets == {"classic5" if name.startswith("dcrn") else "bsds500:val"}
    assert {recipe.validation_share for recipe in recipes} == {0.0}, "all patches are trained on"


def test_a_validation_set_is_part_of_the_fingerprint_only_where_it_decides_the_weights():
    other = replace(RECIPE, stages=(LOOKING,), validation_set="classic5")
    assert other.fingerprint == replace(other, validation_set="bsds500:val").fingerprint
    assert replace(RECIPE, validation_set="classic5").fingerprint == RECIPE.fingerprint
    followed = replace(other, stages=(replace(LOOKING, schedule="plateau"),))
    assert followed.fingerprint != replace(followed, validation_set="bsds500:val").fingerprint


def test_the_psnr_is_that_of_the_validation_set_and_every_patch_is_trained_on(
    store, validation, tmp_path
):
    _, recipe, patches = validation
    job = make_job(store, tmp_path, recipe, validation_store=patches.uri)
    result = train(job)
    loader = PatchLoader(patches, [10], 8)
    _, network = load_network(result.weights)
    errors = []
    for batch in islice(loader.batches(), loader.steps_per_epoch):
        original, degraded = (p[:, None].float() / 255 for p in (batch.original, batch.degraded))
        with torch.no_grad():
            errors.append(F.mse_loss(network(degraded), original).item())
    found = result.history[-1].validation_psnr
    assert patches.rows % 8 == 0
    assert found == pytest.approx(-10 * math.log10(sum(errors) / len(errors)), abs=1e-4)
    blind = train(make_job(store, tmp_path / "without", replace(RECIPE, stages=(STAGE,))))
    assert [r.loss for r in blind.history] == [r.loss for r in result.history]


def test_a_training_without_its_validation_store_is_told_the_command_that_makes_it(store, tmp_path):
    recipe = replace(RECIPE, stages=(LOOKING,), validation_set="classic5")
    with pytest.raises(ValueError, match=r"small-qf10 validates on classic5: .*qfactory patches "):
        make_job(store, tmp_path, recipe)
    assert make_job(store, tmp_path, replace(RECIPE, validation_set="classic5")).recipe
    with pytest.raises(ValueError, match="looks at no validation set"):
        make_job(store, tmp_path, validation_store=store.uri)


def test_a_store_of_other_images_or_patches_is_no_validation_set(store, validation, tmp_path):
    _, recipe, patches = validation
    named = replace(recipe, validation_set="classic5")
    with pytest.raises(StoreError, match=r"patches of folder:.* validates on classic5"):
        train(make_job(store, tmp_path, named, validation_store=patches.uri))
    with pytest.raises(StoreError, match="stride 16 instead of 32"):
        train(make_job(store, tmp_path, recipe, validation_store=store.uri))


def test_the_command_refuses_a_validation_set_that_shares_images(
    validation, tmp_path, capsys, monkeypatch
):
    photos, recipe, patches = validation
    shared = build(photos, tmp_path / "shared").version
    monkeypatch.setattr("pipeline.training.__main__.get_recipe", lambda name: recipe)
    command = ["x", "--store", shared.uri, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*command, "--validation-store", patches.uri])
    assert "2 of its images are trained on too, such as 000.png" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command)
    assert f"validates on folder:{photos}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_validation_set_that_is_not_there_is_refused_by_name_with_the_next_step(datasets_at):
    looking = on_a_budget([get_recipe("arcnn-qf10")], 40)
    with pytest.raises(DatasetError, match=r"arcnn-qf10 validates on bsds500:val: .*fetch bsds500"):
        find_validation_sets(looking)
    assert find_validation_sets([get_recipe("arcnn-qf10")]) == {}, "nothing looks at it"
    (datasets_at / "BSDS500/val").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no images in it"):
        find_validation_sets(looking)


def test_a_validation_set_is_found_and_kept_apart_from_the_training_images(datasets_at):
    image_folder(datasets_at / "BSDS500/val", 3)
    found = find_validation_sets(on_a_budget([get_recipe("arcnn-qf10")], 40))
    images = found["bsds500:val"]
    assert len(images) == 3
    keep_apart("mine", {"own.png": "ab"}, {}, found, allowed=True)
    with pytest.raises(ValueError, match=r"bsds500:val: 1 of .* val/001\.png, which is mine\.png"):
        keep_apart("mine", {"mine.png": images[1].sha256}, {}, found, allowed=True)


def test_of_a_large_validation_set_some_images_are_taken_from_all_of_it(datasets_at):
    folder = image_folder(datasets_at / "ImageNet/val", 1)
    for number in range(1, 2 * MOST_IMAGES):
        shutil.copy(folder / "000.png", folder / f"{number:05}.png")
    (recipe,) = on_a_budget([get_recipe("cascnn-qf20")], 40)
    images = find_validation_sets([recipe])["imagenet:val"]
    assert len(images) == MOST_IMAGES
    assert re.findall(r"\d+", images[-1].name)[-1] > "01990"
