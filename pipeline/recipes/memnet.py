"""Recipes for MemNet: the authors' own, and modern ones."""

from pipeline.recipes.base import Recipe, Stage
from pipeline.recipes.shared import blind_recipe, fast_recipe, fast_stage
from storage.patches.schema import PatchSpec

QFS = (10, 20)
SIDE = 32
PATCHES = PatchSpec(side=SIDE, stride=24, qfs=QFS, degradation="image")
LOSS_SCALE = SIDE * SIDE / 2  # Caffe's loss is half the sum over a patch's pixels, ours the mean
CLIP = 0.01  # longest step before momentum: the authors clip gradients to this over the lr
LEARNING_RATES = (0.1, 0.01, 0.001, 0.0001)


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in QFS),
        _blind(),
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Tai et al. (2017) for one quality factor.

    SGD on the squared error of small patches, a tenth of the learning rate after every 200,000
    steps, gradients clipped to a norm that grows as the learning rate falls. Rate, clipping and
    weight decay are scaled from Caffe's loss to the mean, so that the steps are the same.
    """
    stages = tuple(
        Stage(
            name=f"rate{number}",
            steps=200_000,
            batch=32,
            loss="mse",
            optimizer="sgd",
            lr=lr * LOSS_SCALE,
            momentum=0.9,
            weight_decay=1e-4 / LOSS_SCALE,
            clip_norm=CLIP / lr / LOSS_SCALE,
        )
        for number, lr in enumerate(LEARNING_RATES, start=1)
    )
    return Recipe(
        name=f"memnet-qf{qf}",
        architecture="memnet",
        patches=PATCHES,
        qfs=(qf,),
        stages=stages,
        source=(
            "Tai et al. 2017 and the authors' solver file of MemNet_M6R6_80C64. Chosen here: the "
            "network with one output, 32x32 patches at stride 24 for the authors' 31x31 at 21, "
            "biases at the common learning rate (theirs a tenth), the end after 800,000 steps"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a recipe with AdamW, a cosine schedule and averaged weights."""
    return fast_recipe(
        "memnet",
        qf,
        fast_stage(steps=60_000, batch=32, loss="l1", optimizer="adamw", lr=1e-3, clip_norm=1.0),
        source="The network of Tai et al. 2017; the schedule is chosen here, not yet measured",
    )


def _blind() -> Recipe:
    """Return the fast recipe for one network of all quality factors."""
    stage = fast_stage(
        steps=120_000, batch=32, loss="l1", optimizer="adamw", lr=1e-3, side=48, clip_norm=1.0
    )
    return blind_recipe(
        "memnet",
        stage,
        source="The network of Tai et al. 2017; quality factors and schedule are chosen here",
    )
