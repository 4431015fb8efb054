"""Weights as they ship: half the bytes, the same network."""

import pytest
import torch

from models import build_model
from pipeline.networks.weights import load_network, load_weights, main, save_weights
from tests.support.training_recipes import RECIPE


@pytest.fixture
def trained(tmp_path):
    torch.manual_seed(0)
    network = build_model(RECIPE.architecture, RECIPE.options)
    uri = str(tmp_path / "weights.safetensors")
    save_weights(uri, network.state_dict(), RECIPE, 7)
    return uri, network


def test_halved_weights_are_the_rounded_ones_of_the_same_origin(trained, tmp_path):
    uri, network = trained
    half = tmp_path / "half.safetensors"
    main([uri, str(half)])
    origin, loaded = load_network(str(half))
    assert origin == load_weights(uri)[0]
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    assert half.stat().st_size < 0.6 * (tmp_path / "weights.safetensors").stat().st_size


def test_weights_too_large_for_float16_are_refused_and_nothing_is_written(
    trained, tmp_path, capsys
):
    uri, network = trained
    state = {**network.state_dict(), "layer2.0.bias": torch.full((8,), 1e5)}
    save_weights(uri, state, RECIPE, 7)
    with pytest.raises(SystemExit):
        main([uri, str(tmp_path / "half.safetensors")])
    told = capsys.readouterr().err
    assert "float16 ends at 65504" in told
    assert "layer2.0.bias" in told
    assert not (tmp_path / "half.safetensors").exists()
