"""The networks: shapes, sizes, initialisation, losses and transfer."""

import math
import re

import pytest
import torch
from torch import Tensor, nn

from models import ARCHITECTURES, build_model, layer_names, transfer_layers
from models.arcnn import ARCNN
from models.layers.padding import crop, replicate_to_multiple
from models.losses import LOSSES
from models.measuring.receptive_field import receptive_field
from tests.support.small_networks import SMALL, awake, table_of

ODD_SIZES = [(8, 8), (9, 8), (33, 47), (57, 64)]
NAMES = sorted(ARCHITECTURES)
WITH_TABLE = [name for name in NAMES if getattr(ARCHITECTURES[name], "needs_table", False)]


def small(name: str) -> nn.Module:
    """Return a fresh network of an architecture, small where it can be."""
    torch.manual_seed(0)
    return build_model(name, SMALL.get(name))


def images(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.parametrize("name", NAMES)
def test_has_as_many_parameters_as_its_description_says(name):
    told = re.search(r"([\d,]+)\s+parameters", ARCHITECTURES[name].__doc__ or "")
    assert told, f"say in the docstring of {name}'s class how many parameters it has"
    with torch.device("meta"):
        network = ARCHITECTURES[name]()
    assert sum(p.numel() for p in network.parameters()) == int(told[1].replace(",", ""))


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_shape_of_odd_sized_images(name, size):
    network, x = awake(name), torch.rand(2, 1, *size)
    with torch.no_grad():
        output = network(x, *table_of(network, 2))
    assert output.shape == x.shape
    assert output.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gives_the_whole_image_first_in_training(name):
    network, x = small(name).train(), torch.rand(2, 1, 24, 40)
    outputs = images(network(x, *table_of(network, 2)))
    assert outputs[0].shape == x.shape
    assert all(output.shape[:2] == (2, 1) for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_computes_in_bfloat16_by_autocast_and_by_weights(name):
    network, x = awake(name), torch.rand(2, 1, 16, 24)
    table = table_of(network, 2)
    with torch.no_grad():
        exact = network(x, *table)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(x, *table)
        half = network.bfloat16()(x.bfloat16(), *table)
    for output in (mixed, half):
        assert (output.float() - exact).abs().mean() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_restored_alike_alone_and_in_a_batch(name):
    network, x = awake(name), torch.rand(3, 1, 16, 24)
    with torch.no_grad():
        together = network(x, *table_of(network, 3))
        alone = network(x[1:2], *table_of(network, 1))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if getattr(ARCHITECTURES[name], "needs_table", False)]
)
def test_each_image_of_a_batch_is_restored_by_its_own_table(name):
    network, x = awake(name), torch.rand(1, 1, 16, 24).expand(2, -1, -1, -1)
    coarse, fine = table_of(network, 1, qf=5)[0], table_of(network, 1, qf=90)[0]
    with torch.no_grad():
        together = network(x, torch.cat([coarse, fine]))
        apart = torch.cat([network(x[:1], coarse), network(x[1:], fine)])
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(apart[0], apart[1], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_named_layers_hold_everything_that_is_learned_once(name):
    network = small(name)
    held = [
        id(p) for layer in layer_names(network) for p in network.get_submodule(layer).parameters()
    ]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    prefixes = tuple(f"{layer}." for layer in layer_names(network))
    assert all(key.startswith(prefixes) for key in network.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_the_named_layers_run_in_order(name):
    network, ran = awake(name), []
    for layer in layer_names(network):
        network.get_submodule(layer).register_forward_hook(
            lambda *_, layer=layer: ran.append(layer)
        )
    network(torch.rand(1, 1, 16, 16), *table_of(network, 1))
    assert tuple(ran) == layer_names(network)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "cascnn" else n for n in NAMES]
)
def test_no_pixel_outside_the_declared_receptive_field_matters(name):
    network = small(name)
    declared = network.receptive_field
    assert isinstance(declared, int)
    assert 0 < receptive_field(network) <= declared


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights(name):
    states = [small(name).state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter(name):
    network = awake(name).train()
    outputs = images(network(torch.rand(2, 1, 32, 32), *table_of(network, 2)))
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    silent = [
        key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert silent == []


def test_an_unknown_network_or_option_lists_what_exists():
    with pytest.raises(ValueError, match=r"'resnet'.*'arcnn', .*'quickres'"):
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


def test_cascnn_draws_weights_and_biases_between_the_roots_of_its_input_channels():
    torch.manual_seed(0)
    for layer in build_model("cascnn").modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        bound = layer.in_channels**-0.5
        for drawn in layer.parameters():
            assert drawn.abs().max().item() <= bound
            if drawn.numel() > 100:
                assert drawn.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)
                assert drawn.mean().item() == pytest.approx(0, abs=bound / 4)


def wide_convolutions(name):
    """The convolutions that hold enough weights to tell their distribution."""
    modules = build_model(name).modules()
    found = [m for m in modules if isinstance(m, nn.Conv2d) and m.weight.numel() > 4_000]
    assert found
    return found


@pytest.mark.parametrize("name", ["dcrn", "idcn"])
def test_starts_from_xaviers_uniform_weights(name):
    for conv in wide_convolutions(name):
        outputs, inputs, *kernel = conv.weight.shape
        bound = (6 / ((inputs + outputs) * math.prod(kernel))) ** 0.5
        assert conv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert conv.bias is None or not conv.bias.any()


@pytest.mark.parametrize("name", ["dncnn", "memnet"])
def test_starts_from_hes_normal_weights(name):
    for conv in wide_convolutions(name):
        inputs = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
        assert conv.weight.abs().max() > 3 * conv.weight.std()
        assert conv.bias is None or not conv.bias.any()


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
@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"dual_domain"}))
def test_losses_refuse_shapes_that_do_not_match(name, side):
    output, target = torch.zeros(1, 1, side, side), torch.zeros(1, 1, 32, 32)
    with pytest.raises(ValueError, match=rf"{side}, {side}.*32, 32"):
        LOSSES[name](output, target)


