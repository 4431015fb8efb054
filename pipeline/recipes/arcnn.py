"""Recipes for AR-CNN: the paper's own, its easy-hard transfers, and modern ones.

A plain name, `arcnn-qf10`, starts from random weights; what starts from another network ends in
`-from-` and what that differs in: `-from-qf20`, `-from-shallow`. `-next-` goes on from its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pipeline.recipes.base import Recipe, Stage, Transfer
from pipeline.recipes.shared import blind_recipe, fast_recipe, fast_stage, next_cycle
from storage.patches.schema import PatchSpec

QFS = (10, 20, 30, 40)
DEEP_QFS = (10, 20)
EASY_QF, HARD_QF = 20, 10
CAFFE_LR_SCALE = 20 * 20 / 2  # Caffe's loss is the sum over 20x20 pixels / 2, ours is the mean

PATCHES = PatchSpec(side=32, stride=10, qfs=QFS, degradation="patch")
VALIDATION_SET = "bsds500:val"
RESCALED_PATCHES = PatchSpec(side=32, stride=8, qfs=(10,), degradation="rescaled")
FAST = MappingProxyType({"shrink_in_training": True, "init": "he", "border": "image"})

CONVERGENCE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fig6": ("arcnn-qf10", "arcnn-deep-qf10-from-shallow", "arcnn-deep-qf10"),
        "fig6-1x1": ("arcnn-qf10", "arcnn-deep-1x1-qf10-from-shallow", "arcnn-deep-1x1-qf10"),
        "fig7": ("arcnn-qf10", "arcnn-qf10-from-qf20", "arcnn-qf10-from-qf20-two-layers"),
        "fig8": (
            "arcnn-rescaled-qf10",
            "arcnn-rescaled-qf10-from-qf10",
            "arcnn-rescaled-qf10-from-qf20",
        ),
        "fig6-fast": (
            "arcnn-fast-qf10",
            "arcnn-deep-fast-qf10-from-shallow",
            "arcnn-deep-fast-qf10",
        ),
        "fig7-fast": ("arcnn-fast-qf10", "arcnn-fast-qf10-from-qf20"),
        "fig8-fast": ("arcnn-rescaled-fast-qf10", "arcnn-rescaled-fast-qf10-from-qf10"),
    }
)
"""The recipes whose convergence the paper's figures 6 to 8 compare, the paper's base first. Its
9-7-1-1-5, of which it says that the trend is the same, is `fig6-1x1`."""


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    papers = {qf: paper_recipe(qf) for qf in QFS}
    fast = {qf: _fast(qf) for qf in QFS}
    return (
        *papers.values(),
        *fast.values(),
        *(next_cycle(fast[qf]) for qf in DEEP_QFS),
        _to_lower_quality(papers[HARD_QF], layers=1),
        _to_lower_quality(papers[HARD_QF], layers=2),
        _to_lower_quality(fast[HARD_QF], layers=1),
        *(recipe for qf in DEEP_QFS for recipe in _to_deeper(papers[qf], "arcnn-deep")),
        *(recipe for qf in DEEP_QFS for recipe in _to_deeper(fast[qf], "arcnn-deep")),
        *_to_deeper(papers[HARD_QF], "arcnn-deep-1x1"),
        *_to_rescaled(papers[HARD_QF], sources=(papers[HARD_QF], papers[EASY_QF])),
        *_to_rescaled(fast[HARD_QF], sources=(fast[HARD_QF],)),
        _blind(),
    )


def paper_stage() -> Stage:
    """Return the training of Dong et al. (2015), section 4.1, which their SRCNN shares."""
    return Stage(
        name="restore",
        steps=1_000_000,
        batch=128,
        loss="centre_mse",
        optimizer="sgd",
        lr=1e-4 * CAFFE_LR_SCALE,
        last_layer_lr_scale=0.1,
        momentum=0.9,
    )


def paper_recipe(qf: int) -> Recipe:
    """Return the recipe of Dong et al. (2015) for one quality factor, from random weights.

    Gaussian initialisation, SGD, mean squared error of the 20x20 centre of 32x32 patches: the
    networks of the paper's tables 1 and 2, and the base of its transfers.
    """
    return Recipe(
        name=f"arcnn-qf{qf}",
        architecture="arcnn",
        options={"shrink_in_training": True, "init": "paper"},
        patches=PATCHES,
        qfs=(qf,),
        stages=(paper_stage(),),
        validation_set=VALIDATION_SET,
        source=(
            "Dong et al. 2015, section 4.1. Chosen here: momentum and steps, which the paper "
            "leaves open, and the padding that gives 20x20"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a modern recipe for the same network: He initialisation, Muon, cosine schedule."""
    return fast_recipe(
        "arcnn",
        qf,
        fast_stage(steps=20_000, batch=128, loss="centre_mse", clip_norm=1.0),
        patches=PATCHES,
        options=dict(FAST),
        source="The network and patches of Dong et al. 2015 with Muon (chosen here)",
    )


def _blind() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return blind_recipe(
        "arcnn",
        fast_stage(steps=40_000, batch=64, loss="centre_mse", clip_norm=1.0, side=48),
        options=dict(FAST),
        source="The network of Dong et al. 2015 on mixed quality factors (chosen here)",
    )


def _to_lower_quality(hard: Recipe, *, layers: int) -> Recipe:
    """Return high to low quality (section 4.2.2): from the first layers of QF 20."""
    return replace(
        hard,
        name=f"{hard.name}-from-qf{EASY_QF}{'-two-layers' if layers == 2 else ''}",
        init_from=Transfer(recipe=hard.name.replace(hard.label, f"qf{EASY_QF}"), layers=layers),
        source=f"{hard.source}. From quality factor {EASY_QF}: section 4.2.2",
    )


def _to_deeper(shallow: Recipe, architecture: str) -> tuple[Recipe, Recipe]:
    """Return five layers from random weights by He et al.'s rule, then shallow to deeper.

    The latter (section 4.2.1) takes layers 1 and 2 of the four-layer network.
    """
    deep = replace(
        shallow,
        name=shallow.name.replace("arcnn", architecture),
        architecture=architecture,
        source=f"{shallow.source}. Five layers: section 4.2.1",
    )
    return (
        replace(
            deep,
            options={**deep.options, "init": "he"},
            source=f"{deep.source}, the baseline by He et al.'s rule",
        ),
        replace(
            deep,
            name=f"{deep.name}-from-shallow",
            init_from=Transfer(recipe=shallow.name, layers=2),
        ),
    )


def _to_rescaled(standard: Recipe, sources: tuple[Recipe, ...]) -> tuple[Recipe, ...]:
    """Return the real use case from random weights, then standard to real (section 4.2.3).

    The latter take layer 1 of the networks of `sources`.
    """
    rescaled = replace(
        standard,
        name=standard.name.replace("arcnn", "arcnn-rescaled"),
        patches=RESCALED_PATCHES,
        source=(
            f"{standard.source}. Photos rescaled before their JPEG: section 4.2.3. Chosen here: "
            "quality factor 10, a stride of 8 that keeps to the JPEG grid, and the rescaling"
        ),
    )
    transfers = (
        replace(
            rescaled,
            name=f"{rescaled.name}-from-{source.label}",
            init_from=Transfer(recipe=source.name, layers=1),
        )
        for source in sources
    )
    return (rescaled, *transfers)
