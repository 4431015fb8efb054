"""Exported programs: equal to the network at any batch, height and width, and self-contained."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from models import ARCHITECTURES, build_model
from pipeline.export import NetworkExport, export_network

SIZES = [(8, 8), (33, 47), (40, 40), (57, 64)]
BATCHES = [1, 2, 5]


def awake(name: str) -> nn.Module:
    """Return a network whose every layer matters."""
    torch.manual_seed(0)
    network = build_model(name)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    return network


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def exported(request) -> tuple[nn.Module, NetworkExport]:
    network = awake(request.param)
    return network, export_network(network)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("size", SIZES)
def test_the_program_equals_the_clipped_network(exported, size, batch):
    network, export = exported
    x = torch.rand(batch, 1, *size)
    with torch.no_grad():
        expected = network.eval()(x).clamp(0, 1)
    assert torch.equal(export.program.module()(x), expected)
    assert torch.equal(export.module(x), expected)


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
            assert torch.equal(program(x), export.module(x))


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
def test_a_saved_program_runs_where_this_project_cannot_be_imported(exported, tmp_path):
    _, export = exported
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
