"""Exported programs and ONNX: equal to the network at any batch, height and width."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from mlflow import onnx as onnx_flavor
from mlflow.models import Model
from mlflow.pytorch import load_model
from torch import nn

from models import ARCHITECTURES, build_model, needs_table
from pipeline.images.jpeg import quantization_table
from pipeline.networks.export import NetworkExport, export_network
from storage.registry.model_files import save_network
from tests.support.small_networks import awake, table_of

SHAPES = [(1, 8, 8), (3, 33, 47), (1, 40, 40), (1, 57, 64), (3, 8, 8)]
"""Images, height, width: few and many, small, odd and square, none the example's."""


QUICK = {"quickres"}
"""The network that is exported in the fast suite; the others are slow tests."""


def network_parameters() -> list:
    return [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(ARCHITECTURES)
    ]


@pytest.fixture(scope="module", params=network_parameters())
def exported(request) -> tuple[nn.Module, NetworkExport]:
    network = awake(request.param)
    return network, export_network(network)


@pytest.fixture(scope="module")
def cases(exported) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    """Inputs and what the clipped network makes of them, at each of SHAPES.

    An image a batch entry and, where the network needs them, a table each, no two equal.
    """
    network, _ = exported
    found = []
    for batch, height, width in SHAPES:
        tables = [table_of(network, 1, qf) for qf in (10, 40, 70)[:batch]]
        inputs = (torch.rand(batch, 1, height, width), *map(torch.cat, zip(*tables, strict=True)))
        with torch.no_grad():
            expected = network(*inputs).clamp(0, 1)
        assert expected.std() > 0.01
        found.append((inputs, expected))
    return found


def test_the_program_equals_the_clipped_network_at_any_size_and_batch(exported, cases):
    _, export = exported
    program = export.program.module()
    for inputs, expected in cases:
        torch.testing.assert_close(program(*inputs), expected, rtol=0, atol=1e-5)
    inputs, expected = cases[1]
    torch.testing.assert_close(export.module(*inputs), expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def saved(exported, tmp_path_factory) -> Path:
    """The folder that the registry keeps of an export."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    _, export = exported
    tags = save_network(export.module, folder, export.input_example, Model(), export.served)
    assert tags == {"onnx": "onnx/model.onnx"}
    return folder


@pytest.mark.slow
def test_onnx_equals_the_network_at_odd_sizes_and_batches(saved, cases):
    session = onnxruntime.InferenceSession(saved / "onnx" / "model.onnx")
    assert [path.name for path in (saved / "onnx").iterdir()] == ["model.onnx"]  # self-contained
    for inputs, expected in cases:
        given = dict(zip(("image", "table"), (x.numpy() for x in inputs), strict=False))
        restored = np.asarray(session.run(["restored"], given)[0])
        np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_mlflow_loads_what_was_saved_as_onnx_and_as_a_program(exported, saved, cases):
    network, _ = exported
    graph = onnx_flavor.load_model(str(saved)).graph
    assert [x.name for x in graph.input] == ["image", "table"][: 1 + needs_table(network)]
    program = load_model(str(saved))
    for inputs, expected in cases:
        torch.testing.assert_close(program(*inputs), expected, rtol=0, atol=1e-5)


def test_an_export_tells_how_it_may_be_tiled(exported):
    network, export = exported
    assert export.facts.tags["needs_table"] == str(needs_table(network))
    if hasattr(network, "pooled_features"):
        assert export.facts.tags.keys() == {"needs_table"}
    else:
        assert export.facts.tags["receptive_field"] == str(network.receptive_field)
        assert export.facts.tags["multiple"] == str(network.multiple)


class Steps(nn.Module):
    """A network that gives the first entry of each image's table, as a grey level."""

    needs_table = True

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return 0 * x + table[:, None, :1, :1] / 255


def test_a_table_is_the_second_input_of_the_program():
    tables = torch.stack([torch.full((8, 8), 51.0), torch.full((8, 8), 255.0)])
    restored = export_network(Steps()).program.module()(torch.rand(2, 1, 9, 17), tables)
    assert restored[:, 0, 0, 0].tolist() == pytest.approx([0.2, 1.0])


def test_a_default_table_is_kept_beside_the_program_of_a_network_that_needs_one():
    table = quantization_table(10)
    assert export_network(Steps(), table).facts.default_table == table.tolist()
    assert export_network(Steps()).facts.default_table is None
    assert export_network(Stretch(), table).facts.default_table is None
    with pytest.raises(ValueError, match=r"Steps: .* give \(8, 8\), values 1 to 255"):
        export_network(Steps(), np.zeros((8, 8), np.uint8))


class Stretch(nn.Module):
    """Map [0, 1] to [-1, 2]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x - 1


def test_an_output_outside_the_range_is_clipped():
    x = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).repeat(1, 1, 8, 2)
    output = export_network(Stretch()).program.module()(x)
    assert output[0, 0, 0, :5].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_the_example_is_an_input_of_two_images(exported):
    _, export = exported
    images = export.input_example[0]
    assert images.shape[:2] == (2, 1)
    assert images.dtype == np.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert export.module(*map(torch.from_numpy, export.input_example)).shape == images.shape


def test_exporting_leaves_the_network_as_it_was():
    network = build_model("arcnn", {"shrink_in_training": True}).train()
    export = export_network(network)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in export.module.parameters())
    with torch.no_grad():
        network.get_parameter("conv1.weight").zero_()
    assert export.module.get_parameter("network.conv1.weight").any()
