"""Trained weights as one safetensors file that says which network they belong to.

`python -m pipeline.networks.weights SOURCE TARGET` writes weights again in half the bytes, to
be shipped.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models import build_model
from pipeline.recipes.base import Recipe
from storage import files

KEY = "qfactory"
WEIGHTS = "weights.safetensors"
"""A trained network's file in its folder of checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where weights come from: enough to build their network without the recipe."""

    recipe: str
    fingerprint: str
    """Of the recipe."""
    architecture: str
    options: dict[str, object]
    qfs: tuple[int, ...]
    """JPEG quality factors that the network was trained for."""
    step: int
    """Optimiser steps behind the weights."""


def save_weights(uri: str, weights: Mapping[str, Tensor], recipe: Recipe, step: int) -> None:
    """Publish a network's state dictionary with its origin and a SHA-256 of the tensors."""
    tensors = {
        name: value.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
        for name, value in weights.items()
    }
    origin = Origin(
        recipe=recipe.name,
        fingerprint=recipe.fingerprint,
        architecture=recipe.architecture,
        options=recipe.options,
        qfs=recipe.qfs,
        step=step,
    )
    _publish(uri, tensors, origin)


def save_half(source: str, target: str) -> None:
    """Publish weights anew in float16, half the size; `load_network` computes in float32 as ever.

    Raises ValueError when the source is no good, or a value of it is too large for float16.
    """
    origin, tensors = load_weights(source)
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    if lost := sorted(name for name, value in halves.items() if not value.isfinite().all()):
        raise ValueError(
            f"{source}: float16 ends at 65504, and {', '.join(lost)} of float32 has more; ship "
            "these weights as they are"
        )
    _publish(target, halves, origin)


def weights_in(uri: str) -> str:
    """Return the file of weights of a folder of checkpoints; `uri` itself where it is none."""
    inside = files.join(uri, WEIGHTS)
    return inside if files.exists(inside) else uri


def load_weights(uri: str) -> tuple[Origin, Mapping[str, Tensor]]:
    """Read weights back, on the CPU. Raises ValueError that names the file when it is no good."""
    try:
        content = files.read_bytes(uri)
        tensors = load(content)
        note = json.loads(_header(content)["__metadata__"][KEY])
        if note.pop("sha256") != _tensor_digest(content):
            raise ValueError("its SHA-256 is not the recorded one")
        return Origin(**{**note, "qfs": tuple(note["qfs"])}), tensors
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{uri} is missing, damaged or not weights of a qfactory training ({error!r}); "
            "train its recipe again"
        ) from error


def load_network(uri: str) -> tuple[Origin, nn.Module]:
    """Build the network that weights belong to, in eval mode on the CPU and in float32.

    The file may hold them in another precision. Raises ValueError when it is no good, when the
    weights do not fit the network, and when they are not finite.
    """
    origin, tensors = load_weights(uri)
    with torch.random.fork_rng(devices=[]):
        network = build_model(origin.architecture, origin.options)
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ValueError(f"{uri} does not fit {origin.architecture!r}: {error}") from error
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"{uri}: {name}, {tensors[name].dtype} in the file, has values that are not "
                "finite: the training diverged, or the weights were converted to a precision that "
                "they overflow; take an earlier checkpoint, or convert them to bfloat16 instead"
            )
    return origin, network.eval()


def _publish(uri: str, tensors: Mapping[str, Tensor], origin: Origin) -> None:
    digest = _tensor_digest(save(dict(tensors)))
    note = json.dumps({**asdict(origin), "sha256": digest}, sort_keys=True)
    files.write_bytes(uri, save(dict(tensors), metadata={KEY: note}))


def _header(content: bytes) -> dict:
    return json.loads(content[8 : _header_end(content)])


def _header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _tensor_digest(content: bytes) -> str:
    return hashlib.sha256(content[_header_end(content) :]).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write weights again in float16."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.networks.weights", description=main.__doc__
    )
    parser.add_argument("source", help="path or URI of weights")
    parser.add_argument("target", help="where the smaller file goes")
    options = parser.parse_args(arguments)
    try:
        save_half(options.source, options.target)
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
