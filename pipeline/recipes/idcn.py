"""Recipes for IDCN on luma: the authors' own, and modern ones for the residual network."""

from pipeline.recipes.base import Recipe, Stage
from pipeline.recipes.shared import MEDIUM_PATCHES, blind_recipe, fast_recipe, fast_stage

QFS = (10, 20)
FAST_QFS = (10, 20, 30, 40)


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in FAST_QFS),
        _blind(),
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Zheng et al. (2019) for one quality factor."""
    stage = Stage(
        name="restore",
        steps=1_000_000,
        batch=16,
        loss="mse",
        optimizer="adam",
        lr=1e-4,
        schedule="plateau",
        plateau_factor=1 / 2,
        plateau_patience=4,
        validate_every=10_000,
    )
    return Recipe(
        name=f"idcn-qf{qf}",
        architecture="idcn",
        patches=MEDIUM_PATCHES,
        qfs=(qf,),
        stages=(stage,),
        validation_share=0.02,
        source=(
            "Zheng et al. 2019 and the settings of the authors' code for luma: Adam from 1e-4, "
            "batch 16, a lower rate after 4 of the validations every 10,000 steps. Chosen here: "
            "48x48 patches for their 43x43, halving for their five rates down to 1e-6, and steps"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a modern recipe for the network with a residual output: AdamW, cosine schedule."""
    return fast_recipe(
        "idcn",
        qf,
        fast_stage(steps=40_000, batch=16, loss="mse", optimizer="adamw", lr=2e-4, clip_norm=1.0),
        options={"residual": True},
        source="The network of Zheng et al. 2019 with a residual output and AdamW (chosen here)",
    )


def _blind() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return blind_recipe(
        "idcn",
        fast_stage(
            steps=60_000, batch=16, loss="mse", optimizer="adamw", lr=2e-4, side=48, clip_norm=1.0
        ),
        options={"residual": True},
        source="The network of Zheng et al. 2019 on mixed quality factors (chosen here)",
    )
