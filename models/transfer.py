"""Easy-hard transfer: the first layers of one trained network start another."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def layer_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the network's layers, from input to output.

    Raises ValueError for a network that does not declare them.
    """
    names = getattr(network, "layer_names", None)
    if not names:
        raise ValueError(
            f"{type(network).__name__} declares no layers: give it a `layer_names` tuple"
        )
    return tuple(names)


def transfer_layers(
    target: nn.Module, source_state: Mapping[str, Tensor], layers: int | None
) -> None:
    """Copy the first `layers` layers of a trained network into `target`, in place; None: all.

    `source_state` is the trained network's state dictionary; layers are matched by name, so that
    the two networks may differ behind the copied ones. Nothing is copied unless everything fits.
    Raises ValueError when the count is out of range, or when a tensor is missing or of another
    shape.
    """
    names = layer_names(target)
    layers = len(names) if layers is None else layers
    if not 1 <= layers <= len(names):
        raise ValueError(f"layers {layers}: {type(target).__name__} has 1 to {len(names)}")
    prefixes = tuple(f"{name}." for name in names[:layers])
    wanted = {key: own for key, own in target.state_dict().items() if key.startswith(prefixes)}
    for key, own in wanted.items():
        if key not in source_state:
            raise ValueError(
                f"the source has no {key!r}, which {type(target).__name__} needs: "
                "transfer fewer layers, or from a network of the same family"
            )
        if source_state[key].shape != own.shape:
            raise ValueError(
                f"{key!r} is {tuple(source_state[key].shape)} in the source and "
                f"{tuple(own.shape)} in {type(target).__name__}: transfer fewer layers"
            )
    with torch.no_grad():
        for key, own in wanted.items():
            own.copy_(source_state[key])
