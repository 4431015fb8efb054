"""Recipes for CAS-CNN: multi-scale, then output loss, QF 20 first; and modern ones."""

from pipeline.recipes.base import Recipe, Stage, Transfer
from pipeline.recipes.shared import (
    blind_recipe,
    fast_recipe,
    fast_stage,
    from_other_quality,
    next_cycle,
)
from storage.patches.schema import PatchSpec

QFS = (10, 20, 40, 60, 80)
EASY_QF, HARD_QF = 20, 10
LOWER_LR = 5e-4  # with four times as much the network blows up in places after 3,700 steps
PATCHES = PatchSpec(side=120, stride=40, qfs=QFS, degradation="image")


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in QFS),
        next_cycle(_fast(HARD_QF)),
        from_other_quality(_fast(EASY_QF), _fast(HARD_QF)),
        _blind(),
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Cavigelli et al. (2016) for one quality factor.

    The first stage learns the image at four scales from a third of the cut-outs (50,000 of 150,000
    in the paper), the second the full size alone from all of them. QF 20 is trained from scratch;
    the others go through both stages from its whole network.
    """
    scales = Stage(
        name="scales",
        steps=250_000,
        batch=20,
        loss="multi_scale_mse",
        optimizer="adam",
        lr=1e-4,
        share=1 / 3,
    )
    image = Stage(name="image", steps=60_000, batch=20, loss="mse", optimizer="adam", lr=1e-4)
    return Recipe(
        name=f"cascnn-qf{qf}",
        architecture="cascnn",
        patches=PATCHES,
        qfs=(qf,),
        stages=(scales, image),
        init_from=None if qf == EASY_QF else Transfer(recipe=f"cascnn-qf{EASY_QF}"),
        validation_set="imagenet:val",
        source=(
            "Cavigelli et al. 2016, sections III and IV. Chosen here: steps (100 and 8 epochs of "
            "the paper's cut-outs; it says convergence and several), the stride of 40, and to "
            "validate on images of ILSVRC 2012's validation set, for the paper's 10,000 cut-outs "
            "of the 20,000 of 2013's detection"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a modern recipe for the same network, each quality factor from scratch."""
    return fast_recipe(
        "cascnn",
        qf,
        *_fast_stages(),
        patches=PATCHES,
        source="The network and losses of Cavigelli et al. 2016 with Muon (chosen here)",
    )


def _blind() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return blind_recipe(
        "cascnn",
        *_fast_stages(),
        source="The network of Cavigelli et al. 2016 on mixed quality factors (chosen here)",
    )


def _fast_stages() -> tuple[Stage, ...]:
    return (
        fast_stage(
            name="scales",
            steps=10_000,
            batch=20,
            loss="multi_scale_mse",
            lr=LOWER_LR,
            schedule="constant",
            clip_norm=1.0,
        ),
        fast_stage(name="image", steps=30_000, batch=20, loss="mse", lr=LOWER_LR, clip_norm=1.0),
    )
