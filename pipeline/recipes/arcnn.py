"""Recipes for AR-CNN: the paper's own, and a modern one that trains on the same patch store."""

from pipeline.recipes.base import Recipe, Stage, Transfer
from storage.schema import PatchSpec

QFS = (10, 20, 30, 40)
EASY_QF = 20
CAFFE_LR_SCALE = 20 * 20 / 2  # Caffe's loss is the sum over 20x20 pixels / 2, ours is the mean
PATCHES = PatchSpec(side=32, stride=10, qfs=QFS, degradation="patch")


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Dong et al. (2015) for one quality factor.

    Gaussian initialisation, SGD, mean squared error of the 20x20 centre of 32x32 patches. QF 20 is
    trained from scratch; the others start from its first layer (the paper's section 4.3).
    """
    stage = Stage(
        name="restore",
        steps=1_000_000,
        batch=128,
        loss="centre_mse",
        optimizer="sgd",
        lr=1e-4 * CAFFE_LR_SCALE,
        last_layer_lr_scale=0.1,
        momentum=0.9,
    )
    return Recipe(
        name=f"arcnn-qf{qf}",
        architecture="arcnn",
        options={"shrink_in_training": True, "init": "paper"},
        patches=PATCHES,
        qf=qf,
        stages=(stage,),
        init_from=None if qf == EASY_QF else Transfer(recipe=f"arcnn-qf{EASY_QF}", layers=1),
        source=(
            "Dong et al. 2015, sections 4.1 and 4.3. Chosen here: momentum and steps, which the "
            "paper leaves open, and the padding that gives 20x20"
        ),
    )


def fast_recipe(qf: int) -> Recipe:
    """Return a modern recipe for the same network: He initialisation, Adam, cosine schedule."""
    stage = Stage(
        name="restore",
        steps=20_000,
        batch=64,
        loss="centre_mse",
        optimizer="adam",
        lr=1e-3,
        schedule="cosine",
        warmup_steps=100,
        augment=True,
    )
    return Recipe(
        name=f"arcnn-fast-qf{qf}",
        architecture="arcnn",
        options={"shrink_in_training": True, "init": "he"},
        patches=PATCHES,
        qf=qf,
        stages=(stage,),
        source="The network and patches of Dong et al. 2015 with Adam (chosen here)",
    )
