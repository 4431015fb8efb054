"""What a recipe is: everything that decides the weights, in frozen dataclasses with units."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

from storage.schema import PatchSpec

LossName = Literal["mse", "centre_mse"]
OptimizerName = Literal["sgd", "adam"]
ScheduleName = Literal["constant", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One uninterrupted piece of training; a recipe's stages run in turn on the same weights."""

    name: str
    """What the stage is for, one word."""
    steps: int
    """Optimiser steps."""
    batch: int
    """Patches a step, over all workers together."""
    loss: LossName
    """A name in models.losses.LOSSES."""
    optimizer: OptimizerName
    lr: float
    """Learning rate of every layer but the last."""
    last_layer_lr_scale: float = 1.0
    """Learning rate of the last layer, as a multiple of `lr`."""
    momentum: float = 0.9
    """SGD's momentum; Adam ignores it."""
    schedule: ScheduleName = "constant"
    final_lr_scale: float = 0.01
    """The cosine schedule ends at `lr` times this."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    augment: bool = False
    """Whether batches are flipped and turned (patches must then lie on the JPEG grid)."""

    def __post_init__(self) -> None:
        for name, kind in (("loss", LossName), ("optimizer", OptimizerName)):
            _check_choice(name, getattr(self, name), get_args(kind))
        _check_choice("schedule", self.schedule, get_args(ScheduleName))
        for name in ("steps", "batch", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"stage {self.name}: {name} {getattr(self, name)} must be above 0")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Where the first layers of a network come from before training starts."""

    recipe: str
    """Name of the recipe whose trained network gives them."""
    layers: int
    """How many layers are taken, counted from the input."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained. Two equal recipes on equal stores give equal weights."""

    name: str
    architecture: str
    """A name in models.ARCHITECTURES."""
    options: dict[str, object] = field(default_factory=dict)
    """Keyword arguments of the network's constructor."""
    patches: PatchSpec
    """The patch store that it trains on; a store may hold more quality factors than `qf`."""
    qf: int
    """JPEG quality factor of the inputs."""
    stages: tuple[Stage, ...]
    init_from: Transfer | None = None
    """Easy-hard transfer; None starts from the network's own initialisation."""
    seed: int = 0
    """Decides the initial weights, the order of the patches and the augmentation."""
    source: str
    """The paper, section or decision that the settings come from."""

    def __post_init__(self) -> None:
        if self.qf not in self.patches.qfs:
            raise ValueError(f"recipe {self.name}: QF {self.qf} is not in {self.patches.qfs}")
        if not self.stages:
            raise ValueError(f"recipe {self.name}: it has no stages")

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of every setting but `source`."""
        settings = {**asdict(self), "source": None}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def with_steps(self, steps: int) -> "Recipe":
        """Return the recipe shortened or lengthened to `steps` in all, stages in proportion.

        Raises ValueError when a stage would be left without a step.
        """
        if steps < len(self.stages):
            raise ValueError(f"steps {steps}: {self.name} has {len(self.stages)} stages, give more")
        bounds = [sum(s.steps for s in self.stages[:i]) for i in range(len(self.stages) + 1)]
        scaled = [round(bound * steps / self.steps) for bound in bounds]
        stages = tuple(
            replace(
                stage,
                steps=max(1, end - start),
                warmup_steps=round(stage.warmup_steps * steps / self.steps),
            )
            for stage, start, end in zip(self.stages, scaled[:-1], scaled[1:], strict=True)
        )
        return replace(self, stages=stages)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} {value!r}: choose one of {list(known)}")
