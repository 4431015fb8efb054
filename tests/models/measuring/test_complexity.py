"""What networks cost: the papers' own numbers, and what the command prints."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flows.commands import models_check
from models import ARCHITECTURES, build_model
from models.dmcnn import DMCNN, PixelBranch
from models.measuring.complexity import complexity, multiply_adds_per_pixel, total_memory_mb
from models.measuring.receptive_field import dependence, receptive_field
from tests.support.small_networks import SMALL


@pytest.mark.parametrize(
    ("g", "published"), [(4, 33.56), (8, 36.39), (16, 42.10), (32, 53.75), (64, 78.01)]
)
def test_dcrn_has_its_papers_memory_at_each_width(g, published):
    network = build_model("dcrn", {"g": g})
    assert total_memory_mb(network) == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(
    ("name", "published"), [("arcnn", 3.16), ("dncnn", 46.31), ("rdn", 861.97)]
)
def test_the_networks_dcrn_is_compared_with_have_their_published_memory(name, published):
    with torch.device("meta"):
        network = ARCHITECTURES[name]()
    assert total_memory_mb(network) == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *(
            ("arcnn", 19),
            ("arcnn-deep", 21),
            ("arcnn-deep-1x1", 19),
            ("srcnn", 13),
            ("srcnn-deep", 13),
            ("dncnn", 41),
        ),
        *(("dcrn", 47), ("tnrd", 61)),
    ],
)
def test_the_measured_receptive_field_is_the_known_one(name, side):
    assert receptive_field(build_model(name)) == side


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("memnet", 149), ("rdn", 265)])
def test_the_receptive_field_of_deep_networks_does_not_fade_away(name, side):
    network = build_model(name)
    assert receptive_field(network) == side == network.receptive_field


def test_dmcnns_bottleneck_sees_145_pixels_of_its_branchs_input():
    class Bottleneck(nn.Module):
        multiple = DMCNN.multiple

        def __init__(self) -> None:
            super().__init__()
            self.branch = PixelBranch(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.branch.encode(x, x)[2]

    seen = [found for axis in (2, 3) for found in dependence(Bottleneck(), axis)]
    assert max(last - first + 1 for _, first, last in seen) == 145


def test_modules_and_functions_count_the_same():
    class Modules(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.norm = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.norm(self.conv(x)))

    class Functions(Modules):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.conv2d(x, self.conv.weight, self.conv.bias)
            mean, variance = self.norm.running_mean, self.norm.running_var
            return F.relu(F.batch_norm(y, mean, variance, self.norm.weight, self.norm.bias))

    numbers = 80 + 16 + 2 * 3 * 8 * 38**2 + 40**2
    assert total_memory_mb(Modules()) == total_memory_mb(Functions()) == numbers * 4 / 2**20


@pytest.mark.parametrize(
    ("name", "multiply_adds"), [("arcnn", 106_448), ("srcnn", 8_032), ("dncnn", 664_704)]
)
def test_a_pixel_costs_a_multiply_add_a_weight_where_nothing_is_strided(name, multiply_adds):
    assert multiply_adds_per_pixel(build_model(name)) == multiply_adds


def test_work_done_once_an_image_costs_no_pixel_anything():
    with_attention, without = (build_model("dcrn", {"attention": on}) for on in (True, False))
    assert multiply_adds_per_pixel(with_attention) == multiply_adds_per_pixel(without)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_network_can_be_measured(name):
    network = build_model(name, SMALL.get(name))
    assert total_memory_mb(network) > 0
    assert multiply_adds_per_pixel(network) > 0


@pytest.mark.parametrize("name", ["dcrn", "dmcnn", "tnrd"])
def test_measuring_leaves_a_network_as_it_was(name):
    network = build_model(name, SMALL.get(name)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = complexity(network)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert min(found.total_memory_mb, found.multiply_adds_per_pixel, found.receptive_field) > 0
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_the_command_prints_a_row_a_network_sorted_by_name(capsys):
    models_check.complexity("srcnn", "arcnn", json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["network"] for row in rows] == ["arcnn", "srcnn"]
    assert rows[0] == {
        "network": "arcnn",
        "parameters": 106_561,
        "total_memory_mb": pytest.approx(3.16, abs=0.005),
        "multiply_adds_per_pixel": 106_448,
        "receptive_field": 19,
    }
    models_check.complexity("arcnn")
    shown = capsys.readouterr()
    assert "106,561" in shown.out
    assert "3.16" in shown.out
    assert "held fixed" in shown.err


def test_the_command_refuses_an_unknown_network():
    with pytest.raises(ValueError, match=r"'nix'.*'arcnn'"):
        models_check.complexity("nix")
