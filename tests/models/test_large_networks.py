"""RDN, MemNet and TNRD: what is particular to each."""

import copy

import pytest
import torch
from torch import nn

from models import build_model
from models.memnet import MemNet
from models.rdn import RDN
from models.tnrd import SPACING, TNRD, DiffusionStep, Influence, dct_filters
from pipeline.recipes import memnet, rdn, tnrd
from tests.support.small_networks import SMALL

SMALL_RDN = {"blocks": 2, "layers": 2, "growth": 8}
SMALL_MEMNET = {"blocks": 2, "recursions": 3, "channels": 8}


@pytest.mark.parametrize(
    ("network", "options", "told"),
    [
        (RDN, {"blocks": 0}, "blocks 0: choose 1"),
        (RDN, {"growth": -1}, "growth -1: choose 1"),
        (MemNet, {"recursions": 0}, "recursions 0: choose 1"),
        (MemNet, {"channels": 0}, "channels 0: choose 1"),
        (TNRD, {"stages": 0}, "stages 0: choose 1"),
        (TNRD, {"filter_side": 9}, "filter_side 9: choose 3, 5 or 7"),
        (TNRD, {"gaussians": 4}, "gaussians 4: choose an odd number"),
    ],
)
def test_an_option_out_of_range_is_refused_with_the_choices(network, options, told):
    with pytest.raises(ValueError, match=told):
        network(**options)


def test_a_fresh_rdn_returns_its_input():
    x = torch.rand(2, 1, 9, 13)
    assert torch.equal(RDN(**SMALL_RDN)(x), x)


def test_every_block_of_rdn_reaches_the_fusion():
    """Silencing all blocks but one changes the features: each has its own way to the output."""
    network, x = RDN(**SMALL_RDN), torch.rand(1, 1, 12, 12)
    nn.init.normal_(network.output.weight)
    with torch.no_grad():
        whole = network(x)
        for block in range(2):
            changed = copy.deepcopy(network)
            own = slice(8 * block, 8 * block + 8)
            changed.get_submodule("fusion.0").get_parameter("weight")[:, own].zero_()
            assert not torch.allclose(changed(x), whole)


def test_memnet_has_the_papers_convolution_weights():
    with torch.device("meta"):
        network = MemNet()
    weights = [m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(weights) == 676_992


def test_each_run_of_memnets_unit_has_statistics_of_its_own():
    network = MemNet(**SMALL_MEMNET).train()
    network(torch.rand(4, 1, 16, 16))
    means = network.get_submodule("memory.0.conv1").get_buffer("mean")
    assert means.shape == (3, 8)
    assert all(mean.any() for mean in means)
    assert not torch.allclose(means[0], means[1], rtol=0.1)


def test_memnet_evaluates_as_it_trained():
    """Once the statistics have settled, one batch gives the same image in both modes."""
    torch.manual_seed(0)
    network, x = MemNet(**SMALL_MEMNET).train(), torch.rand(8, 1, 16, 16)
    with torch.no_grad():
        for _ in range(100):
            network(x)
        trained = network(x)
        evaluated = network.eval()(x)
    assert (evaluated - trained).abs().max() < 0.02 * trained.abs().max()


def test_tnrds_filters_start_as_the_dct_without_its_constant():
    basis = dct_filters(7).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(48), rtol=0, atol=1e-6)
    assert basis.sum(1).abs().max() < 1e-5
    filters = DiffusionStep(7, 63).filters()
    torch.testing.assert_close(filters.flatten(1), basis)


def test_tnrds_filters_keep_mean_0_and_norm_1_whatever_is_learned():
    stage = DiffusionStep(7, 63)
    nn.init.normal_(stage.coefficients, std=3)
    filters = stage.filters().flatten(1)
    torch.testing.assert_close(filters.norm(dim=1), torch.ones(48))
    assert filters.sum(1).abs().max() < 1e-5


def gaussian_sum(influence: Influence, z: torch.Tensor) -> torch.Tensor:
    """The formula itself, one Gaussian after the other."""
    count = influence.weights.shape[1]
    centres = SPACING * (torch.arange(count) - count // 2)
    bells = torch.exp(-0.5 * ((z[..., None] - centres) / SPACING) ** 2)
    return (bells * influence.weights[:, None, None, :]).sum(-1)


def test_the_tabulated_influence_is_the_sum_of_gaussians():
    influence = Influence(3, 63, slope=0.01)
    nn.init.normal_(influence.weights)
    z = torch.randn(2, 3, 9, 9) * 150
    torch.testing.assert_close(influence(z), gaussian_sum(influence, z), rtol=0, atol=2e-4)


def test_gradients_of_the_influence_are_those_of_the_sum():
    influence = Influence(3, 63, slope=0.01)
    nn.init.normal_(influence.weights)
    z = (torch.randn(2, 3, 9, 9) * 150).requires_grad_()
    inputs = (z, influence.weights)
    found = torch.autograd.grad(influence(z).square().sum(), inputs)
    expected = torch.autograd.grad(gaussian_sum(influence, z).square().sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 0.01 * other.abs().max()


def test_the_influence_vanishes_far_beyond_its_centres():
    influence = Influence(1, 3, slope=0.01)
    nn.init.ones_(influence.weights)
    assert influence(torch.tensor([[[[-1e4, 1e4]]]])).abs().max() < 1e-5


def test_a_fresh_tnrd_takes_noise_away_and_keeps_an_edge():
    torch.manual_seed(0)
    edge = torch.zeros(1, 1, 32, 32)
    edge[..., 16:] = 0.8
    noisy = edge + 0.01 * torch.randn(edge.shape)
    with torch.no_grad():
        restored = TNRD()(noisy)
    assert (restored - edge).square().mean() < 0.9 * (noisy - edge).square().mean()
    step = restored[..., 16:].mean() - restored[..., :16].mean()
    assert step.item() == pytest.approx(0.8, abs=0.005)


def test_tnrds_table_stays_exact_under_autocast():
    stage = DiffusionStep(7, 63)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = stage.influence.table()
    assert torch.equal(mixed, stage.influence.table())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lr"), [("memnet", 1e-3), ("quickres", 1e-3), ("rdn", 1e-3), ("tnrd", 1e-2)]
)
def test_the_loss_of_a_handful_of_patches_falls_tenfold(name, lr):
    torch.manual_seed(0)
    network = build_model(name, SMALL.get(name)).train()
    target = torch.rand(2, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    x = (target + 0.1 * torch.randn(target.shape)).clamp(0, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    losses: list[float] = []
    while not losses or (losses[-1] > losses[0] / 10 and len(losses) < 600):
        loss = nn.functional.mse_loss(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= losses[0] / 10


@pytest.mark.parametrize("family", [rdn, memnet, tnrd])
def test_a_family_has_its_papers_and_fast_recipes_for_qf_10_and_20(family):
    name = family.__name__.rsplit(".", 1)[-1]
    found = {recipe.name: recipe for recipe in family.recipes()}
    for qf in (10, 20):
        assert found[f"{name}-qf{qf}"].qfs == found[f"{name}-fast-qf{qf}"].qfs == (qf,)
        assert found[f"{name}-fast-qf{qf}"].steps < found[f"{name}-qf{qf}"].steps
    assert all(recipe.architecture == name for recipe in found.values())


def test_memnets_longest_step_is_the_authors():
    """Whatever the scale of the loss, a clipped gradient times the rate is 0.01."""
    for stage in memnet.paper_recipe(10).stages:
        assert stage.clip_norm is not None
        assert stage.lr * stage.clip_norm == pytest.approx(0.01)
