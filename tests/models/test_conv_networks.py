"""The plain convolutional networks: sizes, switches, scales, merging, and that they can learn."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn
from torch.nn import functional

from models.arcnn import ARCNN, DeepARCNN, DeepARCNN1x1
from models.cascnn import CASCNN
from models.dcrn import DCRN
from models.dncnn import DnCNN
from models.losses import LOSSES
from models.srcnn import SRCNN, DeepSRCNN
from models.svoboda import L4, L8
from pipeline.images.jpeg import compress

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "arcnn": lambda: ARCNN(init="he"),
    "arcnn-deep": lambda: DeepARCNN(init="he"),
    "arcnn-deep-1x1": lambda: DeepARCNN1x1(init="he"),
    "srcnn": lambda: SRCNN(init="he"),
    "srcnn-deep": lambda: DeepSRCNN(init="he"),
    "l4": L4,
    "l8": L8,
    "dncnn": DnCNN,
    "dncnn without normalisation": lambda: DnCNN(batch_norm=False),
    "dcrn": DCRN,
    "cascnn": CASCNN,
}
SHRINKING = [ARCNN, DeepARCNN, DeepARCNN1x1, SRCNN, DeepSRCNN]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.dim() > 1)


@pytest.fixture(scope="module")
def textured_pairs() -> tuple[Tensor, Tensor]:
    """Four 8x8 blocks with much texture after JPEG at QF 10, and their originals, in [0, 1]."""
    original = data.camera()
    compressed, _ = compress(original, 10)
    blocks = [
        image.reshape(64, 8, 64, 8).swapaxes(1, 2).reshape(-1, 1, 8, 8) / np.float32(255)
        for image in (compressed, original)
    ]
    chosen = np.argsort(-blocks[0].std(axis=(1, 2, 3)))[:400:100]
    x, target = (torch.from_numpy(image[chosen]) for image in blocks)
    return x, target


@pytest.mark.parametrize(
    ("name", "total", "weights_only"),
    [
        ("arcnn", 106_561, 106_448),
        ("arcnn-deep", 110_929, 110_800),
        ("arcnn-deep-1x1", 106_833, 106_704),
        ("srcnn", 8_129, 8_032),
        ("srcnn-deep", 8_257, 8_144),
        ("l4", 72_097, 71_920),
        ("l8", 220_545, 220_064),
        ("dncnn", 667_008, 664_704),
        ("dncnn without normalisation", 665_921, 664_704),
        ("cascnn", 5_147_039 + 15, 5_144_987),
    ],
)
def test_the_papers_networks_have_the_papers_sizes(name, total, weights_only):
    network = NETWORKS[name]()
    assert (count(network), weights(network)) == (total, weights_only)


@pytest.mark.parametrize(
    ("g", "total"),
    [(4, 316_556), (8, 365_852), (16, 479_996), (32, 770_492), (64, 1_600_316)],
)
def test_dcrn_has_the_papers_size_at_every_dense_width(g, total):
    assert count(DCRN(g=g)) == total


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_overfitted_handful_of_blocks_has_a_tenth_of_its_loss(name, textured_pairs):
    torch.manual_seed(0)
    x, target = textured_pairs
    network = NETWORKS[name]().train()
    loss = LOSSES["multi_scale_mse" if name == "cascnn" else "mse"]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses: list[float] = []
    while not losses or losses[-1] > losses[0] / 10:
        assert len(losses) < 200, f"the loss went from {losses[0]} to {losses[-1]} only"
        value = loss(network(x), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())


@pytest.mark.parametrize("network", SHRINKING)
def test_a_training_patch_shrinks_to_the_papers_20x20_only_in_training(network):
    shrinking = network(shrink_in_training=True)
    x = torch.rand(2, 1, 32, 32)
    assert shrinking.train()(x).shape == (2, 1, 20, 20)
    assert shrinking.eval()(x).shape == x.shape
    assert network().train()(x).shape == x.shape


@pytest.mark.parametrize("network", SHRINKING)
def test_what_is_trained_on_the_centre_is_what_restores_it(network):
    """Padding inside the stack reaches 7 pixels at most into the 20x20."""
    trained = network(shrink_in_training=True, init="he").double()
    x = torch.rand(1, 1, 32, 32, dtype=torch.double)
    with torch.no_grad():
        centre, whole = trained.train()(x), trained.eval()(x)
    torch.testing.assert_close(centre[..., 7:-7, 7:-7], whole[..., 13:-13, 13:-13])


@pytest.mark.parametrize("network", [ARCNN, DeepARCNN, DeepARCNN1x1])
def test_a_border_of_the_image_is_what_a_larger_image_of_repeated_pixels_gives(network):
    torch.manual_seed(0)
    layers, image = network(init="he").double(), network(init="he", border="image").double()
    image.load_state_dict(layers.state_dict())
    x = torch.rand(1, 1, 24, 17, dtype=torch.double)
    larger = functional.pad(x, (20,) * 4, mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(image(x), layers(larger)[..., 20:-20, 20:-20])
        assert not torch.allclose(image(x), layers(x))
    with pytest.raises(ValueError, match="border 'zeros': choose one of"):
        network(border="zeros")


@pytest.mark.parametrize("network", [DeepARCNN, DeepARCNN1x1])
def test_the_deeper_arcnns_share_the_first_two_layers_of_arcnn(network):
    shallow, deep = ARCNN().state_dict(), network().state_dict()
    for key in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
        assert shallow[key].shape == deep[key].shape


@pytest.mark.parametrize("network", [L4, L8])
def test_svobodas_filters_start_centred_so_that_a_flat_image_stays(network):
    flat = torch.full((1, 1, 9, 12), 0.7)
    torch.testing.assert_close(network()(flat), flat)


def test_cascnn_gives_four_scales_in_training_and_the_image_alone_in_use():
    network, x = CASCNN(), torch.rand(2, 1, 24, 16)
    shapes = [tuple(image.shape) for image in network.train()(x)]
    assert shapes == [(2, 1, 24, 16), (2, 1, 12, 8), (2, 1, 6, 4), (2, 1, 3, 2)]
    with torch.no_grad():
        assert network.eval()(x).shape == x.shape


def test_cascnn_starts_from_uniform_weights_bounded_by_its_channels():
    network = CASCNN()
    bound = 513**-0.5
    first = network.c_up.state_dict()["0.weight"]
    assert first.abs().max().item() == pytest.approx(bound, rel=1e-4)
    assert first.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert network.a.state_dict()["1.weight"].tolist() == [0.25]


def test_dncnn_merged_restores_the_same_with_biases_alone():
    torch.manual_seed(0)
    network = DnCNN().double().train()
    for norm in [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    for _ in range(9):
        network(torch.rand(2, 1, 16, 16, dtype=torch.double))
    merged, x = network.eval().merged(), torch.rand(2, 1, 17, 12, dtype=torch.double)
    assert not merged.training
    assert count(merged) == 665_921
    assert not any(isinstance(part, nn.BatchNorm2d) for part in merged.modules())
    with torch.no_grad():
        assert (network(x) - x).abs().max() > 0.1
        torch.testing.assert_close(merged(x), network(x))
        torch.testing.assert_close(merged.merged()(x), merged(x))


def test_dcrn_with_the_pooled_mean_given_equals_dcrn_that_takes_it_itself():
    network, x = DCRN(g=4).double().eval(), torch.rand(2, 1, 17, 24, dtype=torch.double)
    with torch.no_grad():
        features = network.pooled_features(x)
        assert features.shape == (2, 64, 17, 24)
        mean = features.mean(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(network(x, mean), network(x))
        assert not torch.equal(network(x, 0 * mean), network(x))


@pytest.mark.parametrize(
    ("options", "less"),
    [
        ({"attention": False}, 2 * (64 * 64 + 64)),
        ({"skip": False}, 0),
        ({"activation": "relu"}, 3 * 8 + 2),
        ({"activation": "leaky_relu"}, 3 * 8 + 2),
    ],
)
def test_a_switch_of_dcrn_takes_away_what_it_names(options, less):
    torch.manual_seed(0)
    full, x = DCRN(), torch.rand(1, 1, 16, 16)
    torch.manual_seed(0)
    changed = DCRN(**options)
    assert count(full) - count(changed) == less
    assert not torch.equal(full(x), changed(x))


@pytest.mark.parametrize(("blocks", "dense_layers"), [(1, 5), (2, 3), (4, 1)])
def test_dcrn_of_other_depths_names_its_layers_and_its_receptive_field(blocks, dense_layers):
    network = DCRN(g=4, blocks=blocks, dense_layers=dense_layers)
    assert len(network.layer_names) == blocks + 4
    assert network.receptive_field == 2 * (blocks * (dense_layers + 2) + 2) + 1
    held = sum(count(network.get_submodule(name)) for name in network.layer_names)
    assert held == count(network)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"g": 0}, "g 0: choose 1"),
        ({"blocks": 0}, "blocks 0"),
        ({"dense_layers": 0}, "dense_layers 0"),
        ({"activation": "gelu"}, r"activation 'gelu'.*'leaky_relu', 'prelu', 'relu'"),
    ],
)
def test_dcrn_refuses_options_that_make_no_network(options, message):
    with pytest.raises(ValueError, match=message):
        DCRN(**options)
