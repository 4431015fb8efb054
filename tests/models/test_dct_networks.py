"""The networks that use the JPEG's quantisation table: DMCNN, DDCN, IDCN."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.ddcn import DDCN, mean_of_patches, patches_of
from models.dmcnn import DMCNN, DCTBranch, PixelBranch
from models.idcn import IDCN, from_quantised, position_deviation
from models.layers.block_dct import block_dct, block_idct, tile_table, to_levels
from models.losses import LOSSES
from pipeline.images.jpeg import compress, quantization_table

SMALL = {
    "dmcnn": lambda: DMCNN(width=8),
    "ddcn": lambda: DDCN(layers=3),
    "idcn": lambda: IDCN(blocks=1),
    "idcn-residual": lambda: IDCN(blocks=1, residual=True),
}
ODD_SIZES = [(8, 8), (9, 8), (33, 47), (57, 64)]


def awake(name: str) -> nn.Module:
    """Return a small network in eval mode whose every layer matters."""
    torch.manual_seed(0)
    network = SMALL[name]()
    for parameter in network.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    return network.eval()


def tables(*qfs: int) -> Tensor:
    return torch.from_numpy(np.stack([quantization_table(qf) for qf in qfs])).float()


def pairs(qf: int, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Return smooth synthetic patches after and before JPEG, each (N, 1, side, side) in [0, 1]."""
    y, x = np.mgrid[:side, :side]
    random = np.random.default_rng(1)
    waves = random.uniform(0.1, 0.6, (count, 2, 1, 1))
    originals = (128 + 90 * np.sin(waves[:, 0] * y + waves[:, 1] * x)).round().astype(np.uint8)
    decoded = np.stack([compress(original, qf)[0] for original in originals])
    inputs, targets = (torch.from_numpy(a)[:, None].float() / 255 for a in (decoded, originals))
    return inputs, targets


@pytest.mark.parametrize(
    ("network", "parameters"), [(DMCNN, 4_701_115), (DDCN, 1_144_796), (IDCN, 9_784_193)]
)
def test_has_the_published_number_of_parameters(network, parameters):
    with torch.device("meta"), torch.no_grad():
        assert sum(p.numel() for p in network().parameters()) == parameters


def test_dmcnns_branches_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        network = DMCNN()
    counts = [
        sum(p.numel() for p in getattr(network, layer).parameters())
        for layer in network.layer_names
    ]
    assert counts == [222_217, 4_478_897, 1]


def test_dmcnns_bottleneck_sees_145_pixels():
    torch.manual_seed(0)
    branch = PixelBranch(4).double()
    x = torch.rand(2, 1, 160, 160, dtype=torch.double, requires_grad=True)
    branch.encode(x[:1], x[1:])[2][0, :, 20, 20].sum().backward()
    assert x.grad is not None
    for axis in (2, 3):
        seen = x.grad.abs().sum((0, 1, 5 - axis)).nonzero()
        assert (seen.max() - seen.min() + 1).item() == 145


