"""The networks: shapes, sizes, initialisation, losses and transfer."""

import pytest
import torch
from torch import nn

from models import ARCHITECTURES, build_model, layer_names, transfer_layers
from models.arcnn import ARCNN
from models.losses import LOSSES
from models.padding import crop, replicate_to_multiple

PARAMETERS = {"arcnn": 106_561, "quickres": 65_864}
ODD_SIZES = [(8, 8), (9, 8), (33, 47), (40, 40), (57, 64)]


def awake(name: str) -> nn.Module:
    """Return a network whose every layer matters, in eval mode."""
    torch.manual_seed(0)
    network = build_model(name)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    return network.eval()


def declared(network: nn.Module, name: str) -> int:
    return getattr(network, name)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_has_the_known_number_of_parameters(name):
    assert sum(p.numel() for p in build_model(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_keeps_the_shape_of_odd_sized_images(name, training, size):
    x = torch.rand(2, 1, *size)
    assert build_model(name).train(training)(x).shape == x.shape


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_named_layers_hold_every_parameter_once(name):
    network = build_model(name)
    held = [
        id(p) for layer in layer_names(network) for p in network.get_submodule(layer).parameters()
    ]
    assert sorted(held) == sorted(id(p) for p in network.parameters())


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_named_layers_run_in_order(name):
    network, ran = awake(name), []
    for layer in layer_names(network):
        network.get_submodule(layer).register_forward_hook(
            lambda *_, layer=layer: ran.append(layer)
        )
    network(torch.rand(1, 1, 16, 16))
    assert tuple(ran) == layer_names(network)


@pytest.mark.parametrize("corner", [(32, 32), (33, 32), (32, 33), (33, 33)])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_no_pixel_outside_the_receptive_field_matters(name, corner):
    network = awake(name).double()
    x = torch.rand(1, 1, 66, 66, dtype=torch.double, requires_grad=True)
    network(x)[0, 0, corner[0], corner[1]].backward()
    assert x.grad is not None
    ys, xs = x.grad[0, 0].nonzero(as_tuple=True)
    reach = max(int((axis - at).abs().max()) for axis, at in zip((ys, xs), corner, strict=True))
    assert 0 < reach <= declared(network, "receptive_field") // 2


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_tile_at_a_multiple_equals_the_whole_image_inside(name):
    network = awake(name).double()
    multiple, margin = (declared(network, key) for key in ("multiple", "receptive_field"))
    x = torch.rand(1, 1, 71, 83, dtype=torch.double)
    corner = 5 * multiple
    with torch.no_grad():
        whole = network(x)[..., corner:, corner:]
        tile = network(x[..., corner:, corner:])
    inside = (..., slice(margin, None), slice(margin, None))
    torch.testing.assert_close(tile[inside], whole[inside], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_same_seed_gives_the_same_weights(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_model(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_gradient_reaches_every_parameter(name):
    network = awake(name).train()
    LOSSES["centre_mse"](network(torch.rand(2, 1, 32, 32)), torch.rand(2, 1, 32, 32)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_an_unknown_network_or_option_lists_what_exists():
    with pytest.raises(ValueError, match=r"'resnet'.*'arcnn', 'quickres'"):
        build_model("resnet")
    with pytest.raises(ValueError, match=r"\['width'\].*'channels'"):
        build_model("quickres", {"width": 3})
    with pytest.raises(ValueError, match="channels 0"):
        build_model("quickres", {"channels": 0})
    with pytest.raises(ValueError, match=r"init 'xavier'.*'paper', 'he'"):
        build_model("arcnn", {"init": "xavier"})


def test_arcnn_starts_from_the_papers_gaussian():
    weights = build_model("arcnn").get_submodule("conv2").state_dict()
    assert weights["weight"].std().item() == pytest.approx(0.001, rel=0.02)
    assert not weights["bias"].any()


def test_arcnn_shrinks_a_training_patch_to_the_papers_20x20():
    network = build_model("arcnn", {"shrink_in_training": True})
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 1, 20, 20)
    assert network.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 1, 32, 32)


def test_arcnn_trains_on_the_same_centre_that_it_restores():
    """Far enough from the border, padding makes no difference: 14x14 of the 20x20 are equal."""
    network = ARCNN(shrink_in_training=True, init="he").double()
    x = torch.rand(1, 1, 32, 32, dtype=torch.double)
    with torch.no_grad():
        whole, centre = network.eval()(x), network.train()(x)
    torch.testing.assert_close(centre[..., 3:-3, 3:-3], whole[..., 9:-9, 9:-9])


def test_a_fresh_quickres_returns_its_input():
    x = torch.rand(2, 1, 33, 40)
    assert torch.equal(build_model("quickres")(x), x)


@pytest.mark.parametrize("multiple", [1, 2, 8])
def test_padding_repeats_the_border_and_cropping_undoes_it(multiple):
    x = torch.rand(2, 3, 13, 22)
    padded = replicate_to_multiple(x, multiple)
    bottom, right = -13 % multiple, -22 % multiple
    reference = nn.functional.pad(x, (0, right, 0, bottom), mode="replicate")
    assert torch.equal(padded, reference)
    assert torch.equal(crop(padded, 13, 22), x)


def test_losses_are_the_mean_over_compared_pixels():
    target = torch.zeros(2, 1, 32, 32)
    target[..., 6:26, 6:26] = 0.5
    assert LOSSES["mse"](torch.zeros_like(target), target).item() == pytest.approx(
        0.25 * 400 / 1024
    )
    assert LOSSES["centre_mse"](torch.zeros(2, 1, 20, 20), target).item() == pytest.approx(0.25)
    assert LOSSES["centre_mse"](torch.zeros_like(target), target) == LOSSES["mse"](
        torch.zeros_like(target), target
    )


@pytest.mark.parametrize("side", [21, 34])
def test_losses_refuse_shapes_that_do_not_match(side):
    output, target = torch.zeros(1, 1, side, side), torch.zeros(1, 1, 32, 32)
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=rf"{side}, {side}.*32, 32"):
            loss(output, target)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_transfer_copies_the_first_layers_and_nothing_else(name):
    source, target = awake(name), build_model(name)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    transfer_layers(target, source.state_dict(), 2)
    taken = tuple(f"{layer}." for layer in layer_names(target)[:2])
    for key, value in target.state_dict().items():
        expected = source.state_dict()[key] if key.startswith(taken) else before[key]
        assert torch.equal(value, expected)


def test_transfer_of_another_shape_names_both_sides_and_copies_nothing():
    source, target = build_model("quickres", {"channels": 8}), build_model("quickres")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"layer1\.0\.weight.*\(8, 4, 3, 3\).*\(48, 4, 3, 3\)"):
        transfer_layers(target, source.state_dict(), 1)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_transfer_refuses_another_family_and_a_wrong_count():
    target = build_model("arcnn")
    with pytest.raises(ValueError, match=r"no 'conv1\.weight'"):
        transfer_layers(target, build_model("quickres").state_dict(), 1)
    for layers in (0, 5):
        with pytest.raises(ValueError, match=f"layers {layers}: ARCNN has 1 to 4"):
            transfer_layers(target, target.state_dict(), layers)
    with pytest.raises(ValueError, match="Linear declares no layers"):
        layer_names(nn.Linear(1, 1))
