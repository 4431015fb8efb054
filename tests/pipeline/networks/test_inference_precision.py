"""Networks restore in bfloat16 where that is asked for, or known to cost little."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from flows.planning import shipped_networks
from flows.planning.evaluated_images import images_of
from flows.planning.named_networks import open_network
from flows.planning.restoring_networks import available_networks
from flows.planning.shipped_networks import digest_of, shipped_weights
from models import ARCHITECTURES, build_model
from pipeline.evaluation.precision_loss import (
    Scores,
    in_both_precisions,
    loss_db,
    middles,
    with_loss,
)
from pipeline.evaluation.protocol import compare, jpeg_table
from pipeline.evaluation.scores import scores_csv
from pipeline.images.jpeg import compress
from pipeline.networks.devices import LOSS_LIMIT_DB, bfloat16_units, inference_precision
from pipeline.networks.export import export_network
from pipeline.networks.restorer import network_restorer
from pipeline.networks.weights import load_network, save_weights
from pipeline.restoring.one_photograph import UNCHANGED, restore_jpeg
from pipeline.served import precision
from pipeline.served.good_jpegs import GOOD_QF
from pipeline.served.model import ServedModel
from pipeline.served.network import ServedNetwork
from tests.benchmarks.precision import RESULTS, middles_loss_db
from tests.pipeline.served.test_photographs import jpeg
from tests.support.small_networks import awake
from tests.support.training_recipes import RECIPE

CPU = torch.device("cpu")
TABLE = jpeg_table(10)
NAMES = sorted(shipped_weights())
CAMERA = np.ascontiguousarray(data.camera()[120:251, 180:273])


@pytest.fixture(scope="module")
def compressed():
    return compress(CAMERA, 10)[0]


class Overflows(nn.Module):
    """Finite in float32: the largest float32 rounds to infinity in bfloat16."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 3.4e38)

    def forward(self, x):
        return self.layer(x) / 3.4e38


