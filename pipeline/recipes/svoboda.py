"""Recipes for L4 and L8, the residual networks of Svoboda et al. (2016)."""

from pipeline.recipes.base import Recipe, Stage
from pipeline.recipes.shared import MEDIUM_PATCHES, fast_recipe, fast_stage

PAPER_QFS = {"l4": (10, 20, 40), "l8": (10, 20)}
FAST_STEPS = {"l4": 20_000, "l8": 30_000}


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return tuple(
        recipe
        for network, qfs in PAPER_QFS.items()
        for recipe in (
            *(paper_recipe(network, qf) for qf in qfs),
            *(_fast(network, qf) for qf in qfs),
        )
    )


def paper_recipe(network: str, qf: int) -> Recipe:
    """Return the paper's recipe: residual learning from centred filters in a single step.

    The error of the predicted residual is that of the image, because the network adds it.
    """
    stage = Stage(name="restore", steps=250_000, batch=64, loss="mse", optimizer="adam", lr=1e-4)
    return Recipe(
        name=f"{network}-qf{qf}",
        architecture=network,
        patches=MEDIUM_PATCHES,
        qfs=(qf,),
        stages=(stage,),
        source=(
            "Svoboda et al. 2016: residual objective, centred initialisation, BSDS500's 400 "
            "images. Chosen here: patches, optimiser, rate, batch and steps"
        ),
    )


def _fast(network: str, qf: int) -> Recipe:
    """Return a modern recipe for the same network: Muon, cosine schedule."""
    return fast_recipe(
        network,
        qf,
        fast_stage(steps=FAST_STEPS[network], batch=64, loss="mse", clip_norm=1.0),
        source="The network of Svoboda et al. 2016 with Muon (chosen here)",
    )
