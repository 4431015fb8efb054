"""The recipes: each can be trained, and the paper's settings are the paper's."""

import dataclasses

import pytest
import torch

from models import build_model, layer_names, transfer_layers
from models.losses import LOSSES
from pipeline.recipes import RECIPES, get_recipe
from pipeline.recipes.base import Stage


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_found_under_its_own_name(name):
    assert get_recipe(name).name == name


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_one_step_on_a_patch_lowers_the_loss(name):
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)
    network = build_model(recipe.architecture, recipe.options).train()
    stage, side = recipe.stages[0], recipe.patches.side
    loss, x = LOSSES[stage.loss], torch.rand(2, 1, side, side)
    target = (x + 0.1 * torch.rand_like(x)).clamp(0, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    first = loss(network(x), target)
    first.backward()
    optimizer.step()
    assert loss(network(x), target) < first


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_starts_from_one_that_exists_and_fits(name):
    recipe = RECIPES[name]
    if recipe.init_from is None:
        return
    easy = get_recipe(recipe.init_from.recipe)
    assert easy.init_from is None
    assert easy.patches == recipe.patches
    source = build_model(easy.architecture, easy.options)
    target = build_model(recipe.architecture, recipe.options)
    transfer_layers(target, source.state_dict(), recipe.init_from.layers)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_augmented_patches_lie_on_the_jpeg_grid(name):
    recipe = RECIPES[name]
    aligned = recipe.patches.degradation == "patch" or recipe.patches.stride % 8 == 0
    assert aligned or not any(stage.augment for stage in recipe.stages)


def test_every_recipe_has_its_own_fingerprint():
    assert len({recipe.fingerprint for recipe in RECIPES.values()}) == len(RECIPES)


def test_one_store_serves_every_arcnn_recipe_and_another_every_quickres():
    for family in ("arcnn", "quickres"):
        specs = {r.patches.fingerprint for r in RECIPES.values() if r.architecture == family}
        assert len(specs) == 1


@pytest.mark.parametrize("qf", [10, 20, 30, 40])
def test_arcnn_has_the_papers_settings(qf):
    recipe = get_recipe(f"arcnn-qf{qf}")
    (stage,) = recipe.stages
    assert (recipe.patches.side, recipe.patches.stride) == (32, 10)
    assert recipe.patches.degradation == "patch"
    assert (stage.optimizer, stage.batch, stage.loss) == ("sgd", 128, "centre_mse")
    assert stage.schedule == "constant"
    assert stage.lr == pytest.approx(0.02)
    assert stage.lr * stage.last_layer_lr_scale == pytest.approx(0.002)
    if qf == 20:
        assert recipe.init_from is None
    else:
        assert recipe.init_from is not None
        assert dataclasses.astuple(recipe.init_from) == ("arcnn-qf20", 1)


def test_the_mean_loss_at_the_scaled_rate_takes_caffes_step():
    """Caffe: lr 1e-4 on sum over pixels / (2 N). Here: lr 0.02 on the mean over N x 20 x 20."""
    torch.manual_seed(0)
    recipe = get_recipe("arcnn-qf20")
    network = build_model(recipe.architecture, recipe.options).double()
    weight = network.get_submodule(layer_names(network)[0]).get_parameter("weight")
    x, target = torch.rand(2, 3, 1, 32, 32, dtype=torch.double)
    output, centre = network(x), target[..., 6:26, 6:26]
    caffe = (output - centre).square().sum() / (2 * len(x))
    ours = LOSSES["centre_mse"](output, target)
    gradient = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (caffe, ours)]
    torch.testing.assert_close(1e-4 * gradient[0], recipe.stages[0].lr * gradient[1])


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'arcnn-qf15'.*'arcnn-fast-qf10'.*'quickres-qf40'"):
        get_recipe("arcnn-qf15")


def test_shortening_keeps_the_total_and_the_share_of_each_stage():
    first = Stage(name="a", steps=300, batch=1, loss="mse", optimizer="adam", lr=1.0)
    second = dataclasses.replace(first, name="b", steps=100)
    recipe = dataclasses.replace(get_recipe("quickres-qf10"), stages=(first, second))
    short = recipe.with_steps(40)
    assert [stage.steps for stage in short.stages] == [30, 10]
    assert short.steps == 40
    assert short.fingerprint != recipe.fingerprint
    with pytest.raises(ValueError, match="steps 1"):
        recipe.with_steps(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer 'lion'.*sgd"),
        ({"loss": "l3"}, "loss 'l3'.*centre_mse"),
        ({"schedule": "step"}, "schedule 'step'.*cosine"),
        ({"steps": 0}, "steps 0"),
        ({"lr": -1.0}, "lr -1.0"),
    ],
)
def test_a_bad_stage_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(get_recipe("quickres-qf10").stages[0], **change)


def test_a_recipe_for_a_quality_factor_that_its_store_lacks_is_refused():
    with pytest.raises(ValueError, match="QF 50 is not in"):
        dataclasses.replace(get_recipe("quickres-qf10"), qf=50)
