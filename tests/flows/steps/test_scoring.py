"""Scores are made once, and making them can be stopped."""

from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from flows.steps.scoring import keep_scores, kept_scores, scores_file, stoppable
from models import build_model
from pipeline.datasets.references import list_images
from pipeline.evaluation.protocol import compare, load_images
from pipeline.images.jpeg import quantization_table
from pipeline.networks.restorer import network_restorer
from pipeline.networks.weights import save_weights
from tests.support.store_images import image_folder
from tests.support.training_recipes import RECIPE


def test_scores_are_kept_for_these_weights_and_images_alone(tmp_path):
    network = build_model(RECIPE.architecture, RECIPE.options)
    weights = str(tmp_path / "weights.safetensors")
    save_weights(weights, network.state_dict(), RECIPE, step=0)
    sources = list_images(
        f"folder:{image_folder(tmp_path / 'photos', 2)}", root="", purpose="train"
    )
    kept = scores_file(weights, RECIPE, "photos", sources)
    assert kept_scores(kept) is None
    restorer = network_restorer(network.eval())
    comparison = compare(restorer, load_images(sources), "photos", RECIPE.evaluation_qfs)
    keep_scores(kept, comparison)
    assert kept_scores(kept) == comparison
    assert scores_file(weights, RECIPE, "photos", sources) == kept
    assert scores_file(weights, RECIPE, "photos", sources[:1]) != kept
    Path(sources[0].uri).write_bytes(Path(sources[1].uri).read_bytes())
    assert scores_file(weights, RECIPE, "photos", sources) != kept
    changed = scores_file(weights, RECIPE, "photos", sources[1:])
    save_weights(weights, network.state_dict(), RECIPE, step=1)
    assert scores_file(weights, RECIPE, "photos", sources[1:]) != changed
    Path(kept).write_text(Path(kept).read_text()[:100])
    assert kept_scores(kept) is None


def test_an_evaluation_ends_at_the_next_layer_once_it_is_told_to(tmp_path):
    weights, stop = str(tmp_path / "weights.safetensors"), Event()
    network = build_model(RECIPE.architecture, RECIPE.options)
    save_weights(weights, network.state_dict(), RECIPE, step=0)
    restorer = stoppable(weights, stop)
    luma = np.full((16, 16), 100, np.uint8)
    assert restorer(luma, quantization_table(10)).shape == (16, 16)
    stop.set()
    with pytest.raises(CancelledError):
        restorer(luma, quantization_table(10))
