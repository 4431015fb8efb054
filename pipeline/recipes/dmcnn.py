"""Recipes for DMCNN: patches that grow from 56 to 224 pixels, QF 10 from QF 20; and modern ones."""

from pipeline.recipes.base import Recipe, Stage, Transfer
from pipeline.recipes.shared import blind_recipe, fast_recipe, fast_stage, next_cycle
from storage.patches.schema import PatchSpec

QFS = (10, 20)
FAST_QFS = (10, 20, 30, 40)
EASY_QF = 20
GROWTH = {56: 100_000, 112: 50_000, 168: 30_000, 224: 20_000}  # side in pixels: steps
PATCHES = PatchSpec(side=224, stride=48, qfs=FAST_QFS, degradation="image")
"""7,200 patches of BSDS500's 400 images; the smaller sides are cut out of them."""


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in FAST_QFS),
        next_cycle(_fast(10)),
        _blind(),
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Zhang et al. (2018) for one quality factor.

    QF 20 is trained from scratch on growing patches; the other starts from its whole network and
    stays at the largest.
    """
    sides = GROWTH if qf == EASY_QF else {PATCHES.side: GROWTH[PATCHES.side]}
    return Recipe(
        name=f"dmcnn-qf{qf}",
        architecture="dmcnn",
        patches=PATCHES,
        qfs=(qf,),
        stages=tuple(_growing_stage(side, steps) for side, steps in sides.items()),
        init_from=None if qf == EASY_QF else Transfer(recipe=f"dmcnn-qf{EASY_QF}"),
        validation_share=0.02,
        source=(
            "Zhang et al. 2018: sides from 56 to 224, loss, Adam, rate, its division by 3 on a "
            "plateau, batch, QF 20 first. Chosen here: the sides 112 and 168 in between, gradients "
            "clipped to 10, steps, validation every 1,000 steps, patience of 3, the full rate at "
            "the start of every side, 224 alone for QF 10"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a modern recipe for the same network, each quality factor from scratch."""
    return fast_recipe(
        "dmcnn",
        qf,
        *_fast_stages(),
        patches=PATCHES,
        source="The network and loss of Zhang et al. 2018 with Muon on crops (chosen here)",
    )


def _blind() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return blind_recipe(
        "dmcnn",
        *_fast_stages(),
        source="The network of Zhang et al. 2018 on mixed quality factors (chosen here)",
    )


def _growing_stage(side: int, steps: int) -> Stage:
    return Stage(
        name=f"side{side}",
        steps=steps,
        batch=80,
        loss="dual_domain",
        optimizer="adam",
        lr=1e-3,
        clip_norm=10.0,
        schedule="plateau",
        plateau_factor=1 / 3,
        validate_every=1_000,
        side=side,
    )


def _fast_stages() -> tuple[Stage, ...]:
    """Most steps on crops of 64 pixels, the last on 112, which show more of the wide view."""
    return (
        fast_stage(
            name="small",
            steps=30_000,
            batch=32,
            loss="dual_domain",
            schedule="constant",
            side=64,
            clip_norm=1.0,
        ),
        fast_stage(
            name="large",
            steps=10_000,
            batch=16,
            loss="dual_domain",
            side=112,
            clip_norm=1.0,
        ),
    )
