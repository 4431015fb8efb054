"""The recipes: each can be trained, transfers form a graph, settings are those of the papers."""

import dataclasses
import math

import pytest
import torch

from models import ARCHITECTURES, build_model, layer_names, needs_table, transfer_layers
from models.losses import LOG_MSE_FLOOR, LOSSES
from pipeline.recipes import RECIPES, get_recipe
from pipeline.recipes.arcnn import CONVERGENCE
from pipeline.recipes.base import BLIND_QFS, Recipe, Stage, Transfer
from pipeline.recipes.dcrn import ABLATIONS, ablations
from pipeline.recipes.shared import default_recipes

SIDE = 16
"""Pixels of the patches that show whether loss and network fit: each network is tried once."""
TRIED = {
    (recipe.architecture, str(sorted(recipe.options.items())), stage.loss): recipe
    for recipe in (*RECIPES.values(), *default_recipes("srcnn"))
    for stage in recipe.stages
}
TRANSFERS = {
    (recipe.architecture, get_recipe(recipe.init_from.recipe).architecture): recipe
    for recipe in RECIPES.values()
    if recipe.init_from is not None
}


def easier(recipe: Recipe) -> Recipe | None:
    """Return the recipe that another starts from."""
    return None if recipe.init_from is None else get_recipe(recipe.init_from.recipe)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_found_under_its_own_name(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.label.removeprefix("rescaled-") in name


@pytest.mark.parametrize("key", sorted(TRIED), ids="-".join)
def test_the_loss_of_a_stage_fits_what_the_network_gives_in_training(key):
    recipe, loss = TRIED[key], LOSSES[key[2]]
    torch.manual_seed(recipe.seed)
    network = build_model(recipe.architecture, recipe.options).train()
    x = torch.rand(2, 1, SIDE, SIDE)
    table = (torch.full((2, 8, 8), 16.0),) if needs_table(network) else ()
    value = loss(network(x, *table), (x + 0.1 * torch.rand_like(x)).clamp(0, 1))
    value.backward()
    assert value.isfinite()
    assert value > (math.log(LOG_MSE_FLOOR) if key[2] == "log_mse" else 0)
    last = network.get_submodule(layer_names(network)[-1])
    assert any(p.grad is not None and p.grad.any() for p in last.parameters())


@pytest.mark.parametrize("key", sorted(TRANSFERS), ids="-from-".join)
def test_what_a_recipe_starts_from_fits_it(key):
    recipe = TRANSFERS[key]
    easy = easier(recipe)
    assert easy is not None
    assert recipe.init_from is not None
    source = build_model(easy.architecture, easy.options)
    target = build_model(recipe.architecture, recipe.options)
    transfer_layers(target, source.state_dict(), recipe.init_from.layers)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_following_the_transfers_ends_at_a_recipe_from_scratch(name):
    seen: list[str] = []
    recipe: Recipe | None = RECIPES[name]
    while recipe is not None:
        assert recipe.name not in seen
        seen.append(recipe.name)
        recipe = easier(recipe)
    assert len(seen) <= 3


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_augmented_patches_lie_on_the_jpeg_grid(name):
    recipe = RECIPES[name]
    aligned = recipe.patches.degradation == "patch" or recipe.patches.stride % 8 == 0
    assert aligned or not any(stage.augment or stage.side for stage in recipe.stages)


def test_every_recipe_has_its_own_fingerprint():
    assert len({recipe.fingerprint for recipe in RECIPES.values()}) == len(RECIPES)


def test_a_recipe_named_blind_mixes_quality_factors_and_no_other_does():
    for name, recipe in RECIPES.items():
        assert recipe.blind == name.endswith("-blind")
        if recipe.blind:
            assert set(recipe.qfs) >= set(BLIND_QFS)
            assert recipe.evaluation_qfs == (10, 20, 30, 40)


@pytest.mark.parametrize("network", ["arcnn", "dcrn", "dncnn", "cascnn"])
def test_the_blind_networks_share_one_store(network):
    assert get_recipe(f"{network}-blind").patches == get_recipe("arcnn-blind").patches


def test_one_store_serves_every_standard_arcnn_and_srcnn_and_another_every_quickres():
    for families in (
        ("arcnn", "arcnn-deep", "arcnn-deep-1x1", "srcnn", "srcnn-deep"),
        ("quickres",),
    ):
        specs = {
            recipe.patches.fingerprint
            for recipe in RECIPES.values()
            if recipe.architecture in families and recipe.label.startswith("qf")
        }
        assert len(specs) == 1


WITH_MUON = {
    "dncnn",
    "dcrn",
    "cascnn",
    "dmcnn",
    "l4",
    "l8",
    *(a for a in ARCHITECTURES if "arcnn" in a),
}
"""Muon was held against AdamW for AR-CNN, DnCNN and DCRN; the others were trained with it alone."""


@pytest.mark.parametrize("name", [name for name in sorted(RECIPES) if "-fast-" in name])
def test_a_fast_recipe_averages_weights_on_augmented_patches(name):
    recipe = RECIPES[name]
    assert recipe.ema_decay == pytest.approx(0.999)
    optimizer = "muon" if recipe.architecture in WITH_MUON else "adamw"
    assert {stage.optimizer for stage in recipe.stages} == {optimizer}
    assert recipe.stages[-1].schedule == "cosine"
    assert all(stage.augment for stage in recipe.stages)


def test_dmcnn_has_the_papers_settings():
    recipe = get_recipe("dmcnn-qf20")
    assert [stage.side or recipe.patches.side for stage in recipe.stages] == [56, 112, 168, 224]
    for stage in recipe.stages:
        assert (stage.optimizer, stage.lr, stage.batch, stage.clip_norm) == ("adam", 1e-3, 80, 10)
        assert (stage.loss, stage.schedule) == ("dual_domain", "plateau")
        assert stage.plateau_factor == pytest.approx(1 / 3)
    assert recipe.init_from is None
    assert get_recipe("dmcnn-qf10").init_from == Transfer(recipe="dmcnn-qf20")


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
    assert recipe.init_from is None, "the networks of tables 1 and 2 start from random weights"


def test_what_starts_from_another_arcnn_says_so_in_its_name_and_nothing_else_does():
    for name in (name for name in RECIPES if name.startswith("arcnn-")):
        assert (RECIPES[name].init_from is not None) == ("-from-" in name or "-next-" in name)


@pytest.mark.parametrize("name", [name for name in sorted(RECIPES) if "-next-" in name])
def test_one_more_cycle_starts_from_its_own_recipe_and_ends_at_a_small_rate(name):
    recipe = get_recipe(name)
    first, (stage,) = get_recipe(name.replace("-next-", "-")), recipe.stages
    assert recipe.init_from == Transfer(recipe=first.name)
    assert recipe.model_name == first.model_name
    assert stage.lr < first.stages[-1].lr
    assert stage.schedule == "cosine"


@pytest.mark.parametrize("name", [name for name in sorted(RECIPES) if "arcnn" in name])
def test_no_arcnn_starts_from_a_lower_quality(name):
    recipe, start = RECIPES[name], easier(RECIPES[name])
    assert start is None or start.qfs >= recipe.qfs


@pytest.mark.parametrize("figure", [name for name in CONVERGENCE if name.startswith("fig6")])
def test_the_deeper_network_is_compared_with_its_base_and_with_hes_rule(figure):
    base, transferred, he = (get_recipe(name) for name in CONVERGENCE[figure])
    assert transferred.init_from == Transfer(recipe=base.name, layers=2)
    assert base.init_from is he.init_from is None
    assert base.architecture == "arcnn" != he.architecture == transferred.architecture
    assert transferred.options["init"] == base.options["init"]
    assert he.options["init"] == "he"
    assert base.patches == transferred.patches == he.patches
    assert base.stages == transferred.stages == he.stages


@pytest.mark.parametrize("figure", [name for name in CONVERGENCE if not name.startswith("fig6")])
def test_what_the_other_convergence_figures_compare_differs_in_the_transfer_alone(figure):
    scratch, *transferred = (get_recipe(name) for name in CONVERGENCE[figure])
    assert scratch.init_from is None
    assert transferred
    for recipe in transferred:
        assert recipe.init_from is not None
        same = dataclasses.replace(recipe, name=scratch.name, init_from=None)
        assert same.fingerprint == scratch.fingerprint


@pytest.mark.parametrize(
    ("name", "source", "layers"),
    [
        ("arcnn-deep-qf10-from-shallow", "arcnn-qf10", 2),
        ("arcnn-deep-1x1-qf10-from-shallow", "arcnn-qf10", 2),
        ("arcnn-qf10-from-qf20", "arcnn-qf20", 1),
        ("arcnn-qf10-from-qf20-two-layers", "arcnn-qf20", 2),
        ("arcnn-rescaled-qf10-from-qf10", "arcnn-qf10", 1),
        ("arcnn-rescaled-qf10-from-qf20", "arcnn-qf20", 1),
        ("cascnn-qf80", "cascnn-qf20", None),
    ],
)
def test_the_papers_transfers_take_the_papers_layers(name, source, layers):
    transfer = get_recipe(name).init_from
    assert transfer is not None
    assert dataclasses.astuple(transfer) == (source, layers)


def test_the_rescaled_recipes_are_scored_under_their_own_label():
    recipe = get_recipe("arcnn-rescaled-qf10")
    assert recipe.patches.degradation == "rescaled"
    assert recipe.label == "rescaled-qf10"


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


def test_cascnn_learns_all_scales_from_a_third_of_the_cutouts_then_the_image_from_all():
    recipe = get_recipe("cascnn-qf20")
    scales, image = recipe.stages
    assert recipe.patches.side == 120
    assert (scales.loss, image.loss) == ("multi_scale_mse", "mse")
    assert image.share / scales.share == pytest.approx(3)
    for stage in recipe.stages:
        assert (stage.optimizer, stage.lr, stage.batch) == ("adam", 1e-4, 20)


@pytest.mark.parametrize("qf", [10, 20, 30])
def test_dcrn_has_the_papers_settings(qf):
    recipe = get_recipe(f"dcrn-qf{qf}")
    (stage,) = recipe.stages
    assert (recipe.patches.side, recipe.patches.stride) == (40, 40)
    assert (stage.loss, stage.optimizer, stage.batch) == ("l1", "adam", 128)
    assert stage.steps * stage.batch == 50 * 1_364_992
    assert recipe.init_from is None
    assert stage.lr == pytest.approx(1e-3)
    assert stage.lr * stage.final_lr_scale == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("dmcnn-qf20", ["112 and 168", "clipped"]),
        ("dcrn-qf10", ["one network a quality factor", "do not overlap"]),
    ],
)
def test_what_a_paper_leaves_open_is_called_chosen(name, chosen):
    read, ours = get_recipe(name).source.split("Chosen here: ")
    for words in chosen:
        assert words in ours
        assert words not in read


