"""What the recipes of several families have in common: modern settings and two patch stores."""

from pipeline.recipes.base import BLIND_QFS, LossName, ScheduleName, Stage
from storage.schema import PatchSpec

FAST_EMA_DECAY = 0.999
FAST_WEIGHT_DECAY = 1e-4

MEDIUM_PATCHES = PatchSpec(side=48, stride=24, qfs=(10, 20, 30, 40), degradation="image")
"""For the fast recipes of networks that see about 48 pixels; 91,200 patches of BSDS500's 400."""

BLIND_PATCHES = PatchSpec(side=120, stride=80, qfs=BLIND_QFS, degradation="image")
"""For every blind recipe, which cuts the side it wants out of them; 6,000 patches of BSDS500's
400 images, each at 19 quality factors."""


def fast_stage(
    *,
    steps: int,
    batch: int,
    loss: LossName,
    lr: float,
    name: str = "restore",
    schedule: ScheduleName = "cosine",
    side: int | None = None,
    clip_norm: float | None = None,
) -> Stage:
    """Return a stage with AdamW, warmup over a fortieth of the steps, flips and turns.

    Its recipe takes the moving average of the weights, with FAST_EMA_DECAY.
    """
    return Stage(
        name=name,
        steps=steps,
        batch=batch,
        loss=loss,
        optimizer="adamw",
        lr=lr,
        weight_decay=FAST_WEIGHT_DECAY,
        clip_norm=clip_norm,
        schedule=schedule,
        warmup_steps=steps // 40,
        side=side,
        augment=True,
    )
