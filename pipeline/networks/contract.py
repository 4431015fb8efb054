"""Whether a network keeps what `models.ARCHITECTURES` asks, found out before it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from models import build_model, layer_names
from models.measuring.receptive_field import STRIP, receptive_field, table_for
from pipeline.networks.export import export_network

SIZES = ((8, 8), (33, 47))
"""The least, and sides that no multiple divides."""
QUICK = 2e10
"""Multiply-adds, about, up to which a receptive field is measured in seconds."""
PADDING = "pad with replicate_to_multiple and cut with crop, both of models/layers/padding.py"


class NetworkError(ValueError):
    """A network cannot be trained and registered; the message names its file and what to change."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was seen of a network that keeps the rules."""

    layers: int
    receptive_field: int
    """Side in pixels: measured, or as declared where measuring takes too long."""
    measured: bool


def check_network(
    name: str, options: Mapping[str, object] | None = None, *, quick: bool = True
) -> Checked:
    """Return what a network of ARCHITECTURES is like; NetworkError tells what is wrong with it.

    Its layers hold every parameter, it keeps the shape of any image, it becomes a program of any
    size, and no pixel outside of its declared receptive field matters. That is not measured with
    `quick` if the network is so large that it takes more than seconds.
    """
    network = build_model(name, options).eval()
    place = f"network {name} ({type(network).__module__.replace('.', '/')}.py)"
    try:
        layers = _check_layers(network)
        declared, multiple = (_declared(network, what) for what in ("receptive_field", "multiple"))
        _check_sizes(network)
        measured = not quick or _work(network, declared, multiple) <= QUICK
        field = _check_field(network, declared) if measured else declared
        _check_export(network)
    except NetworkError as error:
        raise NetworkError(f"{place} {error}") from error
    return Checked(layers=layers, receptive_field=field, measured=measured)


def _check_layers(network: nn.Module) -> int:
    try:
        names = layer_names(network)
        held = {id(p) for name in names for p in network.get_submodule(name).parameters()}
    except (ValueError, AttributeError) as error:
        raise NetworkError(f"has no usable layer_names: {error}") from error
    outside = [key for key, value in network.named_parameters() if id(value) not in held]
    if outside:
        raise NetworkError(
            f"has parameters outside of its layer_names, such as {outside[0]!r}: name every child "
            "module that learns, from input to output"
        )
    return len(names)


def _declared(network: nn.Module, what: str) -> int:
    value = getattr(network, what, None)
    if not isinstance(value, int) or value < 1:
        raise NetworkError(f"declares {what} {value}: give it a number of pixels, 1 or more")
    return value


def _check_sizes(network: nn.Module) -> None:
    for size in SIZES:
        x = torch.rand(1, 1, *size)
        told = f"an image of {size[0]}x{size[1]} pixels"
        try:
            with torch.no_grad():
                output = network(x, *table_for(network, x))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise NetworkError(f"fails at {told}: {reason}. For any size, {PADDING}") from error
        if output.shape != x.shape:
            raise NetworkError(
                f"turns {told} into {tuple(output.shape)} instead of {tuple(x.shape)}: {PADDING}"
            )


def _check_export(network: nn.Module) -> None:
    """Refuse a network that torch.export ties to some sizes, or that then computes otherwise."""
    try:
        program = export_network(network).program.module()
        for size in SIZES:
            x = torch.rand(1, 1, *size)
            inputs = (x, *table_for(network, x))
            with torch.no_grad():
                expected = network(*inputs).clamp(0, 1)
                torch.testing.assert_close(program(*inputs), expected, rtol=0, atol=1e-4)
    except Exception as error:  # torch.export's have no common class
        raise NetworkError(
            "cannot be exported for images of any size, which the registry needs: no F.pad, slice "
            f"or `if` may depend on height and width; {PADDING}"
        ) from error


def _check_field(network: nn.Module, declared: int) -> int:
    measured = receptive_field(network)
    if measured > declared:
        raise NetworkError(
            f"declares receptive_field {declared}, but a pixel depends on {measured}x{measured}: "
            f"declare {measured}, or large images are restored with seams"
        )
    return measured


def _work(network: nn.Module, field: int, multiple: int) -> float:
    """Return the multiply-adds, about, of measuring the receptive field."""
    weights = sum(parameter.numel() for parameter in network.parameters())
    pixels = 2 * STRIP * (field + 4 * multiple)
    return weights * pixels * (1 + multiple)
