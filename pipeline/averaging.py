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
        self._network = network
        self._decay = decay
        self._parameters = {name for name, _ in network.named_parameters()}
        self.tensors: Mapping[str, Tensor] = {
            name: value.detach().clone() for name, value in network.state_dict().items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from an average that was kept."""
        for name, own in self.tensors.items():
            own.copy_(tensors[name])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (WARM_UP + step))
        averages, values = [], []
        for name, value in self._network.state_dict().items():
            if name in self._parameters:
                averages.append(self.tensors[name])
                values.append(value)
            else:
                self.tensors[name].copy_(value)
        get_ema_multi_avg_fn(decay)(averages, values, 0)
