"""Recipes for DDCN: the paper's network with Adam, and modern ones."""

from pipeline.recipes.base import BLIND_QFS, Recipe, Stage
from pipeline.recipes.shared import BLIND_PATCHES, FAST_EMA_DECAY, MEDIUM_PATCHES, fast_stage

QFS = (10, 20, 30, 40)


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(fast_recipe(qf) for qf in QFS),
        blind_recipe(),
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Guo and Chao (2016) for one quality factor."""
    stage = Stage(
        name="restore",
        steps=200_000,
        batch=32,
        loss="mse",
        optimizer="adam",
        lr=1e-3,
        schedule="exponential",
        final_lr_scale=0.01,
    )
    return Recipe(
        name=f"ddcn-qf{qf}",
        architecture="ddcn",
        patches=MEDIUM_PATCHES,
        qfs=(qf,),
        stages=(stage,),
        source=(
            "Guo and Chao 2016: residual learning, Adam, a network for each quality factor. Chosen "
            "here: patches, batch, steps, the rate and its way from 1e-3 to 1e-5"
        ),
    )


def fast_recipe(qf: int) -> Recipe:
    """Return a modern recipe for the same network: AdamW, cosine schedule."""
    return Recipe(
        name=f"ddcn-fast-qf{qf}",
        architecture="ddcn",
        patches=MEDIUM_PATCHES,
        qfs=(qf,),
        stages=(fast_stage(steps=40_000, batch=32, loss="mse", lr=5e-4, clip_norm=1.0),),
        ema_decay=FAST_EMA_DECAY,
        source="The network of Guo and Chao 2016 with AdamW (chosen here)",
    )


def blind_recipe() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return Recipe(
        name="ddcn-blind",
        architecture="ddcn",
        patches=BLIND_PATCHES,
        qfs=BLIND_QFS,
        stages=(fast_stage(steps=60_000, batch=32, loss="mse", lr=5e-4, side=48, clip_norm=1.0),),
        ema_decay=FAST_EMA_DECAY,
        source="The network of Guo and Chao 2016 on mixed quality factors (chosen here)",
    )
