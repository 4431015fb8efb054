"""Recipes for DCRN: the paper's own, its ablations, and modern ones."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pipeline.recipes.base import LossName, Recipe, Stage
from pipeline.recipes.shared import (
    blind_recipe,
    fast_recipe,
    fast_stage,
    from_other_quality,
    next_cycle,
)
from storage.patches.schema import PatchSpec

QFS = (10, 20, 30)
EASY_QF, HARD_QF = 20, 10
PATCHES = PatchSpec(side=40, stride=40, qfs=QFS, degradation="image")
BATCH = 128
STEPS = 533_200
"""50 epochs of the paper's 1,364,992 patches of DIV2K, 10,664 batches each."""

ABLATIONS: Mapping[str, Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "width": {f"g{g}": {"g": g} for g in (4, 8, 16, 32, 64)},
        "activation": {
            "relu": {"activation": "relu"},
            "leaky-relu": {"activation": "leaky_relu"},
            "prelu": {},
        },
        "blocks": {f"blocks{count}": {"blocks": count} for count in (1, 2, 3, 4)},
        "dense-layers": {f"dense{count}": {"dense_layers": count} for count in (3, 4, 5, 6)},
        "skip-attention": {
            "neither": {"skip": False, "attention": False},
            "skip": {"attention": False},
            "attention": {"skip": False},
            "both": {},
        },
    }
)
"""Study -> variant -> options of the network: the paper's tables 3 and 4 and figure 5. The counts
of blocks and dense layers around the paper's 3 and 5 are chosen here."""

LOSSES: tuple[LossName, ...] = ("l1", "mse")
"""What the study `loss` compares."""


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family; `ablations` gives others."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in QFS),
        next_cycle(_fast(HARD_QF)),
        from_other_quality(_fast(EASY_QF), _fast(HARD_QF)),
        _blind(),
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Lee et al. (2021) for one quality factor."""
    stage = Stage(
        name="restore",
        steps=STEPS,
        batch=BATCH,
        loss="l1",
        optimizer="adam",
        lr=1e-3,
        schedule="exponential",
        final_lr_scale=0.01,
    )
    return Recipe(
        name=f"dcrn-qf{qf}",
        architecture="dcrn",
        patches=PATCHES,
        qfs=(qf,),
        stages=(stage,),
        validation_set="classic5",
        source=(
            "Lee et al. 2021, section 4: 533,200 steps are its 50 epochs of 1,364,992 patches of "
            "DIV2K, whatever the store. Chosen here: one network a quality factor, patches that "
            "do not overlap, and the geometric way from 1e-3 to 1e-5"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a modern recipe for the same network: Muon, cosine schedule."""
    return fast_recipe(
        "dcrn",
        qf,
        fast_stage(steps=40_000, batch=64, loss="l1", clip_norm=1.0),
        source="The network and loss of Lee et al. 2021 with Muon (chosen here)",
    )


def _blind() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return blind_recipe(
        "dcrn",
        fast_stage(steps=60_000, batch=64, loss="l1", clip_norm=1.0, side=48),
        source="The network of Lee et al. 2021 on mixed quality factors (chosen here)",
    )


def ablations(study: str, qf: int = 10) -> tuple[Recipe, ...]:
    """Return the paper's recipe in every variant of one study, named `dcrn-qf10-<study>-<variant>`.

    Raises ValueError that lists the known studies.
    """
    if study == "loss":
        return tuple(_with_loss(paper_recipe(qf), loss) for loss in LOSSES)
    if study not in ABLATIONS:
        raise ValueError(f"study {study!r}: choose one of {sorted([*ABLATIONS, 'loss'])}")
    base = paper_recipe(qf)
    return tuple(
        replace(base, name=f"{base.name}-{study}-{variant}", options=dict(options))
        for variant, options in ABLATIONS[study].items()
    )


def _with_loss(base: Recipe, loss: LossName) -> Recipe:
    stages = tuple(replace(stage, loss=loss) for stage in base.stages)
    return replace(base, name=f"{base.name}-loss-{loss}", stages=stages)
