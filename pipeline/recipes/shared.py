"""What the recipes of several families have in common: modern settings and two patch stores."""

from collections.abc import Mapping
from dataclasses import replace

from pipeline.recipes.base import (
    BLIND_QFS,
    LossName,
    OptimizerName,
    Recipe,
    ScheduleName,
    Stage,
    Transfer,
)
from storage.patches.schema import PatchSpec

FAST_EMA_DECAY = 0.999
FAST_LR = 2e-3
FAST_WEIGHT_DECAY = 1e-4
NEXT_WARMUP_STEPS = 100

DEFAULT_QFS = (10, 20, 30, 40)

MEDIUM_PATCHES = PatchSpec(side=48, stride=24, qfs=(10, 20, 30, 40), degradation="image")
"""For the fast recipes of networks that see about 48 pixels; 91,200 patches of BSDS500's 400."""

BLIND_PATCHES = PatchSpec(side=120, stride=80, qfs=BLIND_QFS, degradation="image")
"""For every blind recipe, which cuts the side it wants out of them; 6,000 patches of BSDS500's
400 images, each at 19 quality factors."""

ORIGINALS = PatchSpec(side=160, stride=80, qfs=(), degradation="none")
"""For recipes whose pairs are made while they load, at every QF: 7,500 patches of BSDS500's 500
images, that cover all of them but a pixel at an edge."""
FRESH_QFS = tuple(range(5, 96))
FREQUENT_QFS = tuple(range(5, 46))


def fast_stage(
    *,
    steps: int,
    batch: int,
    loss: LossName,
    optimizer: OptimizerName = "muon",
    lr: float = FAST_LR,
    name: str = "restore",
    schedule: ScheduleName = "cosine",
    side: int | None = None,
    clip_norm: float | None = None,
) -> Stage:
    """Return a stage with warmup over a fortieth of the steps, flips and turns.

    Its recipe takes the moving average of the weights, with FAST_EMA_DECAY.
    """
    return Stage(
        name=name,
        steps=steps,
        batch=batch,
        loss=loss,
        optimizer=optimizer,
        lr=lr,
        weight_decay=FAST_WEIGHT_DECAY,
        clip_norm=clip_norm,
        schedule=schedule,
        warmup_steps=steps // 40,
        side=side,
        augment=True,
    )


def fast_recipe(
    architecture: str,
    qf: int,
    *stages: Stage,
    source: str,
    patches: PatchSpec = MEDIUM_PATCHES,
    options: Mapping[str, object] | None = None,
) -> Recipe:
    """Return the modern recipe of a network for one quality factor, weights averaged."""
    return Recipe(
        name=f"{architecture}-fast-qf{qf}",
        architecture=architecture,
        options=dict(options or {}),
        patches=patches,
        qfs=(qf,),
        stages=stages,
        ema_decay=FAST_EMA_DECAY,
        source=source,
    )


def next_cycle(first: Recipe, stage: Stage | None = None) -> Recipe:
    """Return the recipe that goes on from a recipe's weights, or from its own.

    A cycle ends at a small learning rate with weights worth keeping; any number of them follow each
    other, on whatever machine there is. Without a stage: the last one's losses and crops at half
    its rate, for as many steps as all stages had.
    """
    last = first.stages[-1]
    again = replace(
        last, name="restore", steps=first.steps, lr=last.lr / 2, warmup_steps=NEXT_WARMUP_STEPS
    )
    return replace(
        first,
        name=f"{first.name.removesuffix(first.label)}next-{first.label}",
        stages=(stage or again,),
        init_from=Transfer(recipe=first.name),
    )


def first_cycle(name: str) -> str:
    """Return the name of the recipe whose next cycle is called `name`, or the name itself."""
    return name.replace("-next-", "-")


def from_other_quality(recipe: Recipe, source: Recipe) -> Recipe:
    """Return the recipe that starts from the network of another quality factor.

    Its last stage's losses and crops at half the rate, for as many steps as all stages had.
    """
    last = recipe.stages[-1]
    return replace(
        recipe,
        name=f"{recipe.name}-from-{source.label}",
        stages=(replace(last, name="restore", steps=recipe.steps, lr=last.lr / 2),),
        init_from=Transfer(recipe=source.name),
    )


def default_recipes(architecture: str) -> tuple[Recipe, ...]:
    """Return the recipes of a network that has no family: one for each usual quality factor."""
    stage = fast_stage(
        steps=20_000, batch=16, loss="log_mse", optimizer="adamw", lr=1e-3, clip_norm=1.0
    )
    source = "Chosen here for networks without recipes of their own"
    return tuple(fast_recipe(architecture, qf, stage, source=source) for qf in DEFAULT_QFS)


def blind_recipe(
    architecture: str,
    *stages: Stage,
    source: str,
    options: Mapping[str, object] | None = None,
    name: str = "blind",
) -> Recipe:
    """Return the modern recipe of one network for quality factors 5 to 95, weights averaged."""
    return Recipe(
        name=f"{architecture}-{name}",
        architecture=architecture,
        options=dict(options or {}),
        patches=BLIND_PATCHES,
        qfs=BLIND_QFS,
        stages=stages,
        ema_decay=FAST_EMA_DECAY,
        source=source,
    )