@pytest.mark.parametrize("study", [*ABLATIONS, "loss"])
def test_an_ablation_changes_what_its_study_is_about_and_holds_the_papers_own_variant(study):
    variants, own = ablations(study, 20), get_recipe("dcrn-qf20")
    assert len({recipe.name for recipe in variants}) == len(variants) > 1
    sizes = [
        sum(p.numel() for p in build_model(recipe.architecture, recipe.options).parameters())
        for recipe in variants
    ]
    paper = sum(p.numel() for p in build_model(own.architecture, own.options).parameters())
    assert paper in sizes
    for recipe in variants:
        assert (recipe.patches, recipe.qfs, recipe.steps) == (own.patches, own.qfs, own.steps)
    if study == "loss":
        assert [recipe.stages[0].loss for recipe in variants] == ["l1", "mse"]


def test_an_unknown_study_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'depth'.*'activation'.*'loss'"):
        ablations("depth")


def test_dncnn_is_blind_in_its_paper():
    recipe = get_recipe("dncnn-blind")
    (stage,) = recipe.stages
    assert (stage.optimizer, stage.batch, stage.steps) == ("sgd", 128, 50 * 8_000)
    assert (stage.momentum, stage.weight_decay) == (0.9, 1e-4)
    assert (stage.lr, stage.lr * stage.final_lr_scale) == (0.1, pytest.approx(1e-4))


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
    assert [stage.steps for stage in recipe.with_steps(2).stages] == [1, 1]
    with pytest.raises(ValueError, match="steps 1"):
        recipe.with_steps(1)


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if len(RECIPES[name].stages) > 1))
def test_every_recipe_can_be_shortened_to_any_number_of_steps(name):
    recipe = get_recipe(name)
    for steps in range(len(recipe.stages), 80):
        assert recipe.with_steps(steps).steps == steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer 'lion'.*sgd"),
        ({"loss": "l3"}, "loss 'l3'.*centre_mse"),
        ({"schedule": "step"}, "schedule 'step'.*cosine"),
        ({"steps": 0}, "steps 0"),
        ({"lr": -1.0}, "lr -1.0"),
        ({"clip_norm": 0.0}, "clip_norm 0.0"),
        ({"weight_decay": -0.1}, "weight_decay -0.1"),
        ({"share": 1.5}, "share 1.5.*at most 1"),
        ({"side": 20}, "side 20.*multiple of 8"),
        ({"schedule": "plateau"}, "validate_every 0.*plateau"),
    ],
)
def test_a_bad_stage_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(get_recipe("quickres-qf10").stages[0], **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qfs": (10, 50)}, r"QF \[50\] is not in"),
        ({"stages": ()}, "no stages"),
        ({"ema_decay": 1.0}, "ema_decay 1.0"),
        ({"validation_share": 1.0}, "validation_share 1.0"),
        ({"validation_share": 0.1, "validation_set": "live1"}, "validates on live1: leave"),
    ],
)
def test_a_bad_recipe_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(get_recipe("quickres-qf10"), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 72}, "side 72 exceeds the 64 of the store's patches"),
        ({"validate_every": 10}, "validate_every 10 needs a validation_set or a"),
    ],
)
def test_a_stage_that_its_recipe_cannot_serve_is_refused(change, message):
    recipe = get_recipe("quickres-qf10")
    stage = dataclasses.replace(recipe.stages[0], **change)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(recipe, stages=(stage,))
