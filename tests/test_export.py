"""Exported programs: equal to the network at any batch, height and width, and self-contained."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from models import ARCHITECTURES, build_model
from pipeline.export import NetworkExport, export_network
from pipeline.jpeg import quantization_table
from tests.small_networks import awake, table_of

SIZES = [(8, 8), (33, 47), (40, 40)]
BATCHES = [1, 3]


QUICK = {"arcnn", "quickres"}
"""Networks that are exported in the fast suite; the others are slow tests."""


def network_parameters() -> list:
    return [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(ARCHITECTURES)
    ]


@pytest.fixture(scope="module", params=network_parameters())
def exported(request) -> tuple[nn.Module, NetworkExport]:
    network = awake(request.param)
    return network, export_network(network, quantization_table(10))


def test_the_program_equals_the_clipped_network_at_any_size_and_batch(exported):
    network, export = exported
    program = export.program.module()
    for size in SIZES:
        for batch in BATCHES:
            x = torch.rand(batch, 1, *size)
            with torch.no_grad():
                expected = network.eval()(x, *table_of(network, batch)).clamp(0, 1)
            torch.testing.assert_close(program(x), expected, rtol=0, atol=1e-5)
            torch.testing.assert_close(export.module(x), expected, rtol=0, atol=1e-5)


def test_an_export_tells_how_it_may_be_tiled(exported):
    network, export = exported
    if hasattr(network, "pooled_features"):
        assert export.tags == {}
    else:
        assert export.tags["receptive_field"] == str(network.receptive_field)
        assert export.tags["multiple"] == str(network.multiple)


class Steps(nn.Module):
    """A network that gives the first entry of each image's table, as a grey level."""

    needs_table = True

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return 0 * x + table[:, None, :1, :1] / 255


@pytest.mark.parametrize("batch", BATCHES)
def test_a_table_becomes_a_constant_of_the_program(batch):
    table = quantization_table(10)
    program = export_network(Steps(), table).program.module()
    assert program(torch.rand(batch, 1, 9, 17)).unique().tolist() == pytest.approx(
        [table[0, 0] / 255]
    )


def test_a_network_that_needs_a_table_and_gets_none_is_refused_with_the_next_step():
    with pytest.raises(ValueError, match=r"Steps needs .* export it for one quality factor"):
        export_network(Steps())
    with pytest.raises(ValueError, match=r"give \(8, 8\), values 1 to 255"):
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
    assert export.input_example.shape[:2] == (2, 1)
    assert export.input_example.dtype == np.float32
    assert 0 <= export.input_example.min() <= export.input_example.max() <= 1
    assert export.module(torch.from_numpy(export.input_example)).shape == export.input_example.shape


def test_the_module_exports_with_automatic_dimensions_too(exported):
    """MLflow turns every -1 of a signature into `Dim.AUTO`."""
    _, export = exported
    auto = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)}
    program = torch.export.export(
        export.module, (torch.from_numpy(export.input_example),), dynamic_shapes=auto
    ).module()
    for size in SIZES:
        for batch in BATCHES:
            x = torch.rand(batch, 1, *size)
            torch.testing.assert_close(program(x), export.module(x), rtol=0, atol=1e-5)


def test_exporting_leaves_the_network_as_it_was():
    network = build_model("arcnn", {"shrink_in_training": True}).train()
    export = export_network(network)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in export.module.parameters())
    with torch.no_grad():
        network.get_parameter("conv1.weight").zero_()
    assert export.module.get_parameter("network.conv1.weight").any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arcnn", "dmcnn"])
def test_a_saved_program_runs_where_this_project_cannot_be_imported(name, tmp_path):
    export = export_network(awake(name), quantization_table(10))
    path, x = tmp_path / "network.pt2", torch.rand(3, 1, 21, 34)
    torch.export.save(export.program, path)
    np.save(tmp_path / "x.npy", x.numpy())
    script = (
        "import numpy as np, torch\n"
        "y = torch.export.load('network.pt2').module()(torch.from_numpy(np.load('x.npy')))\n"
        "np.save('y.npy', y.numpy())\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True, timeout=120)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "y.npy")), export.module(x))
