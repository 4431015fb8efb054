"""The moving average of a network's weights over the steps."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

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
