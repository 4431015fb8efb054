"""Recipes for RDN: the paper's own, and modern ones."""

from pipeline.recipes.base import Recipe, Stage
from pipeline.recipes.shared import MEDIUM_PATCHES, blind_recipe, fast_recipe, fast_stage

QFS = (10, 20, 30, 40)
SIDE = 48
EPOCH = 1_000  # steps, in the paper's words
HALVINGS = 4
BATCH = 16


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in QFS),
        _blind(),
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Zhang et al. (2018) for one quality factor.

    Adam on the mean absolute error of 48x48 patches; the learning rate is halved after every 200
    epochs of 1,000 steps.
    """
    stages = tuple(
        Stage(
            name=f"half{number}" if number else "whole",
            steps=200 * EPOCH,
            batch=BATCH,
            loss="l1",
            optimizer="adam",
            lr=1e-4 / 2**number,
            augment=True,
        )
        for number in range(HALVINGS + 1)
    )
    return Recipe(
        name=f"rdn-qf{qf}",
        architecture="rdn",
        patches=MEDIUM_PATCHES,
        qfs=(qf,),
        stages=stages,
        source=(
            "Zhang et al. 2018 (arXiv 1812.10477), section 5.1. Chosen here: 1,000 epochs, patches "
            "on a grid of 24 pixels instead of at random places, a new start of Adam's moments at "
            "every halving"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a recipe with AdamW, a cosine schedule and averaged weights, a tenth of the steps."""
    return fast_recipe(
        "rdn",
        qf,
        fast_stage(
            steps=100_000, batch=BATCH, loss="l1", optimizer="adamw", lr=2e-4, clip_norm=1.0
        ),
        source="The network of Zhang et al. 2018; the schedule is chosen here, not yet measured",
    )


def _blind() -> Recipe:
    """Return the fast recipe for one network of all quality factors."""
    stage = fast_stage(
        steps=200_000, batch=BATCH, loss="l1", optimizer="adamw", lr=2e-4, side=SIDE, clip_norm=1.0
    )
    return blind_recipe(
        "rdn",
        stage,
        source="The network of Zhang et al. 2018; quality factors and schedule are chosen here",
    )
