"""Recipes for DnCNN-3: the paper's one network for all quality factors, and modern ones."""

from dataclasses import replace
from types import MappingProxyType

from pipeline.recipes.base import BLIND_QFS, Recipe, Stage
from pipeline.recipes.shared import (
    BLIND_PATCHES,
    FREQUENT_QFS,
    FRESH_QFS,
    ORIGINALS,
    blind_recipe,
    fast_recipe,
    fast_stage,
    next_cycle,
)

FAST_QFS = (10, 20, 30, 40)
SIDE = 48
STEPS = 50 * 8_000  # 50 epochs of the paper's 128 x 8,000 patches in batches of 128
FAST = MappingProxyType({"batch_norm": False})
FAST_SOURCE = (
    "The network of Zhang et al. 2017 with Muon, without batch normalisation, whose statistics "
    "would not be those of the averaged weights (chosen here)"
)


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        paper_recipe(),
        *(fast_recipe("dncnn", qf, _stage(), options=FAST, source=FAST_SOURCE) for qf in FAST_QFS),
        _fast_blind(),
        next_cycle(_fast_blind()),
    )


def paper_recipe() -> Recipe:
    """Return the recipe of Zhang et al. (2017), whose DnCNN-3 is one network for QF 5 to 99.

    Their loss is half the sum over a patch, to which their rate of 0.1 does not belong without
    clipping: a batch of 8 camera patches diverges within 3 steps. On the mean it learns.
    """
    stage = Stage(
        name="restore",
        steps=STEPS,
        batch=128,
        loss="mse",
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="exponential",
        final_lr_scale=1e-3,
        side=SIDE,
        augment=True,
    )
    return Recipe(
        name="dncnn-blind",
        architecture="dncnn",
        patches=BLIND_PATCHES,
        qfs=BLIND_QFS,
        stages=(stage,),
        source=(
            "Zhang et al. 2017, section IV, JPEG deblocking alone. Chosen here: patches of 48 "
            "where the paper has 50, QF 5 to 95 in steps of 5, and the rate for the mean loss"
        ),
    )


def _fast_blind() -> Recipe:
    """Return the modern recipe of DnCNN-3, on pairs made while they load."""
    recipe = blind_recipe(
        "dncnn", _stage(SIDE), options=FAST, source=FAST_SOURCE, name="fast-blind"
    )
    return replace(recipe, patches=ORIGINALS, qfs=FRESH_QFS, frequent_qfs=FREQUENT_QFS)


def _stage(side: int | None = None) -> Stage:
    return fast_stage(steps=40_000, batch=64, loss="mse", side=side, clip_norm=1.0)
