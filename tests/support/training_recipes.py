"""Small real recipes and stores for tests: seconds of training on one core."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipeline.recipes.base import Recipe, Stage
from pipeline.training.job import TrainingJob, TrainingResult
from storage.patches.versions import StoreVersion
from tests.support.store_images import SPEC, build, image_folder

STAGE = Stage(
    name="restore",
    steps=40,
    batch=8,
    loss="mse",
    optimizer="adam",
    lr=3e-3,
    schedule="cosine",
    warmup_steps=5,
    augment=True,
)
RECIPE = Recipe(
    name="small-qf10",
    architecture="quickres",
    options={"channels": 8},
    patches=SPEC,
    qfs=(10,),
    stages=(STAGE,),
    source="tests",
)
TWO_STAGES = replace(
    RECIPE,
    name="two-stages-qf10",
    stages=(
        replace(STAGE, steps=15),
        replace(STAGE, name="tune", steps=25, optimizer="sgd", lr=0.05, last_layer_lr_scale=0.1),
    ),
)
EVERYTHING = replace(
    RECIPE,
    name="everything-blind",
    qfs=(10, 40),
    ema_decay=0.9,
    validation_share=0.3,
    stages=(
        replace(STAGE, steps=15, optimizer="adamw", weight_decay=0.01, clip_norm=0.5, side=24),
        replace(
            STAGE,
            name="tune",
            steps=25,
            loss="l1",
            schedule="plateau",
            validate_every=3,
            plateau_patience=1,
            share=0.5,
        ),
    ),
)

UNEVEN = replace(
    RECIPE, name="uneven-qf10", stages=(replace(STAGE, batch=7, optimizer="sgd", lr=0.1),)
)


def make_store(folder: Path) -> StoreVersion:
    """Build a store of 240 real pairs, 32x32, that every recipe here can train on."""
    return build(image_folder(folder / "photos"), folder / "store").version


def make_job(store: StoreVersion, out: Path, recipe: Recipe = RECIPE, **options) -> TrainingJob:
    """Return a job of one thread, so that its weights are the same everywhere."""
    values = {"threads": 1, **options}
    return TrainingJob(
        recipe=recipe, store=store.uri, version=store.number, checkpoints=str(out), **values
    )


def assert_same_steps(one: TrainingResult, other: TrainingResult) -> None:
    """Check that two trainings took the same steps: losses and weights differ by rounding alone."""
    assert [record.step for record in one.history] == [record.step for record in other.history]
    losses = [torch.tensor([record.loss for record in made.history]) for made in (one, other)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    weights = [load_file(made.weights) for made in (one, other)]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)
