"""Model cards: every section is there, with the numbers that are true of the version."""

from dataclasses import replace

import numpy as np
import pytest
from skimage import data
from torch import nn

from flows.reporting.model_cards import MAX_LENGTH, model_card
from models import ARCHITECTURES, build_model
from pipeline.datasets.catalogue import DATASETS
from pipeline.evaluation.protocol import compare
from pipeline.evaluation.scores import Comparison
from pipeline.images.degrade import Protocol
from pipeline.recipes import RECIPES, Recipe, get_recipe
from pipeline.training.job import TrainingResult
from storage.patches.versions import StoreVersion
from tests.support.small_networks import awake

SECTIONS = ["What it is", "Trained on", "Scores", "Limits", "How to load", "Licence"]


def compared(dataset: str, qfs: tuple[int, ...], degradation: Protocol = "image") -> Comparison:
    image = np.ascontiguousarray(data.camera()[100:164, 150:230])
    return compare(lambda luma, table: luma, [("a", image)], dataset, qfs, degradation)


def card_of(
    recipe: Recipe,
    scores: dict[str, Comparison],
    network: nn.Module | None = None,
    dataset: str = "bsds500",
) -> str:
    version = StoreVersion(
        uri="stores/x", number=1, spec=recipe.patches, dataset=dataset,
        dataset_fingerprint="f1f2", row_group_rows=16, shards=(), rejected=(), packages={},
        created="",
    )  # fmt: skip
    result = TrainingResult(
        weights="w.safetensors", steps=1234, seconds=56.7, history=(), finished=True
    )
    network = network or build_model(recipe.architecture, recipe.options)
    return model_card(
        name=f"qfactory-{recipe.architecture}-{recipe.label}",
        recipe=recipe,
        network=network,
        version=version,
        result=result,
        scores=scores,
    )


def sections_of(card: str) -> dict[str, str]:
    parts = card.split("\n## ")[1:]
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}


def test_a_card_tells_what_the_network_is_was_trained_on_and_is_for():
    recipe = get_recipe("arcnn-fast-qf10")
    card = card_of(recipe, {"live1": compared("live1", (10,))})
    told = sections_of(card)
    assert list(told) == SECTIONS
    assert "106,561 parameters, receptive field 19x19" in told["What it is"]
    assert "Dong et al." in told["What it is"]
    assert recipe.source in told["What it is"]
    assert "1,234 steps in 57 s" in told["Trained on"]
    assert "fingerprint `f1f2`" in told["Trained on"]
    assert "quality factor 10." in told["Limits"]
    assert 'load_model("models:/qfactory-arcnn-qf10@champion").predict(jpeg)' in told["How to load"]
    assert DATASETS["bsds500"].licence in told["Licence"]


def test_scores_stand_between_jpegs_own_and_the_published_ones():
    scores = compared("live1", (10,))
    card = card_of(get_recipe("arcnn-fast-qf10"), {"live1": scores})
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| live1")]
    assert [row[2] for row in rows[:2]] == ["JPEG", "**this**"]
    assert [float(row[3]) for row in rows[:2]] == [
        pytest.approx(result.row(10).metrics["psnr"], abs=0.005)
        for result in (scores.jpeg, scores.restored)
    ]
    papers = {row[2]: row[3:6] for row in rows[2:]}
    assert papers["(published: AR-CNN (CAS-CNN))"] == ["29.13", "0.8230", ""]
    assert any(psnr == "28.96" and uniform == "" for psnr, uniform, _ in papers.values())


def test_a_blind_network_has_a_line_for_each_quality_factor():
    recipe = replace(get_recipe("arcnn-fast-qf10"), name="arcnn-blind", qfs=(10, 20, 30, 40))
    card = card_of(recipe, {"live1": compared("live1", (10, 20, 30, 40))})
    assert "of quality factors 10, 20, 30, 40." in card
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| live1")]
    assert [row[1] for row in rows if row[2] == "**this**"] == ["10", "20", "30", "40"]
    assert "rescaled" not in card


def test_the_card_of_a_rescaled_network_says_how_it_was_scored():
    base = get_recipe("arcnn-fast-qf10")
    recipe = replace(base, patches=replace(base.patches, degradation="rescaled"))
    card = card_of(recipe, {"live1": compared("live1", (10,), "rescaled")})
    assert "rescaled and recompressed photos" in card
    assert "not comparable with results of the papers' standard protocol" in card
    assert "| live1 rescaled | 10 |" in card
    assert "published" not in card


def test_a_card_that_is_still_too_long_is_cut_and_says_so():
    recipe = replace(get_recipe("quickres-qf10"), source="a long story " * 500)
    card = card_of(recipe, {})
    assert len(card) == MAX_LENGTH
    assert card.endswith("(cut here: the registry holds no longer card)")


def test_the_licence_of_a_users_own_folder_is_not_guessed():
    card = card_of(get_recipe("quickres-qf10"), {}, dataset="folder:scans")
    assert "`folder:scans`: the licence of these images is their owner's" in card


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_network_has_a_card_that_mlflows_databases_can_hold(architecture):
    recipes = [recipe for recipe in RECIPES.values() if recipe.architecture == architecture]
    recipe = max(recipes, key=lambda recipe: len(recipe.qfs))
    sets = ("live1", "classic5", "bsds500:test")
    scores = {name: compared(name, recipe.evaluation_qfs) for name in sets}
    card = card_of(recipe, scores, network=awake(architecture))
    assert len(card) <= MAX_LENGTH
    assert list(sections_of(card)) == SECTIONS
    assert card.count("**this**") == len(sets) * len(recipe.evaluation_qfs)