class KeepsToFloat32(nn.Module):
    """As exported programs that assert the type of what a layer gives."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        if self.layer(x).dtype != torch.float32:
            raise RuntimeError("expected Float")
        return x


@pytest.mark.parametrize(
    ("choice", "loss", "begun_in", "units", "expected"),
    [
        ("auto", 0.0049, None, "AMX", "bfloat16"),
        ("auto", -0.01, None, "AMX", "bfloat16"),
        ("auto", LOSS_LIMIT_DB, None, "AMX", "float32"),
        ("auto", None, None, "AMX", "float32"),
        ("auto", float("nan"), None, "AMX", "float32"),
        ("auto", 0.0, None, None, "float32"),
        ("auto", 0.0, "float32", "AMX", "float32"),
        ("auto", None, "bfloat16", "AMX", "bfloat16"),
        ("auto", 0.0, "bfloat16", None, "float32"),
        ("float32", 0.0, "bfloat16", "AMX", "float32"),
        ("bfloat16", 9.0, "float32", "AMX", "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_little_is_lost(
    processor, choice, loss, begun_in, units, expected
):
    processor(units)
    assert inference_precision(choice, CPU, loss, begun_in) == expected


def test_a_processor_without_bfloat16_refuses_it_and_says_what_it_has(processor):
    processor(None)
    for refused in (
        lambda: available_networks("quickres-qf10", "bfloat16"),
        lambda: open_network(str(shipped_weights()["quickres-qf10"]), "bfloat16"),
        lambda: served(0.0).predict(CAMERA, {"precision": "bfloat16"}),
    ):
        with pytest.raises(ValueError, match=r"does not compute in it.*choose float32 or auto"):
            refused()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_network_restores_in_bfloat16_and_differs_little(name, compressed):
    network = awake(name)
    exact = network_restorer(network, "cpu", tile=64)(compressed, TABLE)
    rounded = network_restorer(network, "cpu", tile=64, precision="bfloat16")(compressed, TABLE)
    assert rounded.dtype == np.uint8
    assert np.abs(exact.astype(int) - rounded).mean() < 1.5
    assert {parameter.dtype for parameter in network.parameters()} <= {torch.float32}


def test_what_bfloat16_gives_is_clipped_and_rounded_in_float32(compressed):
    restored = network_restorer(nn.Identity(), precision="bfloat16")(compressed, TABLE)
    np.testing.assert_array_equal(restored, compressed)


def test_values_that_overflow_in_bfloat16_are_an_error_that_names_the_way_out(compressed):
    network_restorer(Overflows())(compressed, TABLE)
    told = r"Overflows .*not finite in bfloat16.*weights are float32.*--precision float32"
    with pytest.raises(ValueError, match=told):
        network_restorer(Overflows(), precision="bfloat16")(compressed, TABLE)


def test_a_network_that_cannot_compute_in_bfloat16_is_an_error_that_names_the_way_out(compressed):
    network_restorer(KeepsToFloat32())(compressed, TABLE)
    told = r"KeepsToFloat32 fails in bfloat16 \(expected Float\).*--precision float32"
    with pytest.raises(ValueError, match=told):
        network_restorer(KeepsToFloat32(), precision="bfloat16")(compressed, TABLE)


def test_a_photograph_tells_what_its_network_computed_in(processor):
    shown = {}
    astronaut = Image.fromarray(data.astronaut()[:90, :120])
    photograph = jpeg(astronaut, quality=20)
    for choice in ("auto", "float32", "bfloat16"):
        networks = available_networks("quickres-blind", choice)
        shown[choice] = restore_jpeg(photograph, networks, kind="png")
    computed = {choice: one.precision for choice, one in shown.items()}
    assert computed == {"auto": "bfloat16", "float32": "float32", "bfloat16": "bfloat16"}
    assert shown["auto"].content == shown["bfloat16"].content != shown["float32"].content
    good = restore_jpeg(jpeg(astronaut, quality=97), networks, kind="jpeg")
    assert (good.network, good.precision) == (UNCHANGED, None)


def test_a_shipped_network_that_loses_more_stays_in_float32(processor, monkeypatch):
    record = json.loads(shipped_networks.RECORD.read_text())
    record["quickres-qf10"]["bfloat16_loss_db"] = 0.01
    monkeypatch.setattr(shipped_networks, "_record", lambda: record)
    (network,) = available_networks("quickres-qf10")
    assert network.precision == "float32"


def test_scores_are_float32_unless_asked_and_say_so_where_they_are_not(
    processor, compressed, tmp_path
):
    weights = str(shipped_weights()["quickres-blind"])
    assert open_network(weights).precision == "float32"
    opened = open_network(weights, "auto")
    assert (opened.precision, opened.label) == ("bfloat16", "quickres-blind (bfloat16)")
    assert opened.restorer is not None
    found = compare(opened.restorer, [("one", CAMERA)], "two", [10], precision=opened.precision)
    assert found.restored.row(10).as_json_row()["precision"] == "bfloat16"
    assert "precision" not in found.jpeg.row(10).as_json_row()
    assert "restored in bfloat16" in str(found)
    assert b"two bfloat16,10,one," in scores_csv([found.restored])


def test_weights_in_half_precision_become_a_float32_network(tmp_path):
    state = build_model(RECIPE.architecture, RECIPE.options).state_dict()
    path = str(tmp_path / "half.safetensors")
    save_weights(path, {name: value.bfloat16() for name, value in state.items()}, RECIPE, 7)
    _, network = load_network(path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name].bfloat16().float())


@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, 1e6), (torch.float64, 1e300)])
def test_weights_that_overflow_are_refused_with_the_files_name(tmp_path, dtype, value):
    state = load_network(str(shipped_weights()["quickres-qf10"]))[1].state_dict()
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    state["layer2.0.bias"] = torch.full((48,), value, dtype=torch.float64).to(dtype)
    path = tmp_path / "half.safetensors"
    save_weights(str(path), state, replace(RECIPE, options={}), 7)
    with pytest.raises(ValueError, match=rf"{path}: layer2.0.bias, {dtype} .* not finite"):
        load_network(str(path))


def test_a_shipped_file_that_is_not_the_recorded_one_is_refused(tmp_path, monkeypatch):
    for path in (*shipped_weights().values(), shipped_networks.RECORD):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(shipped_networks, "ZOO", tmp_path)
    weights = tmp_path / "quickres-qf10.safetensors"
    assert digest_of(str(weights)) == shipped_networks._record()["quickres-qf10"]["sha256"]
    other = shipped_weights()["quickres-blind"].read_bytes()
    weights.write_bytes(other)
    for refused in (
        lambda: available_networks("quickres-qf10"),
        lambda: open_network(str(weights)),
    ):
        with pytest.raises(ValueError, match=r"quickres-qf10.*is not the file that is shipped"):
            refused()
    found = {network.name for network in available_networks()}
    assert {name for name in found if name.endswith("(shipped)")} == {
        "unet-blind (shipped)",
        "unet-small-blind (shipped)",
        "unet-tiny-blind (shipped)",
        "dncnn-fast-blind (shipped)",
        "quickres-blind (shipped)",
    }


def served(loss: float | None) -> ServedModel:
    """Shipped weights as they are served, with what they are said to lose by bfloat16."""
    export = export_network(load_network(str(shipped_weights()["quickres-qf10"]))[1])
    facts = replace(export.facts, bfloat16_loss_db=loss)
    return ServedModel(ServedNetwork(precision.lay_out(export.program.module()), facts))


@pytest.mark.slow
def test_a_served_network_computes_in_bfloat16_where_little_is_lost_or_as_asked(
    processor, compressed
):
    network = load_network(str(shipped_weights()["quickres-qf10"]))[1]
    exact, rounded = (
        network_restorer(network, precision=p)(compressed, TABLE) for p in ("float32", "bfloat16")
    )
    assert (exact != rounded).any()
    np.testing.assert_array_equal(served(0.001).predict(compressed), rounded)
    for loss in (None, LOSS_LIMIT_DB):
        np.testing.assert_array_equal(served(loss).predict(compressed), exact)
    asked = served(None).predict(compressed, {"precision": "bfloat16"})
    np.testing.assert_array_equal(asked, rounded)
    asked = served(0.001).predict(compressed, {"precision": "float32"})
    np.testing.assert_array_equal(asked, exact)
    images = served(0.001).predict(np.full((2, 1, 9, 9), np.float32(0.5)))
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.float32
    with pytest.raises(ValueError, match="precision 'half': choose one of"):
        served(None).predict(compressed, {"precision": "half"})


@pytest.mark.slow
def test_what_a_network_loses_is_measured_when_it_is_registered(processor):
    def measured_of(export):
        return with_loss(export, images_of("sample:test", first=3), (10,))

    export = export_network(load_network(str(shipped_weights()["quickres-qf10"]))[1])
    assert "bfloat16_loss_db" not in export.facts.tags
    measured = measured_of(export)
    assert 0 < float(measured.facts.tags["bfloat16_loss_db"]) < LOSS_LIMIT_DB
    assert measured.served.facts["bfloat16_loss_db"] == measured.facts.bfloat16_loss_db
    fails = measured_of(export_network(awake("tnrd")))
    assert "bfloat16_loss_db" not in fails.facts.tags, "its program asserts float32"
    processor(None)
    assert measured_of(export) == export


def test_the_loss_is_the_most_at_one_quality_factor(compressed):
    scores: Scores = {"float32": {10: 30.0, 20: 32.0}, "bfloat16": {10: 29.9, 20: 32.1}}
    assert loss_db(scores) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no image"):
        in_both_precisions(lambda p: network_restorer(nn.Identity(), precision=p), [], [10])


def test_the_middle_of_an_image_is_at_most_so_large():
    wide = np.arange(8 * 20, dtype=np.uint8).reshape(8, 20)
    ((name, middle),) = middles([("a", wide)], side=10)
    assert name == "a"
    np.testing.assert_array_equal(middle, wide[:, 5:15])


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_file_is_the_recorded_one(name):
    record = json.loads(shipped_networks.RECORD.read_text())
    assert digest_of(str(shipped_weights()[name])) == record[name]["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_the_record_of_a_shipped_network_is_the_most_that_was_measured(name):
    measured = json.loads(RESULTS.read_text())["results"][name]["bfloat16_loss_db"]
    recorded = json.loads(shipped_networks.RECORD.read_text())[name]["bfloat16_loss_db"]
    assert recorded == max(loss for qf, loss in measured.items() if int(qf) <= GOOD_QF)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_network_loses_what_was_measured_on_live1(name, datasets_root):
    """On the middles of its images: all of them took the record's measurement minutes."""
    if bfloat16_units(CPU) is None:
        pytest.skip("this processor does not compute in bfloat16")
    measured = json.loads(RESULTS.read_text())["middles"][name]["bfloat16_loss_db"]
    assert middles_loss_db(shipped_weights()[name]) <= measured + 0.003
