"""Recipes for AR-CNN: the paper's own with its easy-hard transfers, and modern ones."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pipeline.recipes.base import Recipe, Stage, Transfer
from pipeline.recipes.shared import blind_recipe, fast_recipe, fast_stage
from storage.schema import PatchSpec

QFS = (10, 20, 30, 40)
DEEP_QFS = (10, 20)
EASY_QF = 20
CAFFE_LR_SCALE = 20 * 20 / 2  # Caffe's loss is the sum over 20x20 pixels / 2, ours is the mean

PATCHES = PatchSpec(side=32, stride=10, qfs=QFS, degradation="patch")
RESCALED_PATCHES = PatchSpec(side=32, stride=8, qfs=(10,), degradation="rescaled")

CONVERGENCE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fig6": ("arcnn-deep-qf10-scratch", "arcnn-deep-qf10"),
        "fig7": ("arcnn-qf10-scratch", "arcnn-qf10", "arcnn-qf10-two-layers"),
        "fig8": (
            "arcnn-rescaled-qf10-scratch",
            "arcnn-rescaled-qf10",
            "arcnn-rescaled-qf10-from-qf20",
        ),
        "fig6-fast": ("arcnn-deep-fast-qf10-scratch", "arcnn-deep-fast-qf10"),
        "fig7-fast": ("arcnn-fast-qf10", "arcnn-fast-qf10-transfer"),
        "fig8-fast": ("arcnn-rescaled-fast-qf10-scratch", "arcnn-rescaled-fast-qf10"),
    }
)
"""The recipes whose convergence the paper's figures 6 to 8 compare, the one from scratch first."""


def recipes() -> tuple[Recipe, ...]:
    """Return every recipe of the family."""
    return (
        *(paper_recipe(qf) for qf in QFS),
        *(_fast(qf) for qf in QFS),
        *_variants(
            paper_recipe(10), transfers={"two-layers": Transfer(recipe="arcnn-qf20", layers=2)}
        ),
        replace(
            _fast(10),
            name="arcnn-fast-qf10-transfer",
            init_from=Transfer(recipe="arcnn-fast-qf20", layers=1),
        ),
        *(recipe for qf in DEEP_QFS for recipe in _deep(paper_recipe(qf), "arcnn-deep")),
        *(recipe for qf in DEEP_QFS for recipe in _deep(_fast(qf), "arcnn-deep-fast")),
        *_rescaled(
            paper_recipe(10),
            "arcnn-rescaled",
            {"from-qf20": Transfer(recipe="arcnn-qf20", layers=1)},
        ),
        *_rescaled(_fast(10), "arcnn-rescaled-fast", {}),
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
    """Return the recipe of Dong et al. (2015) for one quality factor.

    Gaussian initialisation, SGD, mean squared error of the 20x20 centre of 32x32 patches. QF 20 is
    trained from scratch; the others start from its first layer (the paper's section 4.3).
    """
    return Recipe(
        name=f"arcnn-qf{qf}",
        architecture="arcnn",
        options={"shrink_in_training": True, "init": "paper"},
        patches=PATCHES,
        qfs=(qf,),
        stages=(paper_stage(),),
        init_from=None if qf == EASY_QF else Transfer(recipe=f"arcnn-qf{EASY_QF}", layers=1),
        source=(
            "Dong et al. 2015, sections 4.1 and 4.3. Chosen here: momentum and steps, which the "
            "paper leaves open, and the padding that gives 20x20"
        ),
    )


def _fast(qf: int) -> Recipe:
    """Return a modern recipe for the same network: He initialisation, AdamW, cosine schedule."""
    return fast_recipe(
        "arcnn",
        qf,
        fast_stage(steps=20_000, batch=64, loss="centre_mse", lr=1e-3),
        patches=PATCHES,
        options={"shrink_in_training": True, "init": "he"},
        source="The network and patches of Dong et al. 2015 with AdamW (chosen here)",
    )


def _blind() -> Recipe:
    """Return a modern recipe for one network for all quality factors from 5 to 95."""
    return blind_recipe(
        "arcnn",
        fast_stage(steps=40_000, batch=64, loss="centre_mse", lr=1e-3, side=48),
        options={"shrink_in_training": True, "init": "he"},
        source="The network of Dong et al. 2015 on mixed quality factors (chosen here)",
    )


def _deep(shallow: Recipe, network: str) -> tuple[Recipe, ...]:
    """Return shallow to deeper (section 4.3.1): layers 1 and 2 of the four-layer network."""
    deep = replace(
        shallow,
        name=f"{network}-{shallow.label}",
        architecture="arcnn-deep",
        init_from=Transfer(recipe=_base(shallow), layers=2),
        source=f"{shallow.source}. Five layers, the first two from four: section 4.3.1",
    )
    return (deep, *_variants(deep, transfers={}))


def _rescaled(
    standard: Recipe, network: str, transfers: Mapping[str, Transfer]
) -> tuple[Recipe, ...]:
    """Return standard to real use case (section 4.3.3): layer 1 of the standard network."""
    rescaled = replace(
        standard,
        name=f"{network}-{standard.label}",
        patches=RESCALED_PATCHES,
        init_from=Transfer(recipe=_base(standard), layers=1),
        source=(
            f"{standard.source}. Photos rescaled before their JPEG: section 4.3.3. Chosen here: "
            "quality factor 10, a stride of 8 that keeps to the JPEG grid, and the rescaling"
        ),
    )
    return (rescaled, *_variants(rescaled, transfers))


def _base(recipe: Recipe) -> str:
    """Return the recipe of the same network that was trained from scratch: the paper's base."""
    return recipe.name if recipe.init_from is None else f"{recipe.name}-scratch"


def _variants(recipe: Recipe, transfers: Mapping[str, Transfer]) -> tuple[Recipe, ...]:
    """Return the recipe without its transfer, then with others, to compare convergence."""
    initial = {"scratch": None, **transfers}
    return tuple(
        replace(recipe, name=f"{recipe.name}-{name}", init_from=transfer)
        for name, transfer in initial.items()
    )
