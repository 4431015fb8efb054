"""Recipes for TNRD: the paper's data with a stochastic optimiser, and modern ones."""

from pipeline.recipes.base import Recipe, Stage
from pipeline.recipes.shared import fast_recipe, fast_stage
from storage.patches.schema import PatchSpec

QFS = (10, 20, 30, 40)
PATCHES = PatchSpec(side=176, stride=176, qfs=QFS, degradation="image")


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (*(paper_recipe(qf) for qf in QFS), *(_fast(qf) for qf in QFS))


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Chen & Pock (2017) for one quality factor: all stages trained jointly.

    Squared error of large patches of the 400 images, from the DCT's filters.
    """
    stage = Stage(
        name="joint",
        steps=40_000,
        batch=4,
        loss="mse",
        optimizer="adam",
        lr=1e-3,
        schedule="cosine",
    )
    return Recipe(
        name=f"tnrd-qf{qf}",
        architecture="tnrd",
        patches=PATCHES,
        qfs=(qf,),
        stages=(stage,),
        source=(
            "Chen & Pock 2017 (arXiv 1508.02848), joint training. Chosen here: Adam in place of "
            "L-BFGS, which needs the whole set in each step, its rate, batch and steps, patches "
            "of 176x176, two an image, for the paper's 180x180"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a recipe with AdamW, a cosine schedule and averaged weights on small patches."""
    return fast_recipe(
        "tnrd",
        qf,
        fast_stage(steps=20_000, batch=16, loss="mse", optimizer="adamw", lr=2e-3),
        source="The network of Chen & Pock 2017; the schedule is chosen here, not yet measured",
    )
