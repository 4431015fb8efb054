"""Tiles give what the whole image gives, for every network and for networks from outside."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

from models import ARCHITECTURES, build_model
from models.quickres import QuickRes
from pipeline.evaluation.protocol import jpeg_table
from pipeline.images.jpeg import compress
from pipeline.networks.restorer import apply_tiled, network_restorer, tiling_of
from pipeline.served.facts import facts_in
from pipeline.served.tiles import MIN_SIDE, Tiling, spans
from tests.support.small_networks import awake, table_of


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def compressed() -> np.ndarray:
    return compress(np.ascontiguousarray(data.camera()[120:251, 180:273]), 10)[0]


TABLE = jpeg_table(10)


class Blur(nn.Module):
    """A network from outside: it declares nothing about itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, stride=1)


class MeanOfTheImage(nn.Module):
    """A network without a finite receptive field."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True).expand_as(x)


@pytest.mark.parametrize("length", [8, 9, 31, 32, 33, 64, 65, 200])
@pytest.mark.parametrize(("side", "field", "multiple"), [(32, 19, 1), (32, 23, 2), (17, 145, 8)])
def test_the_contributions_of_the_tiles_cover_an_axis_once(length, side, field, multiple):
    found = spans(length, Tiling(side=side, receptive_field=field, multiple=multiple))
    covered = [pixel for span in found for pixel in range(span.start, span.stop)]
    assert covered == list(range(length))
    for span in found:
        assert span.start % multiple == span.outer_start % multiple == 0
        assert span.outer_start == 0 or span.outer_start <= span.start - field // 2
        assert span.outer_stop == length or span.outer_stop >= span.stop + field // 2
        assert span.outer_stop - span.outer_start >= MIN_SIDE


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_tiles_give_the_result_of_the_whole_image(name, compressed):
    network = awake(name)
    tiling = tiling_of(network, 48)
    assert tiling is not None
    x = torch.from_numpy(compressed[:101, :77])[None, None].float() / 255
    table = table_of(network, 1)
    with torch.inference_mode():
        whole, tiled = network(x, *table), apply_tiled(network, x, tiling, *table)
    assert not torch.allclose(whole, x, atol=0.01)
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("name", ["arcnn", "quickres"])
def test_a_restorer_gives_the_same_pixels_in_tiles_as_in_one_piece(name, compressed):
    network = awake(name)
    whole = network_restorer(network, tile=1000)(compressed, TABLE)
    tiled = network_restorer(network, tile=48)(compressed, TABLE)
    assert whole.dtype == np.uint8
    # a value that lies on a rounding boundary may fall to either side
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert (whole != tiled).mean() < 1e-3


class Attention(nn.Module):
    """A network that weighs its features by their mean over the whole image."""

    receptive_field = 5
    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 6, 5, padding=2)
        self.weights = nn.Conv2d(6, 6, 1)
        self.output = nn.Conv2d(6, 1, 1)

    def pooled_features(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.layer(x))

    def forward(self, x: torch.Tensor, pooled: torch.Tensor | None = None) -> torch.Tensor:
        features = self.pooled_features(x)
        mean = features.mean((2, 3), keepdim=True) if pooled is None else pooled
        return x + self.output(features * torch.sigmoid(20 * self.weights(mean)))


@pytest.mark.parametrize("side", [32, 41])
def test_a_mean_over_the_image_is_the_same_in_tiles(side, compressed):
    torch.manual_seed(0)
    network = Attention().eval()
    two = np.stack([compressed, 255 - compressed])  # each image of a batch has its own mean
    x = torch.from_numpy(two)[:, None].float() / 255
    with torch.inference_mode():
        whole = network(x)
        tiled = apply_tiled(network, x, Tiling(side=side, receptive_field=5))
        alone = network(x[:, :, :side, :side])
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(alone[..., :8, :8], whole[..., :8, :8], atol=1e-4)
    np.testing.assert_array_equal(
        network_restorer(network, tile=side)(compressed, TABLE),
        network_restorer(network)(compressed, TABLE),
    )


class StepsInTheCorner(nn.Module):
    """A network that needs the table: it gives one of its entries everywhere."""

    needs_table = True
    receptive_field = 1

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        assert table.shape == (len(x), 8, 8)
        return x * 0 + table[:, None, 1:2, 0:1] / 255


@pytest.mark.parametrize("tile", [32, 512])
def test_a_network_that_needs_the_table_gets_it_in_every_tile(tile, compressed):
    restored = network_restorer(StepsInTheCorner(), tile=tile)(compressed, TABLE)
    assert np.unique(restored).tolist() == [TABLE[1, 0]]


def test_a_table_of_another_shape_is_refused(compressed):
    with pytest.raises(ValueError, match=r"table of shape \(64,\): give \(8, 8\)"):
        network_restorer(StepsInTheCorner())(compressed, TABLE.ravel())


def test_an_understated_receptive_field_would_be_noticed(compressed):
    network = awake("quickres")
    x = torch.from_numpy(compressed)[None, None].float() / 255
    tiling = Tiling(side=32, receptive_field=1, multiple=QuickRes.multiple)
    with torch.inference_mode():
        whole, tiled = network(x), apply_tiled(network, x, tiling)
    assert QuickRes.receptive_field // 2 > MIN_SIDE
    assert not torch.allclose(tiled, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (8, 120), (33, 47)])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_images_of_any_size_from_8x8_keep_their_size(name, shape, compressed):
    image = np.resize(compressed, shape)
    restored = network_restorer(awake(name), tile=48)(image, TABLE)
    assert restored.shape == shape
    assert restored.dtype == np.uint8


@pytest.mark.parametrize("network", [Blur(), MeanOfTheImage()])
def test_a_network_that_declares_no_receptive_field_sees_the_whole_image(network, compressed):
    x = torch.from_numpy(compressed)[None, None].float() / 255
    expected = network(x)[0, 0].mul(255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(network_restorer(network, tile=32)(compressed, TABLE), expected)


def test_the_caller_may_state_the_receptive_field(compressed):
    whole = network_restorer(Blur())(compressed, TABLE)
    tiled = network_restorer(Blur(), tile=40, facts=facts_in({"receptive_field": "5"}))(
        compressed, TABLE
    )
    np.testing.assert_array_equal(tiled, whole)


def test_the_output_is_clipped_and_rounded_not_truncated(compressed):
    class Brighter(nn.Module):
        def forward(self, x):
            return x + 100.6 / 255

    expected = np.minimum(compressed.astype(int) + 101, 255)
    np.testing.assert_array_equal(network_restorer(Brighter())(compressed, TABLE), expected)


def test_a_restorer_evaluates_and_leaves_every_part_in_the_mode_it_was_in(compressed):
    network = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    network.train()
    network[1].eval()
    restored = network_restorer(network)(compressed, TABLE)
    np.testing.assert_array_equal(restored, compressed)
    assert network.training
    assert network[0].training
    assert not network[1].training


def test_a_network_that_changes_the_shape_is_refused_with_both_shapes(compressed):
    with pytest.raises(ValueError, match=r"MaxPool2d turned .*131, 93.* into .*65, 46"):
        network_restorer(nn.MaxPool2d(2))(compressed, TABLE)


def test_a_diverged_network_is_refused(compressed):
    class Diverged(nn.Module):
        def forward(self, x):
            return x * float("nan")

    with pytest.raises(ValueError, match="Diverged gave values that are not finite"):
        network_restorer(Diverged())(compressed, TABLE)


def test_a_tile_without_pixels_is_refused():
    with pytest.raises(ValueError, match="side 0: choose 1 or more pixels"):
        network_restorer(build_model("quickres", {}), tile=0)