@pytest.mark.parametrize("size", ODD_SIZES)
def test_idcn_that_gives_a_residual_keeps_the_shape_of_odd_sized_images(size):
    x = torch.rand(2, 1, *size)
    with torch.no_grad():
        assert awake("idcn-residual")(x, tables(10, 40)).shape == x.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_batch_of_mixed_quality_factors_equals_one_at_a_time(name):
    network = awake(name).double()
    x, table = torch.rand(3, 1, 24, 32, dtype=torch.double), tables(10, 20, 80)
    with torch.no_grad():
        together = network(x, table)
        alone = [network(x[i : i + 1], table[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_another_table_changes_the_output(name):
    network, x = awake(name), torch.rand(1, 1, 24, 32)
    with torch.no_grad():
        right, wrong = network(x, tables(10)), network(x, tables(40))
    assert (right - wrong).abs().max() > 1e-4


@pytest.mark.parametrize("name", sorted(SMALL))
def test_computes_in_bfloat16_by_autocast_and_by_weights(name):
    network, x = awake(name), torch.rand(1, 1, 16, 24)
    with torch.no_grad():
        exact = network(x, tables(40))
        with torch.autocast("cpu", torch.bfloat16):
            cast = network(x, tables(40))
        low = network.bfloat16()(x.bfloat16(), tables(40))
    assert low.dtype == torch.bfloat16
    scale = exact.abs().max()
    assert (cast - exact).abs().max() < 0.05 * scale
    assert (low - exact).abs().max() < 0.05 * scale


@pytest.mark.parametrize("name", ["dmcnn", "ddcn", "idcn-residual"])
def test_a_fresh_network_returns_its_input(name):
    x = torch.rand(1, 1, 17, 24)
    with torch.no_grad():
        torch.testing.assert_close(SMALL[name]().eval()(x, tables(10)), x, rtol=0, atol=1e-6)


def test_dmcnns_coefficients_stay_inside_the_bounds_of_each_images_table():
    network, x, table = awake("dmcnn"), torch.rand(2, 1, 24, 32), tables(10, 60)
    with torch.no_grad():
        branch = network.get_submodule("dct")
        assert isinstance(branch, DCTBranch)
        change = branch.coefficients(x, table) - block_dct(to_levels(x))
    half = tile_table(table, change) / 2
    assert (change.abs() <= half + 1e-3).all()
    assert (change.abs() >= half - 1e-3).float().mean() > 0.2


def test_dmcnn_gives_three_scales_and_the_dct_branch_in_training():
    outputs = DMCNN(width=4).train()(torch.rand(2, 1, 32, 48), tables(10, 20))
    shapes = [tuple(output.shape[2:]) for output in outputs]
    assert shapes == [(32, 48), (16, 24), (8, 12), (32, 48)]


def test_ddcn_puts_its_patches_together_to_the_same_image():
    x = torch.rand(2, 1, 30, 41, dtype=torch.double)
    padded = nn.functional.pad(x, (7, 7, 7, 7), mode="replicate")
    patches = patches_of(padded)
    assert torch.equal(patches[0, :, 10, 9].reshape(8, 8), padded[0, 0, 10:18, 9:17])
    torch.testing.assert_close(mean_of_patches(patches), x, rtol=0, atol=1e-14)


def test_ddcns_bounds_leak_with_their_slope_beyond_half_a_step():
    bounds, table = DDCN(layers=2).bounds, torch.full((1, 8, 8), 51.0)  # half a step is 0.1
    change = torch.tensor([-0.3, -0.05, 0.1, 0.2]).expand(1, 64, 1, 4)
    found = bounds(change, table)[0, 7, 0].detach()
    torch.testing.assert_close(found, torch.tensor([-0.12, -0.05, 0.1, 0.11]))


def test_idcn_reads_its_channels_as_clamped_quantised_coefficients():
    x = torch.zeros(1, 64, 1, 1)
    x[0, 0] = 3.0  # clamped to half a step of the mean
    found = from_quantised(x, torch.full((1, 8, 8), 16.0))
    torch.testing.assert_close(found, torch.full_like(found, 0.5 * 16 / 255 / 8))


def test_idcns_position_map_is_the_deviation_of_uniform_quantisation_errors():
    table = tables(10)
    random = np.random.default_rng(0)
    steps = torch.from_numpy(random.uniform(-0.5, 0.5, (1, 1, 800, 800)))
    errors = block_idct(steps * tile_table(table, steps)) / 255
    measured = nn.functional.pixel_unshuffle(errors, 8).std((0, 2, 3)).reshape(8, 8)
    torch.testing.assert_close(position_deviation(table)[0], measured, rtol=0.03, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "loss", "lr"),
    [("dmcnn", "dual_domain", 2e-3), ("ddcn", "mse", 2e-3), ("idcn", "mse", 1e-3)],
)
def test_overfits_a_handful_of_patches_tenfold(name, loss, lr):
    torch.manual_seed(0)
    network, table = SMALL[name]().train(), tables(10, 10, 10)
    x, target = pairs(10, 3, 16)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    errors = []
    while len(errors) < 300 and (not errors or errors[-1] > errors[0] / 10):
        error = LOSSES[loss](network(x, table), target)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] <= errors[0] / 10
