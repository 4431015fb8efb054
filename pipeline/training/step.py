"""One step of a stage: forward, loss, backward, optimiser, moving average."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models import needs_table
from models.losses import LOSSES
from pipeline.loading.inputs import Inputs, to_network
from pipeline.loading.loader import Batch
from pipeline.networks.devices import Precision, autocast
from pipeline.recipes.base import Recipe, Stage
from pipeline.training.failure_messages import is_out_of_memory, too_large
from pipeline.training.job import World
from pipeline.training.optimization import (
    draw_transform,
    make_optimizer,
    seed_network,
    set_learning_rate,
)

WARM_UP = 10  # steps; the average follows the weights closely at first


class WeightAverage:
    """An exponential moving average of a network's parameters, beside its present buffers.

    After step t = 0, 1, ... the decay is min(decay, (1 + t) / (10 + t)), so that short trainings do
    not remember their start. `tensors` is a whole state dictionary.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the network's present weights, on their device."""
        self._decay = decay
        values = network.state_dict()  # they share their memory with the network's
        self.tensors: Mapping[str, Tensor] = {
            name: value.detach().clone() for name, value in values.items()
        }
        learned = [name for name, _ in network.named_parameters()]
        self._averages, self._learned = (
            [kept[name] for name in learned] for kept in (self.tensors, values)
        )
        self._buffers = [(self.tensors[name], values[name]) for name in values.keys() - {*learned}]

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from an average that was kept."""
        for name, own in self.tensors.items():
            own.copy_(tensors[name])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (WARM_UP + step))
        for kept, value in self._buffers:
            kept.copy_(value)
        get_ema_multi_avg_fn(decay)(self._averages, self._learned, 0)


class StageStep:
    """The steps of one stage, with a fresh optimiser."""

    def __init__(
        self,
        recipe: Recipe,
        stage: Stage,
        world: World,
        network: nn.Module,
        model: nn.Module,
        average: WeightAverage | None,
        precision: Precision,
    ) -> None:
        """Prepare to train `network`; `model` is what is called, its data-parallel wrapper or it.

        `average` takes in the weights after every step; the forward pass is in `precision`.
        """
        self.recipe, self.stage, self.world = recipe, stage, world
        self.network, self.model, self.average = network, model, average
        self.precision: Precision = precision
        self.optimizer = make_optimizer(stage, network)
        self.with_tables = needs_table(network)

    def take(self, step: int, lr: float, batch: Batch) -> Tensor:
        """Train on this rank's share of a step and return its loss; `step` counts over all stages.

        The loss is a scalar whose mean over the ranks is that of the whole batch. Raises
        TrainingError when the batch does not fit into memory.
        """
        seed = self.recipe.seed
        seed_network(seed, step, self.world.rank)
        set_learning_rate(self.optimizer, lr)
        transform = draw_transform(seed, step) if self.stage.augment else 0
        inputs, target = to_network(
            batch, self.world.device, with_tables=self.with_tables, transform=transform
        )
        loss = self._loss_or_none(inputs, target)
        if loss is None:  # outside of the exception, which holds on to what was computed
            raise too_large(
                self.recipe,
                self.stage,
                self.world,
                target.shape[-1],
                lambda patches: self._backward(
                    copy.deepcopy(self.network),  # which no data-parallel wrapper listens to
                    tuple(x[:patches] for x in inputs),
                    target[:patches],
                ),
            )
        if self.average is not None:
            self.average.update(step)
        return loss

    def _loss_or_none(self, inputs: Inputs, target: Tensor) -> Tensor | None:
        """Take the step and return its loss, or None if there is not enough memory."""
        try:
            loss = self._backward(self.model, inputs, target)
            if self.stage.clip_norm is not None:
                clip_grad_norm_(self.network.parameters(), self.stage.clip_norm)
            self.optimizer.step()
            return loss
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self.optimizer.zero_grad(set_to_none=True)
        return None

    def _backward(self, model: nn.Module, inputs: Inputs, target: Tensor) -> Tensor:
        """Leave the gradients of a batch in the model and return its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.precision, self.world.device):
            outputs = model(*inputs)
        if isinstance(outputs, tuple):
            outputs = tuple(output.float() for output in outputs)
        else:
            outputs = outputs.float()
        loss = LOSSES[self.stage.loss](outputs, target)
        loss = loss * (self.world.size * len(target) / self.stage.batch)  # its share, in the mean
        loss.backward()
        return loss.detach()
