"""What a training is asked to do and what it gives back: plain values that travel anywhere."""

import re
from dataclasses import dataclass, field

import torch

from pipeline.networks.devices import Precision, PrecisionChoice
from pipeline.networks.weights import WEIGHTS
from pipeline.recipes.base import Recipe
from storage.patches.versions import build_command

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class TrainingError(Exception):
    """A training cannot go on; the message names the step and what to do."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One recipe on one store version."""

    recipe: Recipe
    store: str
    """URI of the patch store."""
    version: int | None = None
    """Store version; None takes the current one."""
    checkpoints: str
    """URI of a folder of this job's own: it resumes from there, and its weights end up there."""
    checkpoint_every_s: float = 60.0
    """Seconds between checkpoints; the end of a stage and of the training always have one."""
    validation_store: str | None = None
    """URI of the patch store of the validation set that the recipe looks at."""
    validation_version: int | None = None
    """Its version; None takes the current one."""
    initial_weights: str | None = None
    """URI of the weights that `recipe.init_from` takes its first layers from."""
    stop_after_s: float | None = None
    """Seconds after which this call stops with a checkpoint, finished or not."""
    threads: int | None = None
    """CPU threads of the network; None leaves torch's setting. Part of what decides the last bits
    of the weights."""
    precision: PrecisionChoice = "auto"
    """What the network computes in, see `pipeline.networks.devices`. `auto` keeps to what
    a training that goes on began in, where the device has it."""

    def __post_init__(self) -> None:
        start, recipe = self.recipe.init_from, self.recipe.name
        if start is not None and self.initial_weights is None:
            raise ValueError(
                f"recipe {recipe} starts from {start.recipe!r}: train that first, then give its "
                f"{WEIGHTS} as the initial weights"
            )
        if start is None and self.initial_weights is not None:
            raise ValueError(f"recipe {recipe} starts from scratch: give it no initial weights")
        looks_at = self.recipe.looks_at
        if looks_at is None and self.validation_store is not None:
            raise ValueError(f"recipe {recipe} looks at no validation set: give it no store of one")
        if looks_at is not None and self.validation_store is None:
            uri = f"{self.store}-validation"
            command = build_command(uri, self.recipe.validation_patches, looks_at)
            raise ValueError(
                f"recipe {recipe} validates on {looks_at}: give the patch store of these images as "
                f"the validation store; {command} --allow-evaluation-images makes it"
            )


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes that train together, and which of them this one is."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


ALONE = World()


@dataclass(frozen=True, kw_only=True)
class Record:
    """How training went since the record before."""

    step: int
    """Optimiser steps done, over all stages."""
    loss: float
    """Mean over the steps since the record before."""
    lr: float
    """Learning rate of the last step, of every layer but the last."""
    samples_per_s: float
    """Patches a second, over all workers together."""
    seconds: float
    """Seconds of training up to here, those before an interruption included."""
    validation_psnr: float | None = None
    """PSNR on the validation set or on the patches held out, dB, at the last look since the record
    before; see `pipeline.training.validation`."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive steps of a training that one kind of processor took in one precision."""

    processor: str
    """Of the first worker, as `pipeline.networks.devices.processor_name` calls it."""
    precision: Precision
    steps: int


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training has left behind."""

    weights: str
    """URI of the safetensors file that `pipeline.networks.weights.load_network` reads."""
    steps: int
    """Optimiser steps done."""
    seconds: float
    """Seconds of training, those before an interruption included."""
    history: tuple[Record, ...]
    """Every record from the first step on."""
    parts: tuple[Part, ...] = ()
    """On what, and in which precision, the steps were taken; they add up to `steps`."""
    finished: bool
    """False if `stop_after_s` came first; the same job then goes on where it stopped."""

    @property
    def precision(self) -> str:
        """What it was trained in, such as `bfloat16`, or `bfloat16, float32` if it moved."""
        return ", ".join(dict.fromkeys(part.precision for part in self.parts))


def parse_seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `9m`, `1.5h` or `7d`; ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise ValueError(f"duration {text!r}: write it as 90s, 9m, 1.5h or 7d")
    return float(found[1]) * SECONDS[found[2]]