def test_the_loss_of_several_scales_compares_each_with_the_means_of_blocks():
    target = torch.rand(2, 1, 16, 16)
    half, quarter = (nn.functional.avg_pool2d(target, side) for side in (2, 4))
    assert LOSSES["multi_scale_mse"]((target, half, quarter), target) == 0
    off_by_a_tenth = (target, half + 0.1, quarter)
    assert LOSSES["multi_scale_mse"](off_by_a_tenth, target).item() == pytest.approx(0.01 / 3)
    full_and_branch = (target + 0.1, half, quarter, target - 0.1)
    assert LOSSES["dual_domain"](full_and_branch, target).item() == pytest.approx(0.01 * 1.9)
    with pytest.raises(ValueError, match="image, half, quarter and DCT branch"):
        LOSSES["dual_domain"](target, target)


@pytest.mark.parametrize("name", NAMES)
def test_transfer_copies_the_first_layers_and_nothing_else(name):
    source, target = awake(name), small(name)
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


def test_the_log_of_the_error_counts_every_image_alike():
    target = torch.zeros(2, 1, 8, 8)
    image = torch.stack([torch.full((1, 8, 8), 0.1), torch.full((1, 8, 8), 0.001)])
    wanted = (math.log(1e-2 + 1e-6) + math.log(1e-6 + 1e-6)) / 2
    assert LOSSES["log_mse"](image, target).item() == pytest.approx(wanted, rel=1e-4)
    assert LOSSES["log_mse"](target, target).item() == pytest.approx(math.log(1e-6))


@pytest.mark.parametrize("options", [{"down": (1, 1)}, {"widths": ()}, {"up": (3, 0)}, {"cell": 0}])
def test_levels_of_a_unet_that_do_not_fit_each_other_are_refused(options):
    with pytest.raises(ValueError, match=r"widths \[.*up \["):
        build_model("unet", options)
