"""What a network costs: parameters, the papers' total memory, multiply-adds, receptive field.

Networks map (N, 1, H, W) to the same shape. They are measured as copies in eval mode and left as
they are.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from models.measuring.receptive_field import receptive_field, table_for

SIDE = 40
"""Pixels of the square image that total memory is stated for (Lee et al. 2021)."""
MIB = 2**20

aten = torch.ops.aten
LAYER_OUTPUTS = frozenset(
    {
        *(aten.convolution, aten.relu, aten.relu_, aten._prelu_kernel, aten.sigmoid),
        *(aten.leaky_relu, aten.leaky_relu_, aten.native_batch_norm),
        *(aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training),
    }
)
"""Operations that are a layer of their own: convolution, batch normalisation, activation."""
BLOCK_OUTPUTS = frozenset({aten.cat, aten.add, aten.sub, aten.mul})
"""Operations with which a block joins what its layers gave."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """The size of one network and the work that it does."""

    parameters: int
    """Learned numbers."""
    total_memory_mb: float
    """The papers' "total memory" for one 40x40 image in float32, MiB."""
    multiply_adds_per_pixel: int
    """Of convolutions and matrix products."""
    receptive_field: int
    """Side in pixels of the square around a pixel that holds all it depends on, measured."""


def complexity(network: nn.Module) -> Complexity:
    """Measure a network."""
    return Complexity(
        parameters=_parameters(network),
        total_memory_mb=total_memory_mb(network),
        multiply_adds_per_pixel=multiply_adds_per_pixel(network),
        receptive_field=receptive_field(network),
    )


def total_memory_mb(network: nn.Module) -> float:
    """Return parameters + 2 x activations + input for one 40x40 image in float32, in MiB.

    This is the "total memory" of Lee et al. (2021, Table 1), which torchsummary prints; the factor
    2 stands for the gradients. Activations are the outputs of every convolution, batch
    normalisation and activation function, be it a module or a function, and what a block (any child
    module) concatenates, adds, subtracts or multiplies. What the network's own forward joins, such
    as its global skip, does not count: torchsummary sees the outputs of child modules only.
    """
    counter = _ActivationCounter()
    probe = copy.deepcopy(network).to("meta").eval()
    x = torch.empty(1, 1, SIDE, SIDE, device="meta")
    with torch.no_grad(), _depth_counted(probe, counter), counter:
        probe(x, *table_for(probe, x))
    numbers = _parameters(network) + 2 * counter.elements + x.numel()
    return numbers * torch.float32.itemsize / MIB


def multiply_adds_per_pixel(network: nn.Module) -> int:
    """Return the multiply-adds that each further pixel of an image costs.

    Counted by torch.utils.flop_counter: convolutions and matrix products, padding included;
    element-wise work is not. What is done once an image, such as the layers of channel attention
    behind its mean, drops out, because two sizes are compared.
    """
    work = [_multiply_adds(network, side) for side in (SIDE, 2 * SIDE)]
    return round((work[1] - work[0]) / (3 * SIDE**2))


class _ActivationCounter(TorchDispatchMode):
    """Adds up the sizes of the outputs that count as activations."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.depth = 0
        """How many child modules the running code is inside."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in LAYER_OUTPUTS or (self.depth and operation in BLOCK_OUTPUTS):
            self.elements += (result if isinstance(result, Tensor) else result[0]).numel()
        return result


@contextmanager
def _depth_counted(network: nn.Module, counter: _ActivationCounter) -> Iterator[None]:
    def enter(*_: object) -> None:
        counter.depth += 1

    def leave(*_: object) -> None:
        counter.depth -= 1

    children = [module for module in network.modules() if module is not network]
    hooks = [child.register_forward_pre_hook(enter) for child in children]
    hooks += [child.register_forward_hook(leave) for child in children]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _multiply_adds(network: nn.Module, side: int) -> int:
    probe = copy.deepcopy(network).to("meta").eval()
    x = torch.empty(1, 1, side, side, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        probe(x, *table_for(probe, x))
    return counter.get_total_flops() // 2
