"""One step of a stage: forward, loss, backward, optimiser, moving average."""

import copy

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from models import needs_table
from models.losses import LOSSES
from pipeline.loading.inputs import Inputs, to_network
from pipeline.loading.loader import Batch
from pipeline.networks.devices import Precision, autocast
from pipeline.recipes.base import Recipe, Stage
from pipeline.training.averaging import WeightAverage
from pipeline.training.faults import is_out_of_memory, too_large
from pipeline.training.job import World
from pipeline.training.optimization import (
    draw_transform,
    make_optimizer,
    seed_network,
    set_learning_rate,
)


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
        """Train on one batch and return its loss, a scalar; `step` counts over all stages.

        Raises TrainingError when the batch does not fit into memory.
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
            with autocast(self.precision, self.world.device):  # for the products of Muon
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
        loss.backward()
        return loss.detach()
