"""The block DCT and the bounds that a JPEG sets, against scipy's DCT and real JPEGs."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from models.layers.block_dct import (
    block_dct,
    block_idct,
    from_levels,
    rectify,
    rounding_allowance,
    tile_table,
    to_levels,
)
from pipeline.datasets.references import list_images
from pipeline.images.jpeg import compress, quantization_table
from pipeline.images.luma import read_luma
from storage import files

CPU = torch.device("cpu")
QFS = (5, 10, 20, 40, 60, 80, 95)


def tables(*qfs: int) -> Tensor:
    return torch.from_numpy(np.stack([quantization_table(qf) for qf in qfs])).float()


def synthetic() -> dict[str, np.ndarray]:
    """Images of (48, 64) that leave room for overshoot, so that no decoder clips them."""
    random = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(48) * 2, np.arange(64)) * 0.6 + 70
    checks = 90 + 70 * (np.add.outer(np.arange(48) // 3, np.arange(64) // 5) % 2)
    noise = random.normal(128, 15, (48, 64)).clip(90, 166)
    return {
        name: np.asarray(image).round().astype(np.uint8)
        for name, image in {"ramp": ramp, "checks": checks, "noise": noise}.items()
    }


def beyond_the_bounds(luma: np.ndarray, qf: int) -> tuple[float, float]:
    """Return how far the original's coefficients exceed Q / 2, and that less the allowance.

    Of the complete blocks in which the decoder clipped no pixel.
    """
    height, width = (side // 8 * 8 for side in luma.shape)
    pair = np.stack([luma, compress(luma, qf)[0]])[:, None, :height, :width]
    pixels = torch.from_numpy(pair.astype(np.float64))
    original, decoded = block_dct(pixels - 128).split(1)
    over = (original - decoded).abs() - tile_table(tables(qf), original) / 2
    allowance = rounding_allowance(CPU).repeat(height // 8, width // 8)
    clipped = torch.nn.functional.max_pool2d(((pixels <= 0) | (pixels >= 255))[1:].double(), 8)
    kept = clipped.repeat_interleave(8, -1).repeat_interleave(8, -2) == 0
    return over[kept].max().item(), (over - allowance)[kept].max().item()


def test_equals_the_orthonormal_dct_of_scipy_in_place():
    levels = np.random.default_rng(0).uniform(-128, 127, (2, 1, 16, 24))
    found = block_dct(torch.from_numpy(levels)).numpy()
    for row, column in [(0, 0), (8, 16)]:
        block = (..., slice(row, row + 8), slice(column, column + 8))
        wanted = np.asarray(dctn(levels[block], axes=(-2, -1), norm="ortho"))
        np.testing.assert_allclose(found[block], wanted, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_gives_the_pixels_back(dtype):
    x = torch.rand(2, 1, 24, 40, dtype=dtype)
    back = from_levels(block_idct(block_dct(to_levels(x))))
    assert back.dtype == dtype
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


def test_keeps_float32_precision_under_autocast_and_for_bfloat16():
    x = torch.rand(2, 1, 16, 16)
    exact = block_dct(to_levels(x.double()))
    with torch.autocast("cpu", torch.bfloat16):
        found = block_dct(to_levels(x))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)
    assert block_dct(to_levels(x.bfloat16())).dtype == torch.float32


def test_a_constant_image_has_only_the_mean_coefficient():
    coefficients = block_dct(torch.full((1, 1, 16, 16), 100.0))
    assert coefficients[..., ::8, ::8].allclose(torch.tensor(800.0))
    coefficients[..., ::8, ::8] = 0
    assert coefficients.abs().max() < 1e-4


def test_a_table_is_laid_over_every_block_with_rows_of_vertical_frequency():
    table = torch.arange(1.0, 129).reshape(2, 8, 8)
    tiled = tile_table(table, torch.zeros(2, 1, 16, 24))
    assert tiled.shape == (2, 1, 16, 24)
    assert torch.equal(tiled[:, 0, 8:, 16:], table)
    assert tiled[0, 0, 1, 0] == 9


@pytest.mark.parametrize("qf", QFS)
@pytest.mark.parametrize("name", sorted(synthetic()))
def test_the_originals_coefficients_lie_inside_the_bounds(name, qf):
    _, over = beyond_the_bounds(synthetic()[name], qf)
    assert over <= 1e-6


def test_the_allowance_for_rounding_is_needed_and_at_most_4():
    allowance = rounding_allowance(CPU)
    assert allowance.max().item() == pytest.approx(4)
    assert allowance[0, 0].item() == pytest.approx(4)
    assert max(beyond_the_bounds(synthetic()["noise"], qf)[0] for qf in QFS) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["classic5", "bsds500"])
def test_real_photographs_lie_inside_the_bounds_of_their_jpegs(datasets_root, dataset):
    images = list_images(dataset, root=datasets_root, purpose="evaluate")[:3]
    for image in images:
        luma = read_luma(files.read_bytes(image.uri), image.name)
        assert all(beyond_the_bounds(luma, qf)[1] <= 1e-6 for qf in QFS), image.name


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_forced_overshoot_is_clamped_to_exactly_half_a_step(sign):
    """One image of each quality factor in a batch; whole numbers make the difference exact."""
    decoded = torch.randint(-500, 500, (len(QFS), 1, 16, 24)).float()
    moved = rectify(decoded + sign * 1e4, decoded, tables(*QFS)) - decoded
    assert torch.equal(moved, sign * tile_table(tables(*QFS), decoded) / 2)


def test_what_lies_inside_the_bounds_passes_with_its_gradient():
    decoded = torch.zeros(1, 1, 8, 8)
    table = torch.full((1, 8, 8), 10.0)
    change = torch.linspace(-9, 9, 64).reshape(1, 1, 8, 8).requires_grad_()
    rectify(decoded + change, decoded, table).sum().backward()
    assert change.grad is not None
    assert torch.equal(change.grad == 1, change.detach().abs() <= 5)
