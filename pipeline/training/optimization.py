"""What a stage does to the weights: its optimiser, its learning rate, its augmentation."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models import layer_names
from pipeline.recipes.base import Recipe, Stage
from pipeline.training.muon import Muon

LR_SCALE = "lr_scale"
AUGMENTATION, NETWORK = 1, 2  # what a random stream is for, part of its seed


def stage_spans(recipe: Recipe) -> Iterator[tuple[int, Stage, int, int]]:
    """Yield (index, stage, first step, end step) of every stage, steps counted over the recipe."""
    first = 0
    for index, stage in enumerate(recipe.stages):
        yield index, stage, first, first + stage.steps
        first += stage.steps


def learning_rate(stage: Stage, step: int) -> float:
    """Return the learning rate of a stage's step, counted from 0: a pure function of both.

    It rises linearly to `lr` over the warm-up. A cosine (Loshchilov & Hutter 2017, without
    restarts) and an exponential then end at `lr * final_lr_scale` in the last step; what a plateau
    takes off comes on top.
    """
    if step < stage.warmup_steps:
        return stage.lr * (step + 1) / (stage.warmup_steps + 1)
    progress = (step - stage.warmup_steps) / max(1, stage.steps - 1 - stage.warmup_steps)
    progress = min(1.0, progress)
    if stage.schedule == "cosine":
        height = 0.5 * (1 + math.cos(math.pi * progress))
        return stage.lr * (stage.final_lr_scale + (1 - stage.final_lr_scale) * height)
    if stage.schedule == "exponential":
        return stage.lr * stage.final_lr_scale**progress
    return stage.lr


@dataclass
class Plateau:
    """How far the plateau schedule has gone down within a stage."""

    best: float = -math.inf
    """The highest validation PSNR so far, dB."""
    waited: int = 0
    """Validations since then."""
    scale: float = 1.0
    """What the learning rate is multiplied by."""

    def update(self, stage: Stage, psnr: float) -> None:
        """Take in a validation; the rate falls when the last few were no better than the best."""
        if psnr > self.best:
            self.best, self.waited = psnr, 0
            return
        self.waited += 1
        if self.waited >= stage.plateau_patience:
            self.scale *= stage.plateau_factor
            self.waited = 0


def make_optimizer(stage: Stage, network: nn.Module) -> torch.optim.Optimizer:
    """Return a fresh optimiser; the last layer is a group of its own with its own scale.

    Muon makes the updates of convolutions orthogonal but for the first and the last layer's.
    """
    names = layer_names(network)
    first, last = (list(network.get_submodule(names[end]).parameters()) for end in (0, -1))
    of_first, of_last = ({id(parameter) for parameter in layer} for layer in (first, last))
    body = [parameter for parameter in network.parameters() if id(parameter) not in of_last]
    groups = [
        {"params": body, LR_SCALE: 1.0},
        {"params": last, LR_SCALE: stage.last_layer_lr_scale},
    ]
    if stage.optimizer == "muon":
        matrices = [p for p in body if p.ndim == 4 and id(p) not in of_first]
        of_matrices = {id(parameter) for parameter in matrices}
        groups[0]["params"] = [p for p in body if id(p) not in of_matrices]
        groups.append({"params": matrices, LR_SCALE: 1.0, "orthogonal": True})
        return Muon(groups, lr=stage.lr, weight_decay=stage.weight_decay, momentum=0.95)
    if stage.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=stage.lr,
            momentum=stage.momentum,
            weight_decay=stage.weight_decay,
            fused=True,
        )
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=stage.lr, weight_decay=stage.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group: `lr` times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[LR_SCALE]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return everything that the optimiser remembers, as `<parameter number>.<name>`."""
    return {
        f"{number}.{name}": value
        for number, remembered in optimizer.state_dict()["state"].items()
        for name, value in remembered.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, into a fresh optimiser of the same network."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if value.shape == parameter.shape:  # in the parameter's memory layout, as it was
                remembered[name] = torch.empty_like(parameter).copy_(value)


def draw_transform(seed: int, step: int) -> int:
    """Return one of the 8 flips and turns for a step's batch, the same on every rank."""
    return int(np.random.default_rng((seed, AUGMENTATION, step)).integers(8))


def seed_network(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that no random state has to be kept between steps."""
    words = np.random.SeedSequence((seed, NETWORK, step, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]) >> 1)
