"""Recipes for DDCN: the paper's network with Adam, and modern ones."""

from pipeline.recipes.base import Recipe, Stage
from pipeline.recipes.shared import MEDIUM_PATCHES, blind_recipe, fast_recipe, fast_stage

QFS = (10, 20, 30, 40)


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in QFS),
        _blind(),
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


def _fast(qf: int) -> Recipe:
    """Return a modern recipe for the same network: AdamW, cosine schedule."""
    return fast_recipe(
        "ddcn",
        qf,
        fast_stage(steps=40_000, batch=32, loss="mse", optimizer="adamw", lr=5e-4, clip_norm=1.0),
        source="The network of Guo and Chao 2016 with AdamW (chosen here)",
    )


def _blind() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return blind_recipe(
        "ddcn",
        fast_stage(
            steps=60_000, batch=32, loss="mse", optimizer="adamw", lr=5e-4, side=48, clip_norm=1.0
        ),
        source="The network of Guo and Chao 2016 on mixed quality factors (chosen here)",
    )
