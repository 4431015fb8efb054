"""What a recipe is: everything that decides the weights, in frozen dataclasses with units."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

from storage.patches.schema import PatchSpec

LossName = Literal["mse", "log_mse", "centre_mse", "l1", "multi_scale_mse", "dual_domain"]
OptimizerName = Literal["sgd", "adam", "adamw", "muon"]
ScheduleName = Literal["constant", "cosine", "exponential", "plateau"]

BLIND_QFS = tuple(range(5, 96, 5))
"""The quality factors that a blind network is trained for."""
BLIND_EVALUATION_QFS = (10, 20, 30, 40)
"""Those that it is scored at, the papers'."""


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
    """SGD's momentum; the others ignore it."""
    weight_decay: float = 0.0
    """Share of every weight that is taken off a step, times the learning rate: decoupled in
    `adamw`, as a gradient in the others."""
    clip_norm: float | None = None
    """The gradient's norm is cut to this; None leaves it."""
    schedule: ScheduleName = "constant"
    final_lr_scale: float = 0.01
    """The cosine and exponential schedules end at `lr` times this."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    validate_every: int = 0
    """Steps between looks at the loss of the recipe's validation set, or of the patches held out;
    0 for none."""
    plateau_factor: float = 1 / 3
    """The plateau schedule multiplies the learning rate by this ..."""
    plateau_patience: int = 3
    """... after so many validations in a row without a lower loss."""
    side: int | None = None
    """Side in pixels of what a step sees of each patch, cut out at a random place of the JPEG grid;
    None takes the whole patch."""
    share: float = 1.0
    """Share of the store's patches that the stage trains on."""
    augment: bool = False
    """Whether batches are flipped and turned (patches must then lie on the JPEG grid)."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("loss", LossName),
            ("optimizer", OptimizerName),
            ("schedule", ScheduleName),
        ):
            _check_choice(name, getattr(self, name), get_args(kind))
        for name in ("steps", "batch", "lr"):
            self._check(getattr(self, name) > 0, name, "must be above 0")
        self._check(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "must be above 0")
        self._check(self.weight_decay >= 0, "weight_decay", "must be 0 or more")
        self._check(0 < self.share <= 1, "share", "must be above 0 and at most 1")
        self._check(0 < self.plateau_factor < 1, "plateau_factor", "must lie between 0 and 1")
        self._check(self.plateau_patience > 0, "plateau_patience", "must be 1 or more")
        self._check(
            self.schedule != "plateau" or self.validate_every > 0,
            "validate_every",
            "must be above 0 for the plateau schedule",
        )
        self._check(
            self.side is None or (self.side >= 8 and self.side % 8 == 0),
            "side",
            "must be a multiple of 8",
        )

    def _check(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"stage {self.name}: {name} {getattr(self, name)} {rule}")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Where the first layers of a network come from before training starts."""

    recipe: str
    """Name of the recipe whose trained network gives them."""
    layers: int | None = None
    """How many layers are taken, counted from the input; None takes the whole network."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained. Two equal recipes on equal stores give equal weights."""

    name: str
    architecture: str
    """A name in models.ARCHITECTURES."""
    options: dict[str, object] = field(default_factory=dict)
    """Keyword arguments of the network's constructor."""
    patches: PatchSpec
    """The patch store that it trains on; a store may hold more quality factors than `qfs`."""
    qfs: tuple[int, ...]
    """JPEG quality factors of the inputs, ascending; with several, a batch mixes them. Any for a
    store of originals alone (degradation `none`)."""
    frequent_qfs: tuple[int, ...] = ()
    """Of `qfs`, those that half of the patches are drawn from; the others come from all alike."""
    stages: tuple[Stage, ...]
    init_from: Transfer | None = None
    """Easy-hard transfer; None starts from the network's own initialisation."""
    seed: int = 0
    """Decides the initial weights, the order of the patches and the augmentation."""
    ema_decay: float | None = None
    """The weights that are given out are the exponential moving average over the steps, of this
    decay; None gives the last step's."""
    validation_share: float = 0.0
    """Share of the store that is held out of training, for validation."""
    validation_set: str | None = None
    """Reference of the dataset to validate on in place of patches held out, such as
    `bsds500:val`. It need not be there unless a stage looks at it."""
    registered_as: str | None = None
    """Name of its model in the registry; None for `qfactory-ARCHITECTURE-LABEL`, where it competes
    with the other recipes of its network and quality factor for `@champion`."""
    source: str
    """The paper, section or decision that the settings come from."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "qfs", tuple(sorted(set(self.qfs))))
        self._check_qfs()
        if self.registered_as is not None and not re.fullmatch(r"[\w.-]+", self.registered_as):
            raise ValueError(
                f"recipe {self.name}: registered_as {self.registered_as!r}: choose letters, "
                "digits, '-', '_' and '.'"
            )
        if not self.stages:
            raise ValueError(f"recipe {self.name}: it has no stages")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"recipe {self.name}: ema_decay {self.ema_decay}: choose 0 to 1")
        if not 0 <= self.validation_share < 1:
            raise ValueError(
                f"recipe {self.name}: validation_share {self.validation_share}: choose 0 to 1"
            )
        if self.validation_share and self.validation_set:
            raise ValueError(
                f"recipe {self.name}: it validates on {self.validation_set}: leave "
                f"validation_share {self.validation_share} away"
            )
        for stage in self.stages:
            self._check_stage(stage)

    def _check_qfs(self) -> None:
        missing = sorted(set(self.qfs) - set(self.patches.qfs))
        if (missing and self.patches.qfs) or not self.qfs:
            raise ValueError(
                f"recipe {self.name}: QF {missing} is not in its patches' {self.patches.qfs}"
            )
        if missing := sorted(set(self.frequent_qfs) - set(self.qfs)):
            raise ValueError(f"recipe {self.name}: frequent QF {missing} is none of {self.qfs}")

    def _check_stage(self, stage: Stage) -> None:
        if stage.side is not None and stage.side > self.patches.side:
            raise ValueError(
                f"recipe {self.name}, stage {stage.name}: its side {stage.side} exceeds the "
                f"{self.patches.side} of the store's patches: choose a smaller side, or patches "
                "of a larger one"
            )
        if stage.validate_every and not (self.validation_share or self.validation_set):
            raise ValueError(
                f"recipe {self.name}, stage {stage.name}: validate_every {stage.validate_every} "
                "needs a validation_set or a validation_share"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def blind(self) -> bool:
        """Whether one network is trained for several quality factors."""
        return len(self.qfs) > 1

    @property
    def label(self) -> str:
        """What the network is for: `qf10`, `blind`, `rescaled-qf10`."""
        inputs = "blind" if self.blind else f"qf{self.qfs[0]}"
        return f"rescaled-{inputs}" if self.patches.degradation == "rescaled" else inputs

    @property
    def model_name(self) -> str:
        """The name that its networks are registered under."""
        return self.registered_as or f"qfactory-{self.architecture}-{self.label}"

    @property
    def evaluation_qfs(self) -> tuple[int, ...]:
        """The quality factors that the network is scored at."""
        return BLIND_EVALUATION_QFS if self.blind else self.qfs

    @property
    def looks_at(self) -> str | None:
        """The validation set, if a stage looks at it."""
        return self.validation_set if any(s.validate_every for s in self.stages) else None

    @property
    def validation_patches(self) -> PatchSpec:
        """The patches of the validation set: those that it trains on, not overlapping."""
        return replace(self.patches, stride=self.patches.side)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of every setting that may decide the weights.

        That leaves out `source`, `registered_as`, and a validation set unless the plateau schedule
        follows it.
        """
        settings = {**asdict(self), "source": None}
        del settings["registered_as"]
        follows = any(stage.schedule == "plateau" for stage in self.stages)
        if self.validation_set is None or not follows:
            del settings["validation_set"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def with_steps(self, steps: int) -> "Recipe":
        """Return the recipe shortened or lengthened to `steps` in all, stages in proportion.

        Raises ValueError when a stage would be left without a step.
        """
        if steps < len(self.stages):
            raise ValueError(f"steps {steps}: {self.name} has {len(self.stages)} stages, give more")
        bounds = [sum(s.steps for s in self.stages[:i]) for i in range(len(self.stages) + 1)]
        scaled = [round(bound * steps / self.steps) for bound in bounds]
        for i in range(1, len(scaled)):  # a step at least for every stage, and none too many
            scaled[i] = min(max(scaled[i], scaled[i - 1] + 1), steps - (len(self.stages) - i))
        stages = tuple(
            replace(
                stage,
                steps=end - start,
                warmup_steps=round(stage.warmup_steps * steps / self.steps),
                validate_every=stage.validate_every
                and max(1, round(stage.validate_every * steps / self.steps)),
            )
            for stage, start, end in zip(self.stages, scaled[:-1], scaled[1:], strict=True)
        )
        return replace(self, stages=stages)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} {value!r}: choose one of {list(known)}")
